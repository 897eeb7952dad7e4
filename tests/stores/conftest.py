"""The PostgreSQL server that stores are tested on."""

from tests.postgres import pg_dsn, pg_place, pg_server, pg_shared, pg_template  # noqa: F401
