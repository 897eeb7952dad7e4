"""The fixtures of a real PostgreSQL, for the integrations that need one."""

from tests.postgres import pg_dsn, pg_server, pg_template  # noqa: F401
