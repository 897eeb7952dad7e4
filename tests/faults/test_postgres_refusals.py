"""What a PostgreSQL server refuses: rights, writes while it is read-only, more time, locks. Said, and then done."""

import contextlib
import threading
import time

import psycopg
import pytest

from encvec_store import errors
from tests.kits.faults.common import check, fill, open_again, records, until
from tests.kits.faults.gates import Running, gate
from tests.kits.faults.worker import DIM, FIELDS, WRITES, dsn_of, postgres
from tests.kits.postgres import role
from tests.kits.postgres_store import ask

pytestmark = pytest.mark.faults

BEFORE = records(range(10))
AFTER = {"upsert": records([*range(10), 20]), "delete": records(range(9)), "calibrate": BEFORE, "flush": BEFORE}
READ_ONLY = ("GRANT USAGE ON SCHEMA encvec TO {}", "GRANT SELECT ON ALL TABLES IN SCHEMA encvec TO {}")
NO_NEW_TABLES = (
    "GRANT USAGE ON SCHEMA encvec TO {}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA encvec TO {}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA encvec TO {}",
)


@pytest.fixture
def url(pg_dsn, keyset):
    """The batches 0 to 9, which want an index and have none."""
    url = postgres(pg_dsn)
    store, things = open_again(url, keyset)
    fill(things, range(10))
    store.close()
    return url


def refused(things, kinds, words):
    for kind in kinds:
        with pytest.raises(errors.StoreUnreachableError, match=words) as caught:
            WRITES[kind](things)
        if kind != "flush":
            assert str(caught.value).endswith("; nothing was written")


def test_a_role_that_may_only_read(url, keyset, caplog):
    """Not even build the index, so searches compare all records; that is warned of once."""
    with role(dsn_of(url), *READ_ONLY) as theirs:
        store, things = open_again(postgres(theirs), keyset)
        check(things, BEFORE)
        check(things, BEFORE)
        assert caplog.text.count("cannot build an index") == 1
        refused(things, WRITES, "the role lacks a right")
        check(things, BEFORE)
        store.close()


def test_a_role_that_may_make_no_tables(url, keyset):
    with role(dsn_of(url), *NO_NEW_TABLES) as theirs:
        store, things = open_again(postgres(theirs), keyset)
        refused(things, ["calibrate"], "permission denied for schema encvec")
        with pytest.raises(errors.StoreUnreachableError, match="permission denied for schema encvec"):
            store.collection("new", dim=DIM)
        WRITES["upsert"](things)
        check(things, AFTER["upsert"])
        store.close()


def test_a_right_taken_away_and_given_back(url, keyset):
    """Of the second of the two tables that a batch goes into."""
    ours = dsn_of(url)
    with role(ours, *NO_NEW_TABLES) as theirs:
        name = psycopg.conninfo.conninfo_to_dict(theirs)["user"]
        store, things = open_again(postgres(theirs), keyset)
        ask(ours, f"REVOKE INSERT ON encvec.terms_1 FROM {name}")
        refused(things, ["upsert"], "permission denied for table terms_1")
        check(things, BEFORE)
        ask(ours, f"GRANT INSERT ON encvec.terms_1 TO {name}")
        WRITES["upsert"](things)
        check(things, AFTER["upsert"])
        store.close()


def test_a_read_only_database(url, keyset):
    ours = dsn_of(url)
    ((name,),) = ask(ours, "SELECT quote_ident(current_database())")
    ask(ours, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    store, things = open_again(url, keyset)
    check(things, BEFORE)
    refused(things, WRITES, "the server is read-only")
    with psycopg.connect(ours, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'encvec_store'"
        )
    for kind in ("flush", "upsert"):
        WRITES[kind](things)
    check(things, AFTER["upsert"])
    store.close()


# -------------------------------------------------------------------------------------------------- time


def configured(url, **settings):
    """The URL of sessions with settings of their own, as a role or a database may have."""
    given = "%20".join(f"-c%20{name}%3D{value}" for name, value in settings.items())
    return postgres(f"{dsn_of(url)}{'&' if '?' in dsn_of(url) else '?'}options={given}")


@pytest.mark.parametrize("kind", ["upsert", "delete"])
def test_a_statement_timeout_of_the_servers(url, keyset, kind):
    store, things = open_again(configured(url, statement_timeout=1000), keyset)
    with gate(url, kind):
        refused(things, [kind], r"cancelled the statement \(canceling statement due to statement timeout\)")
    check(things, BEFORE)
    WRITES[kind](things)
    check(things, AFTER[kind])
    store.close()


def test_an_index_build_takes_as_long_as_it_takes(url, keyset):
    store, things = open_again(configured(url, statement_timeout=1000), keyset)
    with gate(url, "flush") as reached:
        call = Running(WRITES["flush"], things)
        reached()
        time.sleep(1.5)
    assert call.ended() is None
    assert things.stats()["store"]["index"] == "hnsw"
    store.close()


def test_a_search_does_not_wait_for_ever_for_an_index(url, keyset, caplog):
    """An open transaction elsewhere, a backup perhaps, keeps any index from being built; hits come all the same."""
    store, things = open_again(url, keyset, lock_timeout=0.5)
    with gate(url, "flush"):
        check(things, BEFORE)
        with pytest.raises(errors.StoreLockedError):
            things.flush()
    assert "cannot build an index" in caplog.text
    things.flush()
    assert things.stats()["store"]["index"] == "hnsw"
    store.close()


def test_pauses_within_a_calibration(url, keyset):
    """Making batches may take longer than a transaction may idle."""
    store, things = open_again(configured(url, idle_in_transaction_session_timeout=200), keyset)
    things.calibrate(k=2, target_recall=0.5, max_candidates=100, progress=lambda done, total: time.sleep(0.5))
    check(things, BEFORE)
    store.close()


def test_a_calibration_cut_short(url, keyset):
    if ask(dsn_of(url), "SHOW server_version_num")[0][0] < "170000":
        pytest.skip("transaction_timeout came with PostgreSQL 17")
    store, things = open_again(configured(url, transaction_timeout=300), keyset)
    with pytest.raises(errors.StoreUnreachableError, match="terminating connection due to transaction timeout"):
        things.calibrate(k=2, target_recall=0.5, max_candidates=100, progress=lambda done, total: time.sleep(0.5))
    check(things, BEFORE)
    WRITES["upsert"](things)
    check(things, AFTER["upsert"])
    store.close()


def test_sessions_ended_while_they_idle(url, keyset):
    store, things = open_again(configured(url, idle_session_timeout=100), keyset)
    for kind in ("flush", "upsert"):
        check(things, BEFORE)
        time.sleep(0.3)
        WRITES[kind](things)
        time.sleep(0.3)
    check(things, AFTER["upsert"])
    store.close()


# ------------------------------------------------------------------------------------------------- locks


def test_a_deadlock(url, keyset):
    """The server ends one of the two; where it is ours, nothing was written."""
    store, things = open_again(url, keyset)
    with psycopg.connect(dsn_of(url)) as other:
        other.execute("SET LOCAL deadlock_timeout = '1min'")
        other.execute("LOCK TABLE encvec.terms_1 IN SHARE MODE")
        call = Running(WRITES["upsert"], things)
        until(url, "SELECT pid FROM pg_stat_activity WHERE {ours} AND wait_event_type = 'Lock'")
        other.execute("SELECT FROM encvec.collections FOR UPDATE")
        error = call.ended()
    assert isinstance(error, errors.StoreLockedError)
    assert "nothing was written, try again" in str(error)
    check(things, BEFORE)
    WRITES["upsert"](things)
    check(things, AFTER["upsert"])
    store.close()


def test_two_writers_across_two_collections(url, keyset):
    """Each in the middle of one collection wants the other's; the server cannot see that, the lock timeout ends it."""
    store, things = open_again(url, keyset, lock_timeout=0.5)
    more = store.collection("more", dim=DIM, scheme="sap", fields=FIELDS, oversample=10_000)
    fill(more, range(10))
    meeting = threading.Barrier(2)

    def within(mine, theirs):
        def progress(done, total):
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(10)
            WRITES["upsert"](theirs)

        mine.calibrate(k=2, target_recall=0.5, max_candidates=100, progress=progress)

    calls = Running(within, things, more), Running(within, more, things)
    ended = [call.ended() for call in calls]
    assert any(isinstance(error, errors.StoreLockedError) for error in ended), ended
    assert all(error is None or isinstance(error, errors.StoreLockedError) for error in ended), ended
    for one in (things, more):
        WRITES["upsert"](one)
        WRITES["calibrate"](one)
        check(one, AFTER["upsert"])
    store.close()
