"""The PostgreSQL server that backends are tested on."""

from tests.postgres import pg_dsn, pg_server, pg_template  # noqa: F401
