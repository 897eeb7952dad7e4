"""The oracle keeps to the protocol where the contract of the stores does not lead."""

import numpy as np
import pytest

from encvec_store.storage import CollectionSpec, EncryptedBatch
from encvec_store.storage.memory import MemoryBackend

CONFIG = b"settings"


@pytest.fixture(params=[0, 4])
def collection(request):
    n, dim = 3, request.param
    found = MemoryBackend("memory:").create(CollectionSpec("", "things", dim, 8), CONFIG)
    tokens = np.arange(16 * n, dtype=np.uint8).reshape(n, 16)
    index_vectors, vectors = np.ones((n, dim), np.float32), np.zeros((n, 8), np.uint8)
    found.put(EncryptedBatch(np.ones(3, np.int64), tokens, index_vectors, vectors, [b"a", b"b", b"c"]), under=CONFIG)
    return found


def test_a_row_named_twice_goes_once(collection):
    first, second, third = collection.rows()
    assert collection.remove(np.array([first, third, first])) == 2
    assert collection.rows().tolist() == [second]


def test_index_vectors_of_any_width(collection):
    rows, index_vectors = collection.index_vectors(collection.rows())
    assert index_vectors.shape == (len(rows), collection.spec.index_dim) == (3, collection.spec.index_dim)
