"""An export is of one moment, whatever is written and deleted meanwhile; and writers do not wait for it."""

import threading

import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest

import encvec_store as ev
from encvec_store import errors, low_level
from encvec_store.storage import EncryptedBatch
from encvec_store.transfer import unload
from encvec_store.transfer.to_files import to_file
from encvec_store.transfer.to_table import to_table
from tests.kits.records import content
from tests.kits.threads import guarded
from tests.kits.transfer import DIM

ROUND = 60
"""Records of a round. A writer writes one round after another, each in one write; so a moment has one round."""


@pytest.fixture(params=["memory", "faiss", "postgresql"])
def store(request, tmp_path):
    keyset = ev.Keyset.create("memory:")
    if request.param == "postgresql":
        place = request.getfixturevalue("pg_place")
        store = ev.connect(place.dsn, keyset=keyset, schema=place.schema)
    else:
        store = ev.connect("memory:" if request.param == "memory" else f"faiss:{tmp_path}/store", keyset=keyset)
    with store:
        yield store


def written(things, number):
    """Write a round: the same ids, other contents, and a metadata key that no other round has."""
    vectors = np.full((ROUND, DIM), 1.0 + number) + np.arange(ROUND)[:, None]
    things.upsert(list(map(str, range(ROUND))), vectors, [{f"n{number}": number}] * ROUND, [f"round {number}"] * ROUND)


@pytest.fixture
def busy(store, monkeypatch):
    """A collection that another thread writes all the time, and a list that counts its rounds."""
    monkeypatch.setattr(unload, "_CHUNK", 7)
    monkeypatch.setattr("encvec_store.engine.read._CHUNK", 11)
    things, failed, rounds, stop = (
        store.collection("docs", dim=DIM, metric="l2", scheme="sealed"),
        [],
        [],
        threading.Event(),
    )

    def write():
        while not stop.is_set():
            rounds.append(len(rounds))
            written(things, len(rounds))
            if len(rounds) % 3 == 0:
                things.delete(list(map(str, range(0, ROUND, 2))))
                things.maintain()

    written(things, 0)
    thread = guarded(failed, write)
    thread.start()
    yield things, rounds
    stop.set()
    thread.join()
    assert not failed, failed[0]


def test_files_hold_one_moment(busy, tmp_path):
    things, rounds = busy
    for turn in range(2):
        n = to_file(things, tmp_path / f"{turn}.parquet")
        table = pq.read_table(tmp_path / f"{turn}.parquet").to_pylist()
        assert len(table) == n in (ROUND, ROUND // 2)
        assert len({row["document"] for row in table}) == 1, "two rounds"
        number = int(table[0]["document"].split()[1])
        for row in table:  # columns come from a first pass over the metadata, and must fit the second
            assert row[f"n{number}"] == number
            assert row["vector"] == [1.0 + number + int(row["id"])] * DIM
        before = len(rounds)
        assert to_file(things, tmp_path / f"{turn}.npy") in (ROUND, ROUND // 2)
    assert len(rounds) >= before > 0


def test_a_table_holds_one_moment(busy, pg_dsn):
    things, _ = busy
    for _ in range(2):
        n = to_table(things, pg_dsn, "items", replace=True)
        with psycopg.connect(pg_dsn) as connection:
            ((rows, kinds),) = connection.execute("SELECT count(*), count(DISTINCT document) FROM items").fetchall()
        assert (rows, kinds) == (n, 1)


def test_nothing_of_what_is_written_meanwhile_is_exported(store):
    """Step by step: between any two chunks, records are updated, deleted and added, and all of them are encrypted."""
    things = store.collection("docs", dim=DIM, metric="l2", scheme="sealed")
    written(things, 0)
    with unload.moment(things) as now:
        assert now.count == ROUND
        chunks = now.chunks(vectors=True)
        got = next(chunks)
        written(things, 1)
        things.upsert(["new"], np.ones((1, DIM)))
        things.delete(["3", "59"])
        things.maintain(purge=True)
        got += [record for chunk in chunks for record in chunk]
        assert sorted(int(record.id) for record in got) == list(range(ROUND))
        assert {record.document for record in got} == {"round 0"}
        assert [record.vector[0] for record in got] == [1.0 + int(record.id) for record in got]
    assert things.count() == ROUND - 1
    assert {record.document for record in things.scroll()} == {"round 1", None}


def test_a_record_that_was_put_back_beside_its_update_stops_the_export(store, tmp_path):
    """Under two key versions, an id has two tokens, and a thief may add the older record again."""
    things = store.collection("docs", dim=DIM, metric="l2", scheme="sealed")
    written(things, 0)
    old = low_level.records(things)
    rows = old.rows()
    parts = old.vectors(rows)[1], old.payloads(rows)[1], old.audit(rows)
    store.keyset.rotate()
    written(things, 1)
    batch = EncryptedBatch(
        np.array([partition for _, partition, _, _ in parts[2]]),
        np.frombuffer(b"".join(token for _, _, token, _ in parts[2]), np.uint8).reshape(-1, 16),
        np.empty((len(rows), 0), np.float32),
        parts[0],
        parts[1],
    )
    old.put(batch, under=old.config())
    with pytest.raises(errors.AuthenticationError, match="is there twice"):
        to_file(things, tmp_path / "a.npy")
    assert not [path for path in tmp_path.iterdir() if path.name != "store"]
    assert content(old)


def test_settings_of_a_moment_must_not_be_older_than_those_seen(store, monkeypatch):
    things = store.collection("docs", dim=DIM, metric="l2", scheme="sealed")
    written(things, 0)
    session = low_level.session(things)
    before = session.records.config()
    store.keyset.rotate()
    store.collection("docs")  # seals the settings under the new key version
    assert session.records.config() != before
    monkeypatch.setattr(type(session.records), "config", lambda self: before)
    with pytest.raises(errors.AuthenticationError), unload.moment(things):
        pass
