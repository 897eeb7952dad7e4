"""The PostgreSQL server that its index is tested on."""

from tests.postgres import pg_dsn, pg_server, pg_template  # noqa: F401
