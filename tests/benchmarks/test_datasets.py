"""The benchmark data: the shipped files are what their README says, and every format loads."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.datasets import DATA, DatasetError, Floats, load, synthetic


def nearest(vectors: Floats, queries: Floats) -> NDArray[np.intp]:
    return np.asarray((queries @ vectors.T).argmax(axis=1))


def test_banking77() -> None:
    data = load("banking77")
    assert data.vectors.shape == (10_003, 384)
    assert data.queries.shape == (3_080, 384)
    assert data.vectors.dtype == np.float32
    assert data.metric == "cosine"
    assert data.dim == 384
    assert np.allclose(np.linalg.norm(data.vectors, axis=1), 1, atol=1e-6)
    assert data.texts is not None
    assert data.query_texts is not None
    assert data.label_names is not None
    assert len(data.texts) == 10_003
    assert len(data.query_texts) == 3_080
    assert len(data.label_names) == 77
    assert data.texts[0] == "I am still waiting on my card?"
    assert data.query_texts[0] == "How do I locate my card?"
    assert data.labels is not None
    assert data.query_labels is not None
    assert data.label_names[data.labels[0]] == data.label_names[data.query_labels[0]] == "card_arrival"
    accuracy = np.mean(data.labels[nearest(data.vectors, data.queries)] == data.query_labels)
    assert accuracy == pytest.approx(0.920, abs=0.002)


def test_olivetti() -> None:
    data = load("olivetti")
    assert data.vectors.shape == (320, 512)
    assert data.queries.shape == (80, 512)
    assert data.labels is not None
    assert data.query_labels is not None
    assert data.texts is None
    assert (np.bincount(data.labels) == 8).all()
    assert (np.bincount(data.query_labels) == 2).all()
    assert np.mean(data.labels[nearest(data.vectors, data.queries)] == data.query_labels) >= 0.98


def test_the_readme_has_the_checksums() -> None:
    stated = dict(re.findall(r"`(\S+\.npz)`.*?`([0-9a-f]{64})`", (DATA / "README.md").read_text(encoding="utf-8")))
    assert {"banking77-minilm.npz", "olivetti-facenet.npz"} <= stated.keys()
    for name, digest in stated.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest


def test_limit_keeps_texts_and_labels_beside_their_vectors() -> None:
    full, some = load("banking77"), load("banking77", limit=500)
    assert some.texts is not None
    assert full.texts is not None
    assert some.labels is not None
    assert full.labels is not None
    assert some.vectors.shape == (500, 384)
    assert len(some.queries) == 3_080
    assert len(set(some.labels)) > 70  # spread over the intents, though the file is sorted by them
    rows = [full.texts.index(text) for text in some.texts]
    assert np.array_equal(full.vectors[rows], some.vectors)
    assert np.array_equal(full.labels[rows], some.labels)


@pytest.mark.parametrize("d", [384, 64])
def test_synthetic_is_like_text(d: int) -> None:
    data = load(f"synthetic:10003x{d}")
    assert data.vectors.shape == (10_003, d)
    assert data.queries.shape == (1_000, d)
    assert data.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(data.vectors, axis=1), 1, atol=1e-5)
    cosines = np.sort(data.queries @ data.vectors.T, axis=1)[:, ::-1]
    assert np.median(cosines[:, 0]) == pytest.approx(0.92, abs=0.03)  # Banking77's own: .92, .81
    assert np.median(cosines[:, 9]) == pytest.approx(0.81, abs=0.04)
    assert cosines[:, 0].max() < 1 - 1e-6  # no query is stored


def test_synthetic_depends_on_the_seed_only() -> None:
    first = synthetic(500, 32, queries=20, seed=1)
    assert np.array_equal(first.vectors, synthetic(500, 32, queries=20, seed=1).vectors)
    assert not np.array_equal(first.vectors, synthetic(500, 32, queries=20, seed=2).vectors)
    assert load("synthetic:900x32:3", limit=200).vectors.shape == (200, 32)


def test_npy(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    np.save(tmp_path / "mine.npy", array)
    data = load(tmp_path / "mine.npy", metric="ip")
    assert data.metric == "ip"
    assert len(data.vectors) == 45
    assert len(data.queries) == 5
    together = np.concatenate([data.vectors, data.queries])
    assert np.array_equal(np.sort(together, axis=0), np.sort(array, axis=0))


def test_fvecs(tmp_path: Path) -> None:
    array = np.random.default_rng(0).standard_normal((30, 8)).astype("<f4")
    for name, rows in (("tiny_base", array[:20]), ("tiny_query", array[20:])):
        heads = np.full((len(rows), 1), 8, "<i4")
        np.hstack([heads, rows.view("<i4")]).tofile(tmp_path / f"{name}.fvecs")
    data = load(tmp_path / "tiny_base.fvecs")
    assert data.metric == "l2"
    assert np.array_equal(data.vectors, array[:20])
    assert np.array_equal(data.queries, array[20:])
    (tmp_path / "bad.fvecs").write_bytes(b"\x08\0\0\0\0\0\0\0")
    with pytest.raises(DatasetError, match="not an fvecs file"):
        load(tmp_path / "bad.fvecs")


def test_hdf5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    array = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    with h5py.File(tmp_path / "tiny.hdf5", "w") as file:
        file["train"], file["test"] = array[:20], array[20:]
        file.attrs["distance"] = "euclidean"
    data = load(tmp_path / "tiny.hdf5", limit=10)
    assert data.metric == "l2"
    assert np.array_equal(data.vectors, array[:10])
    assert np.array_equal(data.queries, array[20:])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("banking", "unknown data set"),
        ("missing.npy", "no such file"),
        ("synthetic:10", "synthetic:NxD"),
        ("synthetic:10xa", "synthetic:NxD"),
        ("synthetic:0x8", "n >= 1"),
    ],
)
def test_bad_names(name: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        load(name)


def test_bad_limit() -> None:
    with pytest.raises(DatasetError, match="limit"):
        load("olivetti", limit=0)
