"""A PostgreSQL store under row-level security: its owner, and three tenants with 30 records each."""

import contextlib

import pytest

from encvec_store.data import Term
from encvec_store.storage import Blob, CollectionSpec
from encvec_store.storage.postgres import PostgresStore
from tests.kits.postgres import role
from tests.kits.postgres_store import DIM, SIZE, ask, batch, both

TENANTS = ("acme", "globex", "")


OWNER = ("GRANT CREATE ON DATABASE {database} TO {{}}",)


def terms(n):
    return [(i, "country", Term("str", "de" if i % 2 else "fr")) for i in range(n)]


def make(backend, tenant, name="things"):
    return both(backend.create(CollectionSpec(tenant, name, DIM, SIZE), b"settings"))


@contextlib.contextmanager
def opened(url, **options):
    backend = PostgresStore(url, **options)
    try:
        yield backend
    finally:
        backend.close()


@pytest.fixture
def owner(pg_dsn):
    """The URL of an unprivileged role that may make the schema, and so owns all tables in it."""
    ((database,),) = ask(pg_dsn, "SELECT quote_ident(current_database())")
    with role(pg_dsn, *(right.format(database=database) for right in OWNER)) as url:
        yield url


@pytest.fixture
def filled(owner):
    """The owner's store with one collection each for three tenants, 30 records in each; yields {tenant: collection}."""
    with opened(owner, row_security=True) as backend:
        collections = {tenant: make(backend, tenant) for tenant in TENANTS}
        for seed, collection in enumerate(collections.values()):
            some = batch(seed, 30, terms=terms(30))
            collection.put(some, under=b"settings", blobs={"profile": Blob(1, b"sealed")})
        yield backend, collections


def tables(dsn):
    """Every table of the store: (name, enabled, forced)."""
    return ask(
        dsn,
        "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class"
        " WHERE relnamespace = 'encvec'::regnamespace AND relkind = 'r' AND relname <> 'meta' ORDER BY 1",
    )
