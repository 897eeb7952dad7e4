"""The contract, kept by the PostgreSQL store, on a real server."""

import asyncio
import contextlib
import itertools
from contextlib import closing

import numpy as np
import psycopg
import pytest
from sqlalchemy import create_engine

import encvec_store as ev
from encvec_store.storage.postgres import Raw, RawDumper, Source, split_value, term_from, typed_kind, vector
from tests.kits.postgres import role
from tests.stores.contract import Opened, SameSchemeContract, SealedFixtures, StoreContract, machine
from tests.stores.contract.celled import CelledContract
from tests.stores.contract.changing import ChangingContract
from tests.stores.contract.forgery import ForgeryContract
from tests.stores.contract.moving import MovingContract
from tests.stores.contract.precision import PrecisionContract
from tests.stores.contract.races import RacesContract
from tests.stores.contract.records import RecordContract
from tests.stores.contract.refit import RefitContract
from tests.stores.contract.replay import ReplayContract
from tests.stores.contract.search import SearchContract
from tests.stores.contract.tampering import Burglar, TamperingContract
from tests.stores.contract.updating import UpdateContract


class OpenedPostgres(Opened):
    """A schema of a database."""

    def __init__(self, keyset, url, schema, administrator=None, **options):
        super().__init__(keyset)
        self.url, self.schema, self.administrator, self.options = url, schema, administrator or url, options

    def open(self, keyset):
        return ev.connect(self.url, keyset=keyset, schema=self.schema, maintenance="inline", **self.options)

    def another(self):
        return type(self)(self.keyset, self.url, f"{self.schema}_another", self.administrator, **self.options)

    def burglar(self, name="things", tenant=""):
        burglar = PostgresBurglar(self.administrator, self.schema, tenant, name)
        self.opened.append(burglar)
        return burglar


def _column(part):
    return "envelope" if part == "vector" else part


class PostgresBurglar(Burglar):
    def __init__(self, url, schema, tenant, name):
        self.schema = schema
        self.connection = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        self.connection.adapters.register_dumper(Raw, RawDumper)
        ((self.number,),) = self.ask("SELECT id FROM {}.collections WHERE tenant = %s AND name = %s", tenant, name)

    def ask(self, sql, *values):
        cursor = self.connection.execute(sql.replace("{}", self.schema), values, binary=True)
        return cursor.fetchall() if cursor.description else []

    def close(self):
        self.connection.close()

    @property
    def content(self):
        return self.ask("SELECT content FROM {}.collections WHERE id = %s", self.number)[0][0]

    @property
    def records(self):
        return f"{{}}.records_{self.content}"

    @property
    def terms(self):
        return f"{{}}.terms_{self.content}"

    @property
    def half(self):
        return self.has("index_half")

    def has(self, column):
        sql = "SELECT 1 FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"
        return bool(self.ask(sql, self.records.replace("{}", self.schema), column))

    def rows(self):
        return [row for (row,) in self.ask(f"SELECT row FROM {self.records} ORDER BY row")]

    def read(self, row, part):
        if part == "terms":
            found = self.ask(f"SELECT field, kind, key, rest FROM {self.terms} WHERE row = %s", row)
            return {(field.decode(), *term_from(kind, key, rest)) for field, kind, key, rest in found}
        if part == "index_vector":
            half, number = self.half, ">f2" if self.half else ">f4"
            if not half and not self.has("index_vector"):
                return b""  # the server does not rank these vectors
            sent = "halfvec_send(index_half)" if half else "vector_send(index_vector)"
            found = self.ask(f"SELECT {sent} FROM {self.records} WHERE row = %s", row)
            numbers = np.frombuffer((found[0][0] or b"")[4:], number)
            return numbers.astype(number.replace(">", "<")).tobytes()
        return self.ask(f"SELECT {_column(part)} FROM {self.records} WHERE row = %s", row)[0][0]

    def write(self, row, parts):
        for part, value in parts.items():
            if part == "terms":
                self.ask(f"DELETE FROM {self.terms} WHERE row = %s", row)
                for n, (field, kind, have) in enumerate(value):
                    key = (typed_kind(kind, have), *split_value(have))
                    self.ask(f"INSERT INTO {self.terms} VALUES (%s, %s, %s, %s, %s, %s)", row, n, field.encode(), *key)
            elif part == "index_vector" and self.half:
                packed = vector(np.frombuffer(value, "<f2"), ">f2")
                self.ask(f"UPDATE {self.records} SET index_half = %b::halfvec WHERE row = %s", packed, row)
            elif part == "index_vector":
                if value:
                    packed = vector(np.frombuffer(value, "<f4"))
                    if np.isnan(np.frombuffer(value, "<f4")).any():
                        # pgvector refuses to keep it; the next worst are products that overflow
                        packed = vector(np.full(len(value) // 4, 3e38, np.float32))
                    self.ask(f"UPDATE {self.records} SET index_vector = %b::vector WHERE row = %s", packed, row)
            else:
                self.ask(f"UPDATE {self.records} SET {_column(part)} = %s WHERE row = %s", value, row)

    def remove(self, row):
        for table in (self.terms, self.records):
            self.ask(f"DELETE FROM {table} WHERE row = %s", row)

    def move(self, row, other):
        for mine, theirs in ((self.records, other.records), (self.terms, other.terms)):
            self.ask(f"INSERT INTO {theirs} SELECT * FROM {mine} WHERE row = %s", row)
        self.remove(row)

    def config(self):
        return self.ask("SELECT config FROM {}.collections WHERE id = %s", self.number)[0][0]

    def set_config(self, sealed):
        self.ask("UPDATE {}.collections SET config = %s WHERE id = %s", sealed, self.number)

    def profile(self):
        sql = "SELECT content FROM {}.blobs WHERE collection = %s AND name = 'profile'"
        return self.ask(sql, self.number)[0][0]

    def set_profile(self, sealed):
        self.ask("DELETE FROM {}.blobs WHERE collection = %s", self.number)
        if sealed is not None:
            sql = "INSERT INTO {}.blobs (collection, name, part, key_version, content) VALUES (%s, 'profile', 0, 1, %s)"
            self.ask(sql, self.number, sealed)


class Apart(OpenedPostgres):
    """The same with row-level security, as a role without privileges that owns the tables."""

    def collections(self, store, tenants):
        return sorted(found for tenant in tenants for found in store.collections(tenant))


class Places:
    """A schema for each test."""

    @pytest.fixture
    def opening(self, pg_place):
        """Return what makes an `Opened` of a keyset and a schema."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, keyset, opening, pg_place):
        with closing(opening(keyset, pg_place.schema)) as place:
            yield place


class Contract(Places, ChangingContract, RacesContract, StoreContract):
    @pytest.mark.parametrize("where", [None, {"n": 1}], ids=["all", "filtered"])
    def test_a_search_is_one_statement(self, place, make, monkeypatch, where):
        """Documents make it two; what another opening wrote is noticed without asking."""
        mine = make("small", scheme={"name": "sap", "beta": 1.0}, fields={"n": "blind"})
        names, metadata = [f"id-{i}" for i in range(40)], [{"n": i % 2} for i in range(40)]
        vectors = np.random.default_rng(0).standard_normal((40, mine.dim))
        mine.upsert(names, vectors, metadata)
        mine.search(vectors[1], where=where)
        read, asked = Source.read, []
        monkeypatch.setattr(Source, "read", lambda self, *more: asked.append(1) or read(self, *more))
        assert mine.search(vectors[1], where=where)[0].id == "id-1"
        assert len(asked) == 1
        with place.connect() as other:
            theirs = other.collection("small")
            theirs.upsert(names, vectors, metadata, ["long " * 100] * 40)
            theirs.delete(["id-1"])
        asked.clear()
        assert {hit.document for hit in mine.search(vectors[1], where=where)} == {"long " * 100}
        assert len(asked) == 2

    def test_a_sealed_search_is_one_statement(self, place, make, monkeypatch):
        """It brings candidates with short payloads, and tells whether somebody wrote; another one brings long ones."""
        mine = make("small", scheme="sealed")
        names, vectors = [f"id-{i}" for i in range(40)], np.random.default_rng(0).standard_normal((40, mine.dim))
        mine.upsert(names, vectors)
        mine.search(vectors[1])
        read, asked = Source.read, []
        monkeypatch.setattr(Source, "read", lambda self, *more: asked.append(1) or read(self, *more))
        assert mine.search(vectors[1])[0].id == "id-1"
        assert len(asked) == 1
        with place.connect() as other:
            other.collection("small").upsert(["id-1"], vectors[1:2], documents=["long " * 1_000])
            asked.clear()
            assert mine.search(vectors[1])[0].document == "long " * 1_000
            assert len(asked) == 4, "the candidates twice, the change table with the new vector, the payload"
            asked.clear()
            assert mine.search(vectors[1])[0].document == "long " * 1_000
            assert len(asked) == 2
            other.collection("small").upsert(["far"], -vectors[1:2])
            asked.clear()
            assert mine.search(vectors[1], k=3)[0].document == "long " * 1_000
            assert len(asked) == 3, "the candidates, the change table, the payload"
            other.collection("small").delete(["far"])
            asked.clear()
            assert mine.search(-vectors[1], k=3)[0].id != "far"
            assert len(asked) == 3, "a candidate is gone: the candidates twice, the change table"
            other.collection("small").delete(["id-1"])
        assert mine.search(vectors[1])[0].id != "id-1"

    def test_random_histories(self, opening, pg_place):
        schemas = (f"{pg_place.schema}_{n}" for n in itertools.count())
        machine.run(lambda keyset: opening(keyset, next(schemas)), examples=15)


class TestPgvector(
    CelledContract,
    ForgeryContract,
    MovingContract,
    PrecisionContract,
    RefitContract,
    ReplayContract,
    TamperingContract,
    Contract,
):
    @pytest.fixture
    def opening(self, pg_place):
        return lambda keyset, schema: OpenedPostgres(keyset, pg_place.dsn, schema)


@pytest.mark.parametrize("stop", [False, True])
def test_a_scheme_changed_over_an_engine_that_commits_each_statement(pg_dsn, stop):
    """It is one transaction all the same."""
    keyset, stored = ev.Keyset.create("memory:"), np.random.default_rng(0).normal(size=(50, 8))
    engine = create_engine(pg_dsn.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")

    def progress(done, total):
        if stop:
            raise KeyboardInterrupt

    with ev.connect("postgresql://", keyset=keyset, engine=engine) as store:
        things = store.collection("things", dim=8, scheme="sap", oversample=100)
        things.upsert(list(range(50)), stored)
        with pytest.raises(KeyboardInterrupt) if stop else contextlib.nullcontext():
            things.change(scheme="sealed", progress=progress)
        assert things.stats()["scheme"]["name"] == ("sap" if stop else "sealed")
        assert things.search(stored[7], k=1)[0].id == 7
        assert things.verify().ok
    engine.dispose()


def test_a_scheme_changed_in_the_event_loop(pg_dsn):
    async def main():
        keyset, stored = ev.Keyset.create("memory:"), np.random.default_rng(0).normal(size=(50, 8))
        async with ev.aio.connect(pg_dsn, keyset=keyset) as store:
            things = await store.collection("things", dim=8, scheme="sap", oversample=100)
            await things.upsert(list(range(50)), stored)
            for scheme in ("sealed", "sap", "sketch"):
                seen = []
                found = await things.change(scheme=scheme, progress=lambda n, total, seen=seen: seen.append(n))
                assert (found.scheme, found.changed, sum(seen)) == (scheme, True, 50)
                assert "VACUUM FULL" in found.remains
                assert (await things.search(stored[7], k=1))[0].id == 7
                assert (await things.verify()).ok

    asyncio.run(main())


class ByRole(Places):
    """By a role without privileges, each tenant behind row-level security."""

    @pytest.fixture
    def opening(self, pg_place):
        dsn = pg_place.dsn
        with role(dsn, f"GRANT CREATE ON DATABASE {dsn.partition('?')[0].rpartition('/')[2]} TO {{}}") as url:
            yield lambda keyset, schema: Apart(keyset, url, schema, dsn, row_security=True)


class TestRowSecurity(ByRole, SameSchemeContract, Contract):
    """Without the burglar's part: what he can do to the tables, and what opening them shows, depends on no role.

    Without the lives of a sketch too: they put, replace and seal records anew, which `storage/test_postgres.py` does
    as this role. `ChangingContract` makes a sketch with its profile, and half precision; the scheme here has cells.
    """


class TestSealedRowSecurity(ByRole, SearchContract, UpdateContract, SealedFixtures):
    """A sealed index follows the change table, which has a policy of its own; `TestPlainPostgres` has the records."""


class TestPlainPostgres(RecordContract, SealedFixtures):
    """What is told of records, under `sealed` in a database without pgvector, by a role without privileges."""

    @pytest.fixture
    def place(self, keyset, pg_plain):
        with (
            role(pg_plain, "CREATE SCHEMA plain AUTHORIZATION {}") as url,
            closing(OpenedPostgres(keyset, url, "plain", row_security=True)) as place,
        ):
            yield place
