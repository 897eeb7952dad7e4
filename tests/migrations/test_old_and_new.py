"""Old code on newer tables, and new code on older ones, either works or says what to do."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from encvec_store import errors, migrate
from encvec_store.localpg import LocalServer
from encvec_store.storage import revisions
from tests.kits.migrations import DATA, N, add_revision, check, edit, fill, records, write_on
from tests.migrations.conftest import Place
from tests.stores.contract import SameSchemeContract
from tests.stores.test_faiss import OpenedFaiss
from tests.stores.test_pgvector import OpenedPostgres

ROOT = Path(__file__).resolve().parents[2]


def test_every_revision_has_its_store():
    """So that the next revision is tested on it; see CONTRIBUTING.md."""
    wanted = {f"{n + 1:04d}.{dialect}.sql" for n in range(revisions.REVISION) for dialect in ("sqlite", "postgresql")}
    assert {path.name for path in DATA.glob("*.sql")} == wanted


@pytest.mark.parametrize("revision", range(1, revisions.REVISION + 1))
def test_a_store_of_an_earlier_revision(place, revision):
    """This code reads and writes a store that old code left, once it is migrated."""
    place.load(revision)
    before, after = migrate.upgrade(place.url)
    assert (before.revision, after.revision) == (revision, revisions.REVISION)
    assert place.ask("SELECT version_num FROM {at}schema_revision") == [(f"{revisions.REVISION:04d}",)]
    assert place.ask("SELECT value FROM {at}meta WHERE name = 'revision'") == [(revisions.REVISION,)]
    with place.connect() as store:
        check(store)
        write_on(store)
        check(store)


def test_tables_that_say_no_revision_are_refused(place):
    """Tables of unknown code are neither used nor changed."""
    place.loaded()
    place.ask("DELETE FROM {at}meta WHERE name = 'revision'")
    before = place.catalog()
    with pytest.raises(errors.StoreUnreachableError, match="tables of revision 0"):
        place.connect()
    for call in (migrate.upgrade, lambda url: migrate.downgrade(url, 0, accept_data_loss=True)):
        with pytest.raises(errors.StoreUnreachableError, match=r"revision 0, which .* does not know"):
            call(place.url)
    assert not migrate.current(place.url).usable
    assert place.catalog() == before


@pytest.mark.parametrize("revision", range(1, revisions.REVISION + 1))
def test_an_adopted_store_is_like_a_new_one(place, revision):
    """Apart from content: no old table keeps a layout of its own."""
    place.load(revision)
    migrate.upgrade(place.url)
    with place.connect() as store:
        for tenant, name in store.collections():
            store.drop(name, tenant=tenant)
    old = {row for row in place.catalog() if row[0] not in ("sequence", "next_row")}
    migrate.downgrade(place.url, 0)
    place.connect().close()
    assert old == {row for row in place.catalog() if row[0] not in ("sequence", "next_row")}


# ------------------------------------------------------------------------- a revision that this code does not know


def test_this_code_goes_on_while_the_tables_get_more(place, further):
    """The expand phase: it changes nothing for a store that is open, or opens later."""
    place.loaded()
    with place.connect() as store:
        check(store)
        migrate.upgrade(place.url)
        assert place.ask("SELECT name, value FROM {at}meta WHERE name <> 'next_row' ORDER BY name") == [
            ("format", revisions.FORMAT),
            ("revision", further),
        ]
        write_on(store)
        check(store)
        later = store.collection("later", dim=4, scheme="sap")
        later.upsert(["a"], [[1, 2, 3, 4]])
        later.calibrate(sample=records(n=200)[1][:, :4], k=1, target_recall=0.5, max_candidates=10)  # replaces tables
        assert later.verify().ok
        store.drop("later")
    with place.connect() as store:
        write_on(store)
        check(store)
    version = migrate.current(place.url)
    assert (version.revision, version.head, version.usable) == (further, revisions.REVISION, True)


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """Return what makes the tables of a later code at a URL."""
    scripts = tmp_path_factory.mktemp("newer") / "further"
    number = add_revision(scripts)

    def make(url):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(migrate, "_folder", lambda: scripts)
            assert migrate.upgrade(url)[1].revision == number

    return make


@pytest.fixture(scope="module")
def newer_folder(tmp_path_factory, newer):
    """A folder with empty tables of a later code."""
    folder = tmp_path_factory.mktemp("store")
    newer(f"faiss:{folder}")
    return folder


@pytest.mark.slow
class TestFaissOnNewerTables(SameSchemeContract):
    """The whole contract, kept by this code on the tables of a later one."""

    @pytest.fixture
    def place(self, keyset, tmp_path, newer_folder):
        shutil.copytree(newer_folder, tmp_path / "store")
        with closing(OpenedFaiss(keyset, tmp_path / "store")) as place:
            yield place


@pytest.mark.slow
class TestPgvectorOnNewerTables(SameSchemeContract):
    @pytest.fixture
    def place(self, keyset, pg_place, newer):
        newer(pg_place.url)
        with closing(OpenedPostgres(keyset, pg_place.dsn, pg_place.schema, create=False)) as place:
            yield place


def test_tables_that_this_code_cannot_use_are_refused(place, tmp_path, monkeypatch):
    """The contract phase: the format went up, so this code touches nothing."""
    number = add_revision(tmp_path / "further", min_reader=revisions.FORMAT + 1)
    place.loaded()
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "_folder", lambda: tmp_path / "further")
        assert not migrate.upgrade(place.url)[1].usable
    before = place.catalog()
    words = rf"has format {revisions.FORMAT + 1}; .* reads up to {revisions.FORMAT}: upgrade it"
    with pytest.raises(errors.StoreUnreachableError, match=words):
        place.connect()
    for call in (migrate.upgrade, lambda url: migrate.downgrade(url, revisions.REVISION)):
        with pytest.raises(
            errors.StoreUnreachableError, match=rf"revision {number}, which .* does not know: install a newer"
        ):
            call(place.url)
    assert migrate.current(place.url).usable is False
    assert place.catalog() == before
    monkeypatch.setattr(migrate, "_folder", lambda: tmp_path / "further")
    migrate.downgrade(place.url, revisions.REVISION)  # by the code that knows it
    with place.connect() as store:
        check(store)


def test_tables_that_are_too_old_say_what_to_run(place, further, monkeypatch):
    """Code with one more revision refuses a store of today until it is upgraded."""
    place.loaded()
    before = place.catalog()
    words = rf"tables of revision {revisions.REVISION}; .* needs {further}: run `encvec db upgrade` \(pip install"
    for module in (revisions, migrate):
        monkeypatch.setattr(module, "REVISION", further)
    with pytest.raises(errors.StoreUnreachableError, match=words):
        place.connect()
    assert place.catalog() == before
    migrate.upgrade(place.url)
    with place.connect() as store:
        check(store)


def test_no_alembic(tmp_path):
    """A `faiss:` store works without Alembic. An old one says what to install."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["alembic", "click", "psycopg", "pgvector"]))
import encvec_store as ev
from encvec_store import errors, migrate
from encvec_store.storage import revisions
url = "faiss://{tmp_path}/store"
with ev.connect(url, keyset=ev.Keyset.create("memory:")) as store:
    store.collection("things", dim=2).upsert(["a"], [[1, 2]])
for call in (migrate.upgrade, lambda url: migrate.downgrade(url, 0), lambda url: migrate.history()):
    try:
        call(url)
    except errors.StoreError as error:
        print(error)
print(migrate.current(url).revision == revisions.REVISION)
revisions.REVISION += 1
try:
    ev.connect(url, keyset=ev.Keyset.create("memory:"))
except errors.StoreUnreachableError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    lines = done.stdout.splitlines()
    assert lines[:4] == ["migrations need Alembic: pip install 'encvec-store[cli]'"] * 3 + ["True"]
    assert lines[4].endswith("run `encvec db upgrade` (pip install 'encvec-store[cli]')")


# ----------------------------------------------------------------------------------------------------- kill -9

DYING = """
import sys
from pathlib import Path
from encvec_store import migrate
migrate._folder = lambda: Path(sys.argv[2])
migrate.upgrade(sys.argv[1])
"""


@pytest.mark.faults
def test_killed_in_the_middle_of_a_migration(place, further):
    """A killed migration leaves nothing, not even its lock. The next attempt does all of it."""
    place.loaded()
    before = place.catalog()
    done = subprocess.run(
        [sys.executable, "-c", DYING, place.url, str(migrate._folder())],
        cwd=ROOT,
        env=os.environ | {"ENCVEC_TEST_DIE": "1"},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert migrate.current(place.url).revision == revisions.REVISION
    assert place.catalog() == before
    with place.connect() as store:
        check(store)
    migrate.upgrade(place.url)
    assert place.ask("SELECT count(*), sum(weight) FROM {at}records") == [(2 * N, 2 * N)]
    with place.connect() as store:
        check(store)
        write_on(store)
        check(store)


@pytest.mark.faults
@pytest.mark.parametrize("dialect", ["postgresql"])
def test_the_server_is_killed_in_the_middle_of_a_migration(tmp_path, further, place):
    edit(tmp_path / "further", "if os.environ", "op.execute('SELECT pg_sleep(30)')\n    if os.environ")
    safe = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    with LocalServer(settings=safe) as server:
        server.ensure_database("killed")
        place = Place("postgresql", server.dsn("killed")).loaded()
        before = place.catalog()
        raised = []

        def run():
            try:
                migrate.upgrade(place.url)
            except errors.StoreError as error:
                raised.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()"
        deadline = time.monotonic() + 20
        while place.ask(busy) != [(1,)] and time.monotonic() < deadline:
            time.sleep(0.02)
        server.kill()
        thread.join()
        assert "cannot migrate" in raised[0]
        server.restart()
        assert place.catalog() == before
        edit(tmp_path / "further", "pg_sleep(30)", "pg_sleep(0)")
        migrate.upgrade(place.url)
        with place.connect() as store:
            check(store)


def test_one_migrates_at_a_time(place, further):
    """The others wait, then have nothing to do."""
    place.loaded()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(migrate.upgrade(place.url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(before.revision for before, _ in answers) == [revisions.REVISION, further, further, further]
    assert {after.revision for _, after in answers} == {further}


def test_somebody_uses_the_tables(place, further):
    """A migration waits for the lock timeout, then gives up and changes nothing."""
    place.loaded()
    before = place.catalog()
    url = place.url + ("&" if "?" in place.url else "?") + "lock_timeout=0.3"
    with closing(place.using()), pytest.raises(errors.StoreLockedError, match="try again"):
        migrate.upgrade(url)
    assert place.catalog() == before
    migrate.upgrade(url)


def test_records_are_not_lost_with_the_tables_they_refer_to(place, further, tmp_path):
    """SQLite makes a new table for some changes. Rows that refer to the old one must stay."""
    rebuilt = "with op.batch_alter_table('collections', schema=schema) as batch:\n"
    rebuilt += (
        "        batch.alter_column('index_dim', existing_type=sa.Integer(), type_=sa.BigInteger())\n    if os.environ"
    )
    edit(tmp_path / "further", "if os.environ", rebuilt)
    place.loaded()
    migrate.upgrade(place.url)
    assert "BIGINT" in str(place.catalog()).upper()
    with place.connect() as store:
        check(store)
        write_on(store)
        check(store)


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_a_migration_that_would_leave_orphans_is_undone(tmp_path, place, further):
    edit(tmp_path / "further", "if os.environ", "op.execute('DELETE FROM collections')\n    if os.environ")
    place.loaded()
    before = place.catalog()
    with pytest.raises(errors.StoreError, match="rows that refer to nothing; nothing was changed"):
        migrate.upgrade(place.url)
    assert place.catalog() == before
    with place.connect() as store:
        check(store)


def test_a_new_store_says_its_revision(place):
    with place.connect() as store:
        fill(store)
        check(store)
    assert migrate.current(place.url).revision == revisions.REVISION
    assert place.ask("SELECT value FROM {at}meta WHERE name = 'revision'") == [(revisions.REVISION,)]
