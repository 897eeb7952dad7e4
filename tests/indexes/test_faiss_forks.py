"""A forked child searches and builds FAISS indexes: OpenMP's threads stayed in the parent, locks are free."""

import threading
from contextlib import closing

import faiss
import numpy as np
import pytest

import encvec_store as ev
from encvec_store.indexes.faiss import FaissIndex, FaissOptions
from encvec_store.indexes.faiss.locks import FileLock, ReadWriteLock
from encvec_store.storage.sqlite import SqliteStore
from tests.kits.faiss_store import Authenticator
from tests.kits.forking import in_child
from tests.kits.records import CONFIG, SPEC, batch
from tests.kits.threads import held

N = 600
QUERIES = np.random.default_rng(1).standard_normal((64, SPEC.index_dim)).astype(np.float32)


@pytest.fixture(autouse=True)
def several_threads():
    """Have OpenMP's threads run in the parent, whatever the machine has."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(4)
    flat = faiss.IndexFlatIP(SPEC.index_dim)
    flat.add(np.repeat(QUERIES, 100, axis=0))
    flat.search(np.repeat(QUERIES, 10, axis=0), 5)
    yield
    faiss.omp_set_num_threads(before)


@pytest.fixture
def records(tmp_path):
    with closing(SqliteStore(tmp_path)) as store:
        records = store.create(SPEC, CONFIG)
        records.put(batch(range(N)), under=CONFIG)
        yield records


def made(records, folder=None, **options):
    index = FaissIndex(records, folder, FaissOptions(**options))
    index.authenticate(Authenticator())
    return index


def asked(index):
    return [rows.tolist() for rows in index.candidates({1: QUERIES}, 20)]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_a_loaded_index_goes_on_in_the_child(records, kind):
    index = made(records, index=kind)
    expected = asked(index)

    def child():
        found = asked(index)
        records.put(batch(range(N, 2 * N), seed=1), under=CONFIG)
        return found, sum(map(len, asked(index))), index.stats()["rows"]

    assert in_child(child) == (expected, 20 * len(QUERIES), 2 * N)
    assert sum(map(len, asked(index))) == 20 * len(QUERIES)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_a_child_builds_an_index(records, kind):
    assert in_child(lambda: sum(map(len, asked(made(records, index=kind))))) == 20 * len(QUERIES)


def test_all_threads_of_a_child_work_alone(records):
    """OpenMP's number of threads is a setting of each thread."""
    index = made(records)
    expected = asked(index)

    def child():
        found = []
        thread = threading.Thread(target=lambda: found.append(asked(index)))
        thread.start()
        thread.join()
        return found

    assert in_child(child) == [expected]


@pytest.mark.parametrize("how", ["shared", "exclusive"])
def test_a_lock_held_in_the_parent_does_not_hang_the_child(records, how):
    """A reader leaves the index as it is. A writer may have left it half changed, so that it is made again."""
    index = made(records)
    expected = asked(index)
    with held(getattr(index._lock, how)()):
        kept, found = in_child(lambda: (index._loaded, asked(index)))
    assert found == expected
    assert kept is (how == "shared")


def test_the_lock_itself():
    lock = ReadWriteLock()
    with lock.exclusive() as share:
        share()
        with lock.shared():
            pass
    with lock.exclusive():
        assert lock.renew()
    assert not lock.renew()


def test_a_child_does_not_hold_its_parents_lock_file(tmp_path):
    mine, other = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert mine.acquire()
    assert in_child(lambda: (mine.acquire(), other.acquire())) == (False, False)
    assert not other.acquire(), "the child's end has not released it"
    mine.release()
    assert other.acquire()


def test_both_save_beside_each_other(records, tmp_path):
    index = made(records, tmp_path / "index" / "1")
    asked(index)
    index.flush()

    def child():
        records.put(batch(range(N, N + 10)), under=CONFIG)
        asked(index)
        index.flush()
        return index.check()

    assert in_child(child) == []
    records.put(batch(range(N + 10, N + 20)), under=CONFIG)
    asked(index)
    index.flush()
    assert index.check() == []
    assert made(records, tmp_path / "index" / "1").stats()["rows"] == N + 20


@pytest.mark.parametrize("scheme", ["sealed", {"name": "sap", "beta": 1.0}], ids=["sealed", "sap"])
def test_a_store_opened_before_the_fork(tmp_path, scheme):
    """As gunicorn does with `preload_app`: the application is loaded, then workers are forked."""
    vectors = np.random.default_rng(2).standard_normal((400, 16)).astype(np.float32)
    with ev.connect(f"faiss:{tmp_path}", keyset=ev.Keyset.create("memory:")) as store:
        faces = store.collection("faces", dim=16, scheme=scheme, fields={"n": "blind"})
        faces.upsert([str(i) for i in range(300)], vectors[:300], [{"n": i % 3} for i in range(300)])
        expected = [[hit.id for hit in hits] for hits in faces.search(vectors[:50], k=5)]

        def worker():
            found = [[hit.id for hit in hits] for hits in faces.search(vectors[:50], k=5)]
            faces.upsert([str(i) for i in range(300, 400)], vectors[300:])
            another = ev.connect(f"faiss:{tmp_path}", keyset=store.keyset).collection("faces")
            again = another.search(vectors[399], k=1)[0].id
            return found, faces.count(), again, len(faces.search(vectors[0], k=200, where={"n": 0})), faces.verify().ok

        assert in_child(worker) == (expected, 400, "399", 100, True)
        assert faces.search(vectors[399], k=1)[0].id == "399"
        assert faces.verify().ok


def test_nonces_differ_in_the_child(tmp_path):
    """Two processes that share a state of randomness would seal two records under one nonce."""
    with ev.connect(f"faiss:{tmp_path}", keyset=ev.Keyset.create("memory:")) as store:
        faces = store.collection("faces", dim=16, scheme="sealed")
        keyring, config = faces._session.keyring, faces._session.config
        vectors = np.ones((1, 16), np.float32)

        def sealed():
            made = keyring.seal(config, ["a"], vectors, [b"payload"], [{}])
            return made.vectors.tobytes(), made.payloads[0]

        sealed()
        seen = {part for _ in range(2) for part in (*sealed(), *in_child(sealed))}
        assert len(seen) == 8
