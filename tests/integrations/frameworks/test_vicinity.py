"""vicinity: beside its own backend that compares everything, and over stores that are opened again."""

import numpy as np
import pytest
from vicinity import Vicinity
from vicinity.datatypes import Backend

import encvec_store as ev
from encvec_store.integrations.vicinity import EncvecBackend, EncvecVicinity
from tests.kits.adapters import KINDS, fresh, place, stores  # noqa: F401

N, DIM = 200, 8
RNG = np.random.default_rng(5)
VECTORS, QUERIES, MORE = RNG.random((N, DIM)), RNG.random((5, DIM)), RNG.random((3, DIM))
ITEMS = [f"item{at}" if at % 2 else {"name": f"item{at}", "id": at, "parts": [at, None, 0.5]} for at in range(N)]
NEW = [7, "item7", {"name": "new"}]


def same(ours, theirs):
    """Check that two answers have the same items, at the same distances. The order of a threshold's is free."""
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = (sorted(each, key=lambda pair: pair[1]) for each in (mine, other))
        assert [item for item, _ in mine] == [item for item, _ in other]
        assert np.allclose([distance for _, distance in mine], [distance for _, distance in other], atol=1e-6)


@pytest.mark.peers
@pytest.mark.parametrize(("kind", "metric"), [(kind, "cosine") for kind in KINDS] + [("memory", "l2")])
def test_it_answers_as_vicinitys_own(kind, metric, fresh):  # noqa: F811
    """Both ways to use it: items sealed beside the vectors, and a backend for a Vicinity that keeps items itself."""
    theirs = Vicinity.from_vectors_and_items(VECTORS, ITEMS, Backend.BASIC, metric=metric)
    collection, other = fresh(kind, DIM, metric=metric), fresh(kind, DIM, metric=metric)
    ours = EncvecVicinity.from_vectors_and_items(VECTORS, ITEMS, collection=collection)
    plain = Vicinity(ITEMS, EncvecBackend.from_vectors(VECTORS, collection=other))
    everyone = (theirs, ours, plain)
    for step in range(4):
        if step == 1:
            for each in everyone:
                each.delete([ITEMS[0], ITEMS[7], ITEMS[N - 1]])
        if step == 2:
            for each in everyone:
                each.insert(NEW, MORE)
        if step == 3:  # what was written is found by whoever opens the collection
            ours, plain = EncvecVicinity(collection), Vicinity(theirs.items, EncvecBackend(other))
        for each in (ours, plain):
            assert each.items == theirs.items
            assert (len(each), each.dim, each.metric) == (len(theirs), DIM, theirs.metric)
            same(each.query(QUERIES, k=9), theirs.query(QUERIES, k=9))
            same(each.query(VECTORS[3], k=1), [[(ITEMS[3], 0.0)]])
            same(each.query_threshold(QUERIES, 0.15, max_k=N), theirs.query_threshold(QUERIES, 0.15))
            assert len(each.query_threshold(QUERIES[0], 2.0, max_k=4)[0]) == 4
            assert len(each.query(QUERIES[0], k=2 * N)[0]) == len(each), "no more than there are"
    assert ours.evaluate(np.delete(np.vstack([VECTORS, MORE]), [0, 7, N - 1], axis=0), QUERIES)[1] == 1.0


def test_saved_and_opened(fresh, stores, tmp_path):  # noqa: F811
    collection, other = fresh("faiss", DIM), fresh("faiss", DIM)
    made = EncvecVicinity.from_vectors_and_items(VECTORS[:20], ITEMS[:20], collection=collection)
    made.metadata = {"model": "bge"}
    made.save(tmp_path / "saved")
    with pytest.raises(FileExistsError):
        made.save(tmp_path / "saved")
    made.save(tmp_path / "saved", overwrite=True)
    written = b"".join(path.read_bytes() for path in (tmp_path / "saved").iterdir())
    assert b"item" not in written, "items are sealed"
    opened = EncvecVicinity.load(tmp_path / "saved", stores("faiss"))
    assert (opened.items, opened.metadata) == (ITEMS[:20], {"model": "bge"})
    same(opened.query(QUERIES, k=3), made.query(QUERIES, k=3))
    at = EncvecBackend.load(tmp_path / "saved", collection)
    assert np.allclose(at.get_by_index([3, 1]), VECTORS[[3, 1]])
    assert np.allclose(opened.get_vector_by_index(2), VECTORS[[2]])
    with pytest.raises(ev.errors.InputError, match=f"{collection.name}.* was saved here, got .*{other.name}"):
        EncvecBackend.load(tmp_path / "saved", other)
    # vicinity's own load knows no backend but its own, and says so
    Vicinity(ITEMS[:20], at).save(tmp_path / "plain")
    with pytest.raises(ValueError, match="'encvec' is not a valid Backend"):
        Vicinity.load(tmp_path / "plain")


def test_records_of_others_and_errors(fresh):  # noqa: F811
    """Nothing that is refused is written, and records that were there already are named by their ids."""
    collection = fresh("memory", DIM)
    metadata = [{"number": "1st"}, None]
    collection.upsert(["b", "a"], VECTORS[:2], metadata)
    made = EncvecVicinity(collection)
    assert made.items == ["a", "b"]
    made.insert(["c"], VECTORS[2:3])
    assert EncvecVicinity(collection).items == ["c", "a", "b"]
    made.delete(["a"])
    assert collection.get(["a"]) == []
    assert {item for item, _ in made.query(QUERIES[0], k=5)[0]} == {"b", "c"}
    for call, message in (
        (lambda: made.insert(["d"], VECTORS[:2]), "vectors must be 1, one for each item, got 2"),
        (lambda: made.insert(["d"], VECTORS[:1, :3]), "8"),
        (lambda: made.insert([object()], VECTORS[:1]), "object"),
        (lambda: made.insert(["d"], np.zeros((1, DIM))), "zero"),
        (lambda: made.delete(["a"]), "not in the vector space"),
        (lambda: made.backend.delete([0, 2]), r"positions must be from 0 to 1, got \[2\]"),
        (lambda: made.get_vector_by_index([-1]), r"positions must be from 0 to 1, got \[-1\]"),
        (lambda: made.query(QUERIES, k=0), "k must be"),
        (lambda: made.push_to_hub("a/b"), "is not published"),
        (lambda: EncvecVicinity.from_vectors_and_items(VECTORS, ITEMS, collection=collection), "empty, it has 2"),
        (lambda: EncvecBackend.from_vectors(VECTORS, collection=collection), "empty, it has 2"),
        (lambda: EncvecBackend.from_vectors(VECTORS), "must be a Collection, got None"),
        (lambda: EncvecBackend("words"), "must be a Collection, got str"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
        assert made.items == ["b", "c"]
        assert len(made.backend) == collection.count() == 2
    collection.upsert(["other"], QUERIES[:1])
    assert "other" not in {item for item, _ in made.query(QUERIES[0], k=3)[0]}, "written since it was made"
