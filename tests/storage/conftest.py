"""How the async PostgreSQL store is opened, and a PostgreSQL store with three tenants."""

from tests.kits.async_store import keyed, keyset  # noqa: F401
from tests.kits.tenants import filled, owner  # noqa: F401
