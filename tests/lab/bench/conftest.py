"""The PostgreSQL server that the bench is tested on."""

from tests.postgres import pg_dsn, pg_server, pg_template  # noqa: F401
