"""The chain of revisions makes the tables of `connect`, goes up and down, and can be run as SQL."""

import shutil
import subprocess
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from pytest_alembic.plugin.fixtures import alembic_runner  # noqa: F401
from pytest_alembic.tests import (  # noqa: F401
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import create_engine, event, text

import encvec_store as ev
from encvec_store import errors, migrate
from encvec_store.localpg import LocalServerError, find_installation
from encvec_store.storage import FORMAT, REVISION
from encvec_store.storage.postgres import PostgresStore
from tests.kits.migrations import DIM, N, check, fill, keyset, records
from tests.kits.postgres import role


@pytest.fixture
def alembic_config(dialect):
    return migrate._config(schema=None if dialect == "sqlite" else "their own")


@pytest.fixture
def alembic_engine(dialect, place):
    if dialect == "sqlite":
        engine = create_engine(f"sqlite:///{place.where}/records.sqlite3", connect_args={"isolation_level": None})
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    else:
        engine = create_engine(place.url.replace("postgresql://", "postgresql+psycopg://"))
        with engine.begin() as connection:
            connection.execute(text('CREATE SCHEMA "their own"'))
    yield engine
    engine.dispose()


def test_the_code_and_the_scripts_agree():
    revisions = migrate.history()
    assert [revision.number for revision in revisions] == list(range(1, REVISION + 1))
    formats = [revision.format for revision in revisions]
    assert formats == sorted(formats)
    assert formats[-1] == FORMAT
    assert all(revision.title for revision in revisions)


def test_both_ways_of_making_tables_make_the_same(place):
    place.connect().close()
    made = place.catalog()
    assert len(made) > 15
    migrate.downgrade(place.url, 0)
    assert migrate.current(place.url).revision == 0
    before, after = migrate.upgrade(place.url)
    assert (before.revision, after.revision, after.format, after.usable) == (0, REVISION, FORMAT, True)
    assert place.catalog() == made


def test_down_to_nothing_and_made_anew(place):
    """A downgrade leaves nothing that hinders the next upgrade."""
    place.loaded()
    made = place.catalog()
    with pytest.raises(errors.DataLossError, match=r"delete 2 collections; nothing was changed"):
        migrate.downgrade(place.url, 0)
    assert place.catalog() == made
    assert migrate.downgrade(place.url, "base", accept_data_loss=True)[1].revision == 0
    if place.dialect == "postgresql":
        left = "SELECT relname FROM pg_class WHERE relnamespace = 'encvec'::regnamespace AND relkind IN ('r', 'S')"
        assert place.ask(left) == [("schema_revision",)]
    with place.connect() as store:
        assert store.collections() == []
        fill(store)
        check(store)
    assert migrate.upgrade(place.url)[0].revision == REVISION


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_caches_go_with_the_collections(place):
    with place.connect() as store:
        fill(store)
    assert list((place.where / "index").rglob("*.*"))
    migrate.downgrade(place.url, 0, accept_data_loss=True)
    assert not (place.where / "index").exists()


def test_up_and_down_a_revision_with_data(place, further):
    place.loaded()
    with place.connect() as store:
        check(store)
    before = place.catalog()
    assert [version.revision for version in migrate.upgrade(place.url)] == [REVISION, further]
    assert place.ask("SELECT DISTINCT weight FROM {at}records") == [(1,)]
    with place.connect() as store:
        store.collection("late", dim=4).upsert(
            ["a"], [[1, 2, 3, 4]]
        )  # created after the upgrade, so it has the column too
    place.ask("INSERT INTO {at}notes VALUES (1, NULL)")
    with pytest.raises(errors.DataLossError, match="delete 1 notes; nothing was changed"):
        migrate.downgrade(place.url, REVISION)
    place.ask("DELETE FROM {at}notes")
    with place.connect() as store:
        assert store.drop("late")
    migrate.downgrade(place.url, REVISION)
    changed = {"next_row", "sequence"}
    assert [row for row in place.catalog() if row[0] not in changed] == [row for row in before if row[0] not in changed]
    with place.connect() as store:
        check(store)


def test_a_new_script_is_made_from_the_template(tmp_path, monkeypatch):
    """As `make revision` does it."""
    shutil.copytree(migrate._folder(), tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "_folder", lambda: tmp_path / "scripts")
    made = command.revision(migrate._config(), "a new script", rev_id=f"{REVISION + 1:04d}")
    assert migrate.history()[-1] == migrate.Revision(REVISION + 1, "A new script", FORMAT)
    assert made.module.loses == {}


def test_a_column_is_dropped_from_tables_made_since(place, further):
    """Such a table has the column itself in PostgreSQL; it does not only inherit it."""
    migrate.upgrade(place.url)
    with place.connect() as store:
        fill(store)
        migrate.downgrade(place.url, REVISION)
        check(store)
    with pytest.raises(Exception, match="weight"):
        place.ask("SELECT weight FROM {at}records" + ("_1" if place.dialect == "postgresql" else ""))
    migrate.upgrade(place.url)
    with place.connect() as store:
        check(store)


@pytest.mark.parametrize("revision", ["2000", "x", "-1", "", "0001x", None, 1.5])
def test_no_such_revision(place, revision):
    for call in (migrate.upgrade, migrate.downgrade, migrate.sql):
        with pytest.raises(errors.UriError, match=r"revision must be|sql needs a PostgreSQL"):
            call(place.url, revision)


def test_wrong_way(place, further):
    migrate.upgrade(place.url, REVISION)
    with pytest.raises(errors.InputError, match="`upgrade` to go forward"):
        migrate.downgrade(place.url, further)
    migrate.upgrade(place.url)
    with pytest.raises(errors.InputError, match="`downgrade` to go back"):
        migrate.upgrade(place.url, REVISION)
    assert migrate.current(place.url).revision == further


def test_notes_that_disagree(place):
    migrate.upgrade(place.url)
    place.ask("UPDATE {at}schema_revision SET version_num = '0007'")
    with pytest.raises(errors.StoreUnreachableError, match="schema_revision must have revision"):
        migrate.upgrade(place.url)


def test_looking_changes_nothing(tmp_path, pg_dsn):
    (tmp_path / "empty").mkdir()
    assert migrate.current(f"faiss://{tmp_path}/empty").revision == 0
    assert list((tmp_path / "empty").iterdir()) == []
    assert migrate.current(pg_dsn).revision == 0
    assert migrate.current(pg_dsn).usable is False
    with psycopg.connect(pg_dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('encvec')").fetchone() == (None,)


@pytest.mark.parametrize("call", [migrate.upgrade, migrate.current])
def test_what_cannot_be_migrated(tmp_path, call):
    with pytest.raises(errors.UriError, match="memory: store has no tables"):
        call("memory:")
    with pytest.raises(errors.StoreUnreachableError, match="no store at"):
        call(f"faiss://{tmp_path}/nowhere")
    assert not (tmp_path / "nowhere").exists()
    engine = create_engine(f"sqlite:///{tmp_path}/records.sqlite3")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (x)"))
    engine.dispose()
    with pytest.raises(errors.StoreUnreachableError, match="database of another program"):
        call(f"faiss://{tmp_path}")
    with pytest.raises(errors.StoreUnreachableError, match="127") as caught:
        call("postgresql://u:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------------------------- by somebody else


def psql():
    """Return the program that came with the server."""
    try:
        return find_installation().prefix / "bin" / "psql"
    except LocalServerError:  # the server is on another machine
        return shutil.which("psql") or pytest.skip("no psql here")


def run_by_psql(dsn, script):
    command = [psql(), "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", dsn]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("dialect", ["postgresql"])
@pytest.mark.parametrize("by", ["psql", "psycopg"])
def test_sql_for_a_dba(place, by):
    place.connect().close()
    made = place.catalog()
    place.ask("DROP SCHEMA encvec CASCADE")
    place.ask("DROP EXTENSION vector")
    assert "EXTENSION" not in migrate.sql(place.url)
    script = migrate.sql(place.url, with_extension=True)
    if by == "psql":
        run_by_psql(place.url, script)
    else:
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute(script)
    assert place.catalog() == made
    assert migrate.current(place.url).usable
    with place.connect(create=False) as store:
        fill(store)
        check(store)
    migrate.upgrade(place.url)


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_odd_names_and_an_extension_in_a_schema_of_its_own(place, further):
    place.ask("DROP EXTENSION vector")
    place.ask('CREATE SCHEMA "Their ""own"""')
    place.ask('CREATE EXTENSION vector SCHEMA "Their ""own"""')
    for schema in ("My 'own'", 'My "own"'):
        url = f"{place.url}&schema={quote(schema)}"
        migrate.upgrade(url, REVISION)
        with place.connect(schema=schema) as store:
            fill(store)
            migrate.upgrade(url)
            check(store)
            migrate.downgrade(url, REVISION)
            check(store)
        migrate.downgrade(url, 0, accept_data_loss=True)
        run_by_psql(place.url, migrate.sql(f"{url}%202", REVISION))
        with place.connect(schema=f"{schema} 2", create=False) as store:
            fill(store)
            check(store)
    for call in (migrate.upgrade, migrate.current, migrate.sql):
        with pytest.raises(errors.UriError, match="no schema with a colon"):
            call(f"{place.url}&schema=a:b")


@pytest.mark.parametrize("dialect", ["postgresql"])
@pytest.mark.parametrize("noted", [False, True])
def test_sql_of_one_step(place, further, noted):
    place.loaded()
    if not noted:  # as `connect` leaves a store
        place.ask("DROP TABLE {at}schema_revision")
    script = migrate.sql(place.url, start=REVISION)
    run_by_psql(place.url, script)
    assert migrate.current(place.url).revision == further
    assert migrate.upgrade(place.url)[0].revision == further
    with psycopg.connect(place.url) as connection, pytest.raises(psycopg.Error, match=f"not of revision {REVISION}"):
        connection.execute(script)
    with pytest.raises(errors.InputError, match="nothing to do"):
        migrate.sql(place.url, start=further)


# ----------------------------------------------------------------------------------------------------- rights


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_each_missing_right_names_its_statement(place, further):
    with role(place.url) as theirs:
        name = theirs.partition("://")[2].partition(":")[0]
        for call in (migrate.upgrade, PostgresStore):
            with pytest.raises(errors.StoreUnreachableError, match=f"CREATE SCHEMA .encvec. AUTHORIZATION .{name}."):
                call(theirs)
        migrate.upgrade(place.url, REVISION)
        with pytest.raises(errors.StoreUnreachableError, match="role lacks a right"):
            migrate.upgrade(theirs)
        place.ask(f"GRANT USAGE, CREATE ON SCHEMA encvec TO {name}")
        place.ask(f"GRANT ALL ON ALL TABLES IN SCHEMA encvec TO {name}")
        before = place.catalog()
        with pytest.raises(
            errors.StoreUnreachableError, match=r"must be owner.*run ALTER TABLE encvec\.collections ADD"
        ):
            migrate.upgrade(theirs)
        assert place.catalog() == before
        place.ask("DROP SCHEMA encvec CASCADE")
        place.ask(f"CREATE SCHEMA encvec AUTHORIZATION {name}")
        migrate.upgrade(theirs, REVISION)
        assert migrate.current(theirs).usable
        place.ask("DROP SCHEMA encvec CASCADE")


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_a_schema_made_by_the_owner_is_enough_to_connect(place):
    """CREATE SCHEMA IF NOT EXISTS needs the right to create schemas, even if the schema exists."""
    with role(place.url) as theirs:
        place.ask(f"CREATE SCHEMA encvec AUTHORIZATION {theirs.partition('://')[2].partition(':')[0]}")
        PostgresStore(theirs).close()
        place.ask("DROP SCHEMA encvec CASCADE")


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_no_revision_needs_the_extension(place, further):
    """Nor a superuser: a sealed collection goes all the way up and down without pgvector."""
    place.ask("DROP EXTENSION vector")
    with role(place.url, "CREATE SCHEMA encvec AUTHORIZATION {}") as theirs:
        migrate.upgrade(theirs, REVISION)
        made = place.catalog()
        migrate.downgrade(theirs, 0)
        migrate.upgrade(theirs, REVISION)
        assert place.catalog() == made
        with ev.connect(theirs, keyset=keyset()) as store:
            things = store.collection("things", dim=DIM, scheme="sealed")
            things.upsert(*records())
            assert [after.revision for after in migrate.upgrade(theirs)] == [REVISION, further]
            things.upsert(*records())
            migrate.downgrade(theirs, REVISION)
            assert (things.count(), things.verify().ok) == (N, True)
            with pytest.raises(errors.DataLossError, match="1 collections"):
                migrate.downgrade(theirs, 0)
