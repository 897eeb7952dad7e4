"""Data sets by name: small stand-ins laid out as the real ones, judgements read right, downloads checked."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from benchmarks import corpora
from benchmarks.corpora import fetch, find
from benchmarks.datasets import DatasetError
from benchmarks.embed.sources import read_cranfield
from encvec_store.lab.bench.truth import ndcg


def rows(n, d=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def test_cranfield_files_and_judgements(tmp_path):
    (tmp_path / "cran.all.1400").write_text(
        ".I 1\n.T\nwing flutter .\n.A\nsmith\n.W\nwing flutter .\nwe shake a wing .\n.I 2\n.T\nheat\n.W\nhot plates\n"
    )
    (tmp_path / "cran.qry").write_text(".I 001\n.W\nwhat shakes a\nwing .\n.I 004\n.W\nwhat is hot .\n")
    (tmp_path / "cranqrel").write_text("1 1 2 \n1 2 -1\n2 2 4 \n")
    found = read_cranfield(tmp_path)
    assert found.documents == ["wing flutter . we shake a wing .", "heat hot plates"]
    assert found.queries == ["what shakes a wing .", "what is hot ."]
    assert found.qrels.tolist() == [[0, 0, 2], [0, 1, -1], [1, 1, 4]], "questions by their place, not by their name"
    np.savez(tmp_path / "made.npz", vectors=rows(2), queries=rows(2), qrels=found.qrels)
    data = find(f"cranfield:{tmp_path / 'made.npz'}")
    assert data.judged.best(0, 5).tolist() == [3.0], "code 2 counts 3, and what is no code counts nothing"
    assert data.judged.gains(1, np.array([0, 1])).tolist() == [0.0, 1.0]
    assert ndcg(data.judged, [np.array([0]), np.array([1])], 10) == 1


def test_lfw_enrols_one_photograph_a_person(tmp_path):
    names = np.array(["ann", "bob", "ann", "ann", "cid", "bob"])
    np.savez(tmp_path / "lfw.npz", emb=rows(6).astype(np.float16), name=names)
    data = find(f"lfw:{tmp_path / 'lfw.npz'}")
    assert len(data.vectors) == 3
    assert len(data.queries) == 2, "cid has no second photograph"
    unit = rows(6).astype(np.float16).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(data.vectors.whole(), unit[[0, 1, 4]])
    np.testing.assert_allclose(data.queries, unit[[2, 5]])
    assert data.judged.gains(1, np.arange(3)).tolist() == [0, 1, 0]
    with pytest.raises(DatasetError, match="never in this repository"):
        find(f"lfw:{tmp_path / 'none.npz'}")


def test_fashion_mnist(tmp_path):
    for name, n in (("train", 5), ("t10k", 3)):
        pixels = np.arange(n * 6, dtype=np.uint8)
        head = struct.pack(">4i", 2051, n, 2, 3)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes()))
    data = find(f"fashion-mnist:{tmp_path}")
    assert data.metric == "l2"
    np.testing.assert_array_equal(data.vectors.whole(), np.arange(30).reshape(5, 6))
    assert data.queries.shape == (3, 6)


def test_glove_from_a_file(tmp_path):
    np.save(tmp_path / "some.npy", rows(50).astype(np.float16))
    data = find(f"glove-50:{tmp_path / 'some.npy'}", limit=20)
    assert (len(data.vectors), len(data.queries), data.metric) == (20, 5, "cosine")


def test_shipped_sets_carry_labels():
    data = find("olivetti")
    own = np.array([(data.vectors.whole() @ query).argmax() for query in data.queries])
    right = [data.judged.gains(i, own[i : i + 1])[0] for i in range(len(own))]
    assert np.mean(right) > 0.98
    assert find("olivetti", limit=50).vectors.n == 50


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCVEC_DATA", str(tmp_path))
    monkeypatch.delenv("ENCVEC_DOWNLOAD", raising=False)
    monkeypatch.setattr(corpora.urllib.request, "urlopen", lambda url: pytest.fail("it went out"))
    with pytest.raises(DatasetError, match="Set ENCVEC_DOWNLOAD=1 to download"):
        find("glove-100-angular")
    with pytest.raises(DatasetError, match="unknown data set"):
        find("glove-1000")


@pytest.mark.parametrize("wrong", ["digest", "size"])
def test_a_download_is_whole_and_right_or_not_there(tmp_path, wrong):
    (tmp_path / "there").write_bytes(b"content")
    url, digest = (tmp_path / "there").as_uri(), hashlib.sha256(b"content").hexdigest()
    fetch(url, tmp_path / "got.hdf5", 7, digest)
    assert (tmp_path / "got.hdf5").read_bytes() == b"content"
    size, digest = (7, "0" * 64) if wrong == "digest" else (3, digest)
    with pytest.raises(DatasetError):
        fetch(url, tmp_path / "bad.hdf5", size, digest)
    assert {path.name for path in tmp_path.iterdir()} == {"there", "got.hdf5"}
