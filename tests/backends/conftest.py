"""The PostgreSQL server that backends are tested on, and how its async store is opened."""

from tests.backends.async_kit import keyed, keyset  # noqa: F401
from tests.postgres import pg_dsn, pg_server, pg_template  # noqa: F401
