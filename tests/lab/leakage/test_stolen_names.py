"""Names that are sealed are in no byte of what a thief can copy: a folder, its caches, a server's data and its log."""

import base64
import codecs
import contextlib
import shutil
from pathlib import Path

import psycopg
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.localpg import LocalServer
from tests.kits import sealed
from tests.kits.sealed import DIM, apart, vectors_of

N, TINY = 200, 120_000
"""TINY bytes hold the index of so few records, but not their sealed parts: then buckets go to the cache."""
VECTORS = vectors_of(N, 0)
IDS = [f"id-{n}" for n in range(N)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    sealed.small(monkeypatch)


@pytest.fixture
def keyset():
    return ev.Keyset.create("memory:")


def forms(name):
    """Return how a name may be written: as text, in hexadecimal, in base64 at each offset."""
    raw = name.encode()
    found = {"text": raw, "wide": name.encode("utf-16-le"), "hex": codecs.encode(raw, "hex")}
    for offset in range(3):
        found[f"base64 {offset}"] = base64.b64encode(b"\0" * offset + raw)[offset and offset + 1 : -4]
    return found


def found_in(content, names):
    """Return which names are in some bytes, and in which form."""
    lowered = content.lower()
    return {
        (name, form)
        for name in names
        for form, wanted in forms(name).items()
        if (wanted in content if form.startswith("base64") else wanted.lower() in lowered)
    }


def found_below(folder, names):
    """Return {file: names} of all files below a folder that hold a name, or have it in their own."""
    found = {}
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a server replaces files at any time
            held = found_in(str(path.relative_to(folder)).encode(), names)
            held |= found_in(path.read_bytes(), names) if path.is_file() else set()
            if held:
                found[str(path.relative_to(folder))] = held
    return found


def lived(connect, tenant, name, keyset):
    """Do what reaches the store: write, search, build, change, seal anew, drop, and what is refused."""
    with connect() as store:
        for kind, scheme in (("sealed", "sealed"), ("ranked", "sap")):
            things = store.collection(f"{name}-{kind}", DIM, scheme=scheme, tenant=tenant, fields={"n": "blind"})
            things.upsert(IDS, VECTORS, [{"n": i % 4} for i in range(N)])
            things.maintain()
            things.flush()
            assert things.search(VECTORS[7], k=1, where={"n": 3})[0].id == "id-7"
            assert things.verify().ok
            things.explain(VECTORS[7])
            things.stats()
        keyset.rotate()
        store.rekey()
        gone = store.collection(f"{name}-gone", DIM, scheme="sap", tenant=tenant)
        gone.upsert(IDS[:3], VECTORS[:3])
        gone.change(scheme="sealed")
        store.drop(f"{name}-gone", tenant=tenant)
        with pytest.raises(errors.CollectionNotFoundError):
            store.collection(f"{name}-missing", tenant=tenant)
        assert len(store.collections(tenant)) == 2
        yield
    yield


def test_a_folder_and_its_caches(tmp_path, keyset):
    """While it is open, with the log of the database, and after."""
    hidden = {"threat": "watching-server", "index_memory": TINY}
    for how, tenant, name in (("sealed", "Quagga-Holdings", "zorilla-contracts"), ("clear", "Okapi-Group", "fossa")):
        folder = tmp_path / how

        def connect(folder=folder, how=how):
            apart()
            cache = folder / "cache"
            return ev.connect(
                f"faiss:{folder}/store?flat_limit=50",
                keyset=keyset,
                maintenance="manual",
                names=how,
                cache=cache,
                **hidden,
            )

        held = {}
        for _ in lived(connect, tenant, name, keyset):
            copy = shutil.copytree(folder, tmp_path / f"copy-{how}-{len(held)}")
            held[copy.name] = (
                {path.name for path in copy.rglob("*") if path.is_file()},
                found_below(copy, [tenant, name]),
            )
        files = set().union(*(there for there, _ in held.values()))
        assert {"records.sqlite3", "records.sqlite3-wal"} <= files
        assert any(file.endswith(".cache") for file in files)
        assert any(file.startswith("manifest") for file in files), files
        leaks = set().union(*(leak for _, leak in held.values()))
        if how == "sealed":
            assert leaks == set(), held
        else:
            assert {"store/records.sqlite3", "store/records.sqlite3-wal"} <= leaks, "the search finds what is there"
            assert any("index" in leak for leak in leaks), leaks


def test_a_server_with_its_log(keyset):
    """Data files, write-ahead log, and a log of every statement, with its parameters and the name of the program."""
    settings = {"log_statement": "all", "log_line_prefix": "%a %u %d ", "log_min_duration_statement": "0"}
    with LocalServer(settings=settings) as server:
        server.ensure_database("things")
        dsn = server.dsn("things")
        marks = {"sealed": ("Quagga-Holdings", "zorilla-contracts"), "clear": ("Okapi-Group", "fossa")}
        for how, (tenant, name) in marks.items():

            def connect(how=how):
                apart()
                return ev.connect(
                    dsn, keyset=keyset, schema=how, maintenance="manual", names=how, index_above=50, row_security=True
                )

            for _ in lived(connect, tenant, name, keyset):
                pass
        with psycopg.connect(dsn, autocommit=True) as connection:
            with pytest.raises(psycopg.errors.UniqueViolation) as told:
                connection.execute(
                    "INSERT INTO sealed.collections OVERRIDING SYSTEM VALUE SELECT * FROM sealed.collections"
                )
            assert found_in(str(told.value).encode(), marks["sealed"]) == set()
            connection.execute("CHECKPOINT")
            tokens = {tenant for (tenant,) in connection.execute("SELECT DISTINCT tenant FROM sealed.collections")}
        leaks = found_below(server.home, [*marks["sealed"], *marks["clear"], *tokens])
        where = {
            name: {path for path, held in leaks.items() if name in {each for each, _ in held}} for name in _all(leaks)
        }
        assert where.keys().isdisjoint(marks["sealed"]), where
        for name in (*marks["clear"], *tokens):  # the search finds what is there
            assert "server.log" in where[name]
            assert any("pg_wal" in path for path in where[name])
            assert any("base" in path for path in where[name])


def _all(leaks):
    return {name for held in leaks.values() for name, _ in held}
