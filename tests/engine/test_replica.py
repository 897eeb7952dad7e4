"""A declared replica: older settings are lag there, waited out for a while; elsewhere they are refused."""

import sqlite3
import threading
from contextlib import closing

import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.engine import session
from tests.kits import oracle


@pytest.fixture
def put(tmp_path):
    """Return what puts sealed settings into the file, or reads them."""

    def put(sealed=None):
        with closing(sqlite3.connect(tmp_path / "records.sqlite3")) as connection, connection:
            if sealed is not None:
                connection.execute("UPDATE collections SET config = ?", [sealed])
            return connection.execute("SELECT config FROM collections").fetchone()[0]

    return put


@pytest.fixture
def lagging(tmp_path, put):
    """Return what opens the collection, which then lags: its settings are those of before the last change."""
    stores = []

    def lagging(replica):
        keyset = ev.Keyset.create("memory:")
        with ev.connect(f"faiss:{tmp_path}", keyset=keyset) as store:
            old = (store.collection("things", dim=4, metric="l2", scheme="sap"), put())[1]
            store.collection("things").upsert(["a"], oracle.vectors(1, 4))  # sets the bound of lengths
        stores.append(ev.connect(f"faiss:{tmp_path}", keyset=keyset, replica=replica))
        things = stores[-1].collection("things")
        newer = put()
        put(old)
        return things, newer

    yield lagging
    for store in stores:
        store.close()


def test_a_replica_is_waited_for(lagging, put, monkeypatch):
    monkeypatch.setattr(session, "_LAG", 30.0)
    things, newer = lagging(replica=True)
    catching_up = threading.Timer(0.3, put, [newer])
    catching_up.start()
    things.upsert(["b"], oracle.vectors(1, 4) / 2)
    catching_up.join()
    assert [record.id for record in things.get(["a", "b"])] == ["a", "b"]


def test_a_replica_that_stays_behind(lagging, put, monkeypatch):
    monkeypatch.setattr(session, "_LAG", 0.3)
    things, newer = lagging(replica=True)
    with pytest.raises(errors.ReplicaLagError, match="its settings have revision 1, and revision 2 was seen"):
        things.upsert(["b"], oracle.vectors(1, 4) / 2)
    put(newer)
    things.upsert(["b"], oracle.vectors(1, 4) / 2)
    assert things.count() == 2


def test_what_is_no_replica_was_put_back(lagging):
    things, _ = lagging(replica=False)
    with pytest.raises(errors.AuthenticationError, match="of revision 1, and revision 2 was seen: older ones were put"):
        things.upsert(["b"], oracle.vectors(1, 4) / 2)
