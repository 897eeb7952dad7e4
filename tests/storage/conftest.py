"""How the async PostgreSQL store is opened."""

from tests.kits.async_store import keyed, keyset  # noqa: F401
