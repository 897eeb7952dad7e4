"""Load the data sets of the benchmarks and the demo into memory.

Usage: ``load("banking77")``, ``load("olivetti")``, ``load("synthetic:100000x384")``, ``load("a/file.hdf5")``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encvec_store.errors import InputError
from encvec_store.lab.bench.files import MAPPED, open_data
from encvec_store.lab.bench.source import HELD_OUT
from encvec_store.lab.bench.synthetic import INTENT, power_law, tree

Floats = NDArray[np.float32]
Metric = Literal["cosine", "l2", "ip"]

DATA = Path(__file__).parent / "data"
SHIPPED = {
    "banking77": "banking77-minilm.npz",
    "clinc150": "clinc150-minilm.npz",
    "olivetti": "olivetti-facenet.npz",
}


class DatasetError(ValueError):
    """The name is unknown, or the file is missing or wrong."""


@dataclass(frozen=True)
class Dataset:
    """Vectors to store, and separate queries (in Banking77, 7 sentences are in both).

    Shipped and synthetic vectors have unit length. ``labels`` (an intent, a person) index ``label_names``
    if there are names.
    """

    name: str
    vectors: Floats  # (n, d)
    queries: Floats  # (q, d)
    metric: Metric
    texts: list[str] | None = None  # n
    query_texts: list[str] | None = None  # q
    labels: NDArray[np.int64] | None = None  # (n,)
    query_labels: NDArray[np.int64] | None = None  # (q,)
    label_names: list[str] | None = None

    @property
    def dim(self) -> int:
        """The number of dimensions, d."""
        return int(self.vectors.shape[1])

    def take(self, limit: int | None) -> Dataset:
        """Return at most ``limit`` vectors, spread evenly over the set and always the same ones, and all queries."""
        n = len(self.vectors)
        if limit is None or limit >= n:
            return self
        rows = np.sort(np.random.default_rng(0).permutation(n)[:limit])
        return replace(
            self,
            vectors=self.vectors[rows],
            texts=None if self.texts is None else [self.texts[i] for i in rows],
            labels=None if self.labels is None else self.labels[rows],
        )


def load(name_or_path: str | Path, *, limit: int | None = None, metric: Metric | None = None) -> Dataset:
    """Load the data set of that name, or from that file.

    - ``banking77``: 10,003 customer questions (d = 384, MiniLM, texts, 77 intents); 3,080 others as queries.
    - ``olivetti``: 40 people with 8 photographs each (d = 512, FaceNet, labels); 2 others of each as queries.
    - ``clinc150``: 18,000 and 4,500 requests (d = 384, 150 intents), after ``make_data`` has made the file.
    - ``synthetic:NxD`` or ``synthetic:NxD:SEED``: N vectors like sentence embeddings, see :func:`synthetic`.
    - ``*.hdf5``: a file of ann-benchmarks (``train`` and ``test``; metric from its ``distance``).
    - ``*.npy``: an array (n, d); queries are held out of it at random.
    - ``*.fvecs``, ``*.bvecs``: TEXMEX vectors; queries from ``X_query.fvecs`` next to ``X_base.fvecs``, else held out.
    - ``*.npz``: a file as ``make_data`` writes it.

    ``limit`` limits the number of vectors, never that of queries. ``metric`` overrides the data set's own, which
    is cosine, and l2 for ``.fvecs`` and ``.bvecs``. Raises :class:`DatasetError`, a ``ValueError``.
    """
    if limit is not None and limit < 1:
        raise DatasetError(f"limit must be an integer >= 1, got {limit}")
    name = str(name_or_path)
    path = Path(name_or_path)
    if name.startswith("synthetic"):
        found = _synthetic_by_name(name, limit)
    elif name in SHIPPED:
        found = _load_npz(name, DATA / SHIPPED[name])
    elif path.suffix not in (*MAPPED, ".npz"):
        known = ", ".join([*SHIPPED, "synthetic:NxD"])
        raise DatasetError(
            f"data set must be {known} or a file ({', '.join((*MAPPED, '.npz'))}), got the unknown data set {name!r}"
        )
    elif not path.is_file():
        raise DatasetError(f"no such file: {path}")
    elif path.suffix == ".npz":
        found = _load_npz(path.stem, path)
    else:
        found = _from_file(path, limit)
    found = found.take(limit)
    return found if metric is None else replace(found, metric=metric)


def synthetic(n: int, d: int, *, queries: int = HELD_OUT, seed: int = 0) -> Dataset:
    """Draw ``n`` unit vectors, and ``queries`` more from the same distribution, like sentence embeddings.

    For d = 384 the centres of the intents and the covariance within an intent are those of Banking77; a large
    n gets more centres from the same Gaussian. For any other d both covariances have power-law spectra fitted
    to Banking77, and a random rotation. ``labels`` are the intents, which are easier to tell than real ones.
    The same arguments give the same vectors, up to the rounding of the linear algebra library. Needs about
    20 * d * (n + queries) bytes of memory.
    """
    if n < 1 or d < 2 or queries < 1:
        raise DatasetError(f"synthetic data must have n >= 1, d >= 2 and queries >= 1, got {n}, {d} and {queries}")
    rng = np.random.default_rng(np.random.SeedSequence([seed, n, d, queries]))
    total = n + queries
    intents = max(77, total // INTENT)
    centres, root = _fitted(intents, rng) if d == 384 else _power_law(intents, d, rng)
    points, labels = tree(total, centres, root, rng)
    return Dataset(
        f"synthetic:{n}x{d}:{seed}",
        points[:n],
        points[n:],
        "cosine",
        labels=labels[:n],
        query_labels=labels[n:],
    )


def _synthetic_by_name(name: str, limit: int | None) -> Dataset:
    try:
        kind, size, *rest = name.split(":")
        n, d = (int(part) for part in size.lower().split("x"))
        (seed,) = [int(part) for part in rest] or [0]
    except ValueError:
        raise DatasetError(f"synthetic data must be named synthetic:NxD or synthetic:NxD:SEED, got {name!r}") from None
    if kind not in ("synthetic", "synthetic-clustered") or seed < 0:
        raise DatasetError(f"synthetic data must be named synthetic:NxD or synthetic:NxD:SEED, got {name!r}")
    return synthetic(n if limit is None else min(n, limit), d, seed=seed)


def _fitted(intents: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return centres ``(intents, 384)`` and a root ``(384, 384)`` of the covariance within, from Banking77."""
    real = load("banking77")
    assert real.labels is not None
    means = np.stack([real.vectors[real.labels == i].mean(0) for i in range(int(real.labels.max()) + 1)])
    within = np.cov((real.vectors - means[real.labels]).T)
    extra = rng.standard_normal((intents - len(means), means.shape[1])) @ _root(np.cov(means.T)) + means.mean(0)
    return np.concatenate([means, extra]).astype(np.float32), _root(within).astype(np.float32)


def _power_law(intents: int, d: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return the same two for any d."""
    mean, between, within = power_law(d, rng)
    return (rng.standard_normal((intents, d), np.float32) @ between + mean).astype(np.float32), within


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    values, axes = np.linalg.eigh(covariance)
    root: NDArray[np.float64] = (np.sqrt(np.maximum(values, 0)) * axes) @ axes.T
    return root


def _load_npz(name: str, path: Path) -> Dataset:
    if not path.is_file():
        raise DatasetError(f"{path.name} is missing; benchmarks/data/README.md says how to make it")
    with np.load(path, allow_pickle=False) as stored:
        arrays: dict[str, NDArray[Any]] = dict(stored)
    if not {"vectors", "labels"} <= arrays.keys():
        raise DatasetError(f"{path}: must have the arrays vectors and labels, got {', '.join(arrays)}")
    vectors = _matrix(arrays["vectors"], path)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # undo the rounding to float16
    labels = arrays["labels"].astype(np.int64)
    # Faces have no split: the last two of each person's ten photographs are the queries.
    test = arrays["test"] if "test" in arrays else np.arange(len(vectors)) % 10 >= 8
    texts = _lines(arrays["texts"]) if "texts" in arrays else None
    return Dataset(
        name,
        vectors[~test],
        vectors[test],
        "cosine",
        texts=None if texts is None else [texts[i] for i in np.flatnonzero(~test)],
        query_texts=None if texts is None else [texts[i] for i in np.flatnonzero(test)],
        labels=labels[~test],
        query_labels=labels[test],
        label_names=_lines(arrays["label_names"]) if "label_names" in arrays else None,
    )


def _lines(joined: NDArray[np.uint8]) -> list[str]:
    return joined.tobytes().decode("utf-8").split("\n")


def _from_file(path: Path, limit: int | None) -> Dataset:
    try:
        found = open_data(path)
    except InputError as error:
        raise DatasetError(str(error)) from None
    vectors = found.vectors
    if path.suffix in (".hdf5", ".h5") and limit is not None:
        # The order in these files is arbitrary, so with a limit it is enough to read the head.
        vectors = vectors.head(limit)
    metrics: dict[str, Metric] = {"cosine": "cosine", "l2": "l2", "ip": "ip"}
    return Dataset(found.name, vectors.whole(), found.queries, metrics[found.metric])


def _matrix(array: NDArray[Any], path: Path) -> Floats:
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DatasetError(f"{path}: must hold numbers of shape (n, d), got {array.dtype} {array.shape}")
    return np.array(array, np.float32, order="C")
