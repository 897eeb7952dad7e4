"""The contract, kept by the FAISS store, with every kind of index."""

import contextlib
import itertools
import shutil
import sqlite3
from contextlib import closing

import pytest

import encvec_store as ev
from encvec_store import errors
from tests.kits import oracle
from tests.stores.contract import Opened, StoreContract, machine
from tests.stores.contract.celled import CelledContract
from tests.stores.contract.changing import ChangingContract
from tests.stores.contract.forgery import ForgeryContract
from tests.stores.contract.moving import MovingContract
from tests.stores.contract.precision import PrecisionContract
from tests.stores.contract.races import RacesContract
from tests.stores.contract.refit import RefitContract
from tests.stores.contract.replay import ReplayContract
from tests.stores.contract.tampering import Burglar, TamperingContract


class OpenedFaiss(Opened):
    """A folder."""

    def __init__(self, keyset, folder, **options):
        super().__init__(keyset)
        self.folder, self.options = folder, options

    def open(self, keyset):
        return ev.connect(f"faiss:{self.folder}", keyset=keyset, maintenance="inline", **self.options)

    def another(self):
        return type(self)(self.keyset, self.folder.with_name(f"{self.folder.name}-another"), **self.options)

    @contextlib.contextmanager
    def another_opening(self):
        # without the index files that the one before left: it indexes what is in the tables now
        shutil.rmtree(self.folder / "index", ignore_errors=True)
        with super().another_opening() as store:
            yield store

    def burglar(self, name="things", tenant=""):
        return FaissBurglar(self.folder / "records.sqlite3", tenant, name)


TABLES = {"vector": ("vectors", "envelope"), "index_vector": ("index_vectors", "vector")}


class FaissBurglar(Burglar):
    def __init__(self, path, tenant, name):
        self.path = path
        ((self.number,),) = self.ask("SELECT id FROM collections WHERE tenant = ? AND name = ?", tenant, name)

    def ask(self, sql, *values):
        connection = sqlite3.connect(self.path)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            with connection:
                return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def rows(self):
        return [row for (row,) in self.ask("SELECT row FROM records WHERE collection = ? ORDER BY row", self.number)]

    def read(self, row, part):
        if part == "terms":
            return set(self.ask("SELECT field, kind, value FROM terms WHERE row = ?", row))
        table, column = TABLES.get(part, ("records", part))
        found = self.ask(f"SELECT {column} FROM {table} WHERE row = ?", row)
        return found[0][0] if found else b""

    def write(self, row, parts):
        for part, value in parts.items():
            if part == "terms":
                self.ask("DELETE FROM terms WHERE row = ?", row)
                for term in value:
                    sql = "INSERT INTO terms (collection, field, kind, value, row) VALUES (?, ?, ?, ?, ?)"
                    self.ask(sql, self.number, *term, row)
            else:
                table, column = TABLES.get(part, ("records", part))
                self.ask(f"UPDATE {table} SET {column} = ? WHERE row = ?", value, row)

    def remove(self, row):
        for table in ("terms", "vectors", "index_vectors", "records"):
            self.ask(f"DELETE FROM {table} WHERE row = ?", row)

    def move(self, row, other):
        for table in ("records", "terms"):
            self.ask(f"UPDATE {table} SET collection = ? WHERE row = ?", other.number, row)

    def config(self):
        return self.ask("SELECT config FROM collections WHERE id = ?", self.number)[0][0]

    def set_config(self, sealed):
        self.ask("UPDATE collections SET config = ? WHERE id = ?", sealed, self.number)

    def profile(self):
        return self.ask("SELECT content FROM blobs WHERE collection = ? AND name = 'profile'", self.number)[0][0]

    def set_profile(self, sealed):
        self.ask("DELETE FROM blobs WHERE collection = ?", self.number)
        if sealed is not None:
            sql = "INSERT INTO blobs (collection, name, part, key_version, content) VALUES (?, 'profile', 0, 1, ?)"
            self.ask(sql, self.number, sealed)


class TestFaiss(
    CelledContract,
    ChangingContract,
    ForgeryContract,
    MovingContract,
    PrecisionContract,
    RacesContract,
    RefitContract,
    ReplayContract,
    TamperingContract,
    StoreContract,
):
    @pytest.fixture
    def place(self, keyset, tmp_path):
        with closing(OpenedFaiss(keyset, tmp_path / "data")) as place:
            yield place

    def test_random_histories(self, tmp_path):
        folders = (tmp_path / str(n) for n in itertools.count())
        machine.run(lambda keyset: OpenedFaiss(keyset, next(folders)), examples=25)

    def test_an_index_saved_under_a_key_that_is_gone_is_no_damage(self, place, keyset, caplog):
        with place.connect() as store:
            things = store.collection("things", 4, scheme={"name": "sap", "beta": 2.0})
            things.flush()
            keyset.rotate()
            things.upsert(["a"], [[1.0, 2.0, 3.0, 4.0]])  # settings move to the new version, the saved index does not
            keyset.destroy(1)
            assert things.verify().ok
            assert (place.folder / "index" / "1" / "manifest.json").exists()
        with place.connect() as store:
            assert [hit.id for hit in store.collection("things").search([1.0, 2.0, 3.0, 4.0])] == ["a"]
        assert not caplog.records

    def test_index_files_of_another_store_are_not_parsed(self, place, keyset, caplog):
        """The same keyset, name, ids and vectors: FAISS is not given a byte of them, and the answers are right."""
        query = oracle.vectors(1, seed=4)[0]
        with closing(place.another()) as twin:
            for each in (place, twin):
                with each.connect() as store:
                    things = store.collection("things", 8, scheme={"name": "sap", "beta": 0.5}, oversample=100)
                    things.upsert(oracle.ids(60), oracle.vectors(60, seed=each is twin))
                    things.search(query)
                    things.flush()
            index = place.folder / "index" / "1"
            assert (index / "manifest.json").exists()
            shutil.rmtree(index)
            shutil.copytree(twin.folder / "index" / "1", index)
        with place.connect() as store:
            things = store.collection("things", oversample=100)
            assert any("the manifest is not authentic" in problem for problem in things.verify().store)
            oracle.assert_hits(
                things.search(query, k=5), "cosine", query, oracle.ids(60), oracle.vectors(60, seed=False), 5
            )
        assert "the cached index of collection 'things' is not used" in caplog.text

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("saved", [False, True])
    @pytest.mark.parametrize("table", ["vectors", "index_vectors", "terms", "partitions", "changes"])
    def test_rows_taken_out_of_one_table(self, stock, store, table, saved):
        """Neither wrong data nor an endless wait, and verify finds it."""
        things = stock["things"]
        if saved:
            things.search([1.0] * 8)
            things.flush()
        burglar = stock["burglar"]
        where = "" if table in ("partitions", "changes") else f" WHERE row = {burglar.rows()[0]}"
        burglar.ask(f"DELETE FROM {table}{where}")
        with self.openings(stock) as openings:
            self.check_never_wrong(stock, openings)
            if table != "changes" and not (table == "index_vectors" and things.stats()["scheme"]["name"] == "sealed"):
                self.check_found(openings)

    def test_values_of_a_wrong_type(self, stock, subtests):
        """SQLite keeps them in any column: an error of ours, and verify finds them."""
        columns = [("records", "payload"), ("records", "token"), ("vectors", "envelope"), ("index_vectors", "vector")]
        if stock["things"].stats()["scheme"]["name"] == "sealed":
            columns.pop()
        burglar = stock["burglar"]
        row = burglar.rows()[0]
        for (table, name), value in itertools.product(columns, (5, 5.5, "text", b"")):
            whole = burglar.ask(f"SELECT {name} FROM {table} WHERE row = ?", row)[0][0]
            with subtests.test(table=table, column=name, value=value):
                burglar.ask(f"UPDATE {table} SET {name} = ? WHERE row = ?", value, row)
                with self.openings(stock) as openings:
                    self.check_never_wrong(stock, openings)
                    self.check_found(openings)
            burglar.ask(f"UPDATE {table} SET {name} = ? WHERE row = ?", whole, row)
        assert stock["things"].verify().ok

    @pytest.mark.parametrize("saved", [False, True])
    def test_files_of_the_old_scheme_are_removed(self, both, place, saved):
        """Also by another opening that has them in memory, and saves when it is closed."""
        mine, theirs = both({"name": "sap", "beta": 1.0})
        theirs.search(oracle.vectors(1, 16)[0])
        mine.flush()
        folder = place.folder / "index" / "1"
        assert len(list(folder.glob("rows-*"))) == 1
        if saved:
            theirs.upsert(["more"], oracle.vectors(1, 16))
            theirs.flush()
        mine.change(scheme="sealed")
        place.close()
        assert [path.name for path in folder.iterdir()] == ["writer.lock"]

    def test_a_scheme_is_not_changed_where_nothing_may_be_written(self, both, place, keyset):
        both("sap")
        with ev.connect(f"faiss:{place.folder}?mode=ro", keyset=keyset) as store:
            things = store.collection("things", oversample=1000)
            with pytest.raises(errors.StoreReadOnlyError):
                things.change(scheme="sealed")
            self.works(things)
