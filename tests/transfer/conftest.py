"""A plaintext table in a real PostgreSQL, a store of files, and `encvec` called in this process."""

import pytest

from tests.cli.conftest import encvec, home  # noqa: F401
from tests.kits.transfer import make_items


@pytest.fixture
def items(pg_dsn):
    """The URL of a database with the table public.items: 300 rows of every type that metadata can hold."""
    make_items(pg_dsn)
    return pg_dsn
