"""The PostgreSQL server that record stores are tested on."""

from tests.postgres import pg_dsn, pg_server, pg_template  # noqa: F401
