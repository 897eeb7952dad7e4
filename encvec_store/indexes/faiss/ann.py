"""Calls of FAISS on the CPU: build, extend, search, write and read an index.

Every index ranks by inner product. FAISS has no type hints, so this module adds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from ...data.arrays import Matrix, Rows
from ...runtime import forks
from ...storage.sqlite.files import Read
from .device import GpuCopy, gpu_copy, suits, uses_gpu
from .openmp import omp_threads
from .options import FaissOptions

__all__ = ["VERSION", "AnnIndex", "empty_ivf", "lists_for", "training_size"]

faiss: Any = _faiss  # its stubs do not know what its Python wrappers add
VERSION: str = faiss.__version__
_SAMPLE = 20_000
_PER_LIST = 50
# Costs, measured at d=384, in units of one distance that a scan computes: to read one bit of a selector, and to keep
# one more node in the list of an HNSW search (about thirty distances in random places).
_BIT = 1 / 20
_NODE = 50
_EF_MOST = 2_000
_PAIR = 2
"""Coordinates that product quantisation encodes in one byte."""
_LANES = 16
"""Bytes that FAISS compares at once. A comparison of 250 bytes takes nine times as long as one of 256 bytes."""


def empty_ivf(dim: int, lists: int, storage: str, measure: int) -> Any:
    """Return an empty IVF index with `lists` lists. With `storage="pq"`, an odd `dim` takes a byte per coordinate."""
    # "np" turns off polysemous training, which takes seconds per byte and helps only a filter that we do not use
    pairs = dim // _PAIR if dim % _PAIR == 0 else dim
    code = {"sq8": "SQ8", "pq": f"PQ{pairs}np"}.get(storage, "Flat")
    index = faiss.index_factory(dim, f"IVF{lists},{code}", measure)
    for clustering in (index.cp, index.pq.cp) if storage == "pq" else (index.cp,):
        clustering.min_points_per_centroid = 1  # otherwise FAISS prints a warning
        clustering.seed = 1
    return index


def training_size(kind: str, records: int) -> int:
    """Return the size of the sample that `AnnIndex.build` needs."""
    return min(records, max(_SAMPLE, _PER_LIST * lists_for(records)) if kind == "ivf" else _SAMPLE)


class AnnIndex:
    """A FAISS index whose labels are ordinals: 0, 1, 2... in the order in which vectors were added.

    Several threads may search at once. While vectors are added, nothing else may run.
    """

    def __init__(self, raw: Any, kind: str, storage: str, m: int) -> None:
        self.kind, self.storage, self.m = kind, storage, m
        self._raw = raw
        self._flat = faiss.downcast_index(raw.storage) if kind == "hnsw" else raw
        self._parameters: Any = None
        self._gpu: GpuCopy | None = None

    @staticmethod
    def width(dim: int, storage: str) -> int:
        """Return how many coordinates are kept of `dim`: zeros fill up whole lanes, or pairs."""
        filled = {"sq8": _LANES, "pq": _PAIR}.get(storage, 1)
        return -(-dim // filled) * filled

    @classmethod
    def build(cls, kind: str, dim: int, options: FaissOptions, sample: Matrix, records: int) -> AnnIndex:
        """Return an empty index, trained on a sample, for about `records` records."""
        ip = faiss.METRIC_INNER_PRODUCT
        storage = options.storage_for(kind)
        dim = cls.width(dim, storage)
        sample = _filled(sample, dim)
        raw: Any
        if kind == "flat":
            raw = faiss.IndexFlatIP(dim)
        elif kind == "hnsw":
            if storage == "sq8":
                # one range for all coordinates, because they are alike after a rotation: a few vectors are enough to
                # learn it, and it also fits later vectors that are unlike these
                raw = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit_uniform, options.m, ip)
            else:
                raw = faiss.IndexHNSWFlat(dim, options.m, ip)
            raw.hnsw.efConstruction = options.ef_construction
        else:
            lists = min(lists_for(records), len(sample))
            raw = empty_ivf(dim, lists, storage, ip)
        if storage == "sq8":
            # leave room beyond the extremes of the sample, because larger coordinates of later vectors are clipped
            scalar = raw.sq if kind == "ivf" else faiss.downcast_index(raw.storage).sq
            scalar.rangestat = faiss.ScalarQuantizer.RS_minmax
            scalar.rangestat_arg = 0.15
        if not raw.is_trained or kind == "ivf":
            with omp_threads():
                raw.train(np.ascontiguousarray(sample))
        return cls(raw, kind, storage, options.m)

    def __len__(self) -> int:
        return int(self._raw.ntotal)

    @property
    def dim(self) -> int:
        """Coordinates that are kept of a vector; see `width`."""
        return int(self._raw.d)

    def size(self) -> int:
        """Return about how many bytes the index takes in memory."""
        per_vector = int({"sq8": 1, "pq": 1 / _PAIR}.get(self.storage, 4) * self.dim)
        links = {"hnsw": 8 * self.m + 16, "ivf": 8}.get(self.kind, 0)
        return len(self) * (per_vector + links)

    def add(self, vectors: Matrix) -> None:
        """Append (n, dim) vectors."""
        self._gpu = None
        with omp_threads():
            self._raw.add(_filled(vectors, self.dim))

    def search(
        self, queries: Matrix, k: int, options: FaissOptions, mask: npt.NDArray[np.uint8] | None, matching: int
    ) -> tuple[Rows, Matrix]:
        """Return (q, k) ordinals of near neighbours, best first, and their products; -1 if too few were found.

        Args:
            queries: (q, dim).
            k: at most `matching`.
            options: `ef_search` and `nprobe` are used.
            mask: one bit for each ordinal, little-endian: whether it may be returned. None means all.
            matching: the number of bits that are set.
        """
        queries = _filled(queries, self.dim)
        effort = self.effort(k, options, matching, masked=mask is not None)
        worth = bool(effort) or self.kind != "hnsw"  # CAGRA makes no graph of only a few vectors
        probes = effort or self._lists
        able = suits(self.kind, self.storage, k, probes) and not forks.generation()  # CUDA fails in a forked child
        if worth and mask is None and able and uses_gpu(options.device):
            labels, products = self._on_gpu().search(queries, k, probes)
            if not (labels < 0).any():
                return labels, products
        if not effort:
            return self._scan(queries, k, mask)
        parameters: Any
        if self.kind == "hnsw":
            parameters = self._hnsw_parameters(effort, mask)
        else:
            parameters = faiss.SearchParametersIVF(nprobe=effort, sel=self._selector(mask))
        with omp_threads():
            products, labels = self._raw.search(queries, k, params=parameters)
        short = (labels < 0).any(axis=1)
        if short.any():
            labels[short], products[short] = self._scan(queries[short], k, mask)
        return labels, products

    def _on_gpu(self) -> GpuCopy:
        held = self._gpu
        if held is None or held.count != len(self):
            held = self._gpu = gpu_copy(self._raw, self.kind)
        return held

    @property
    def _lists(self) -> int:
        return int(self._raw.nlist) if self.kind == "ivf" else 0

    def effort(self, k: int, options: FaissOptions, matching: int, *, masked: bool) -> int:
        """Return how many HNSW nodes such a search keeps, or IVF lists it probes; 0 if a scan is cheaper."""
        n = len(self)
        share = matching / n
        # nodes that the mask rejects take places in the list as well; four standard deviations cover chance
        ef = math.ceil(max(options.ef_search, k + 4 * math.sqrt(k * (1 - share))) / share)
        scan = matching + (n * _BIT if masked else 0)
        if self.kind == "flat" or 3 * k >= matching or (self.kind == "hnsw" and scan <= _NODE * ef):
            return 0
        if self.kind == "hnsw":
            return min(ef, max(_EF_MOST, k))
        lists = int(self._raw.nlist)
        return min(lists, math.ceil(options.probes_for(lists) / share))

    def _scan(self, queries: Matrix, k: int, mask: npt.NDArray[np.uint8] | None) -> tuple[Rows, Matrix]:
        """Compare the queries with every vector."""
        parameters: Any = None
        if self.kind == "ivf":
            parameters = faiss.SearchParametersIVF(nprobe=self._raw.nlist, sel=self._selector(mask))
        elif mask is not None:
            parameters = faiss.SearchParameters(sel=self._selector(mask))
        with omp_threads(1 if len(queries) == 1 else None):
            products, labels = self._flat.search(queries, k, params=parameters)
        return labels, products

    def _hnsw_parameters(self, ef: int, mask: npt.NDArray[np.uint8] | None) -> Any:
        if mask is not None:
            return faiss.SearchParametersHNSW(efSearch=ef, sel=self._selector(mask))
        parameters = self._parameters  # kept, because a new one costs as much as a hundred distances
        if parameters is None or parameters.efSearch != ef:
            parameters = self._parameters = faiss.SearchParametersHNSW(efSearch=ef)
        return parameters

    def _selector(self, mask: npt.NDArray[np.uint8] | None) -> Any:
        return None if mask is None else faiss.IDSelectorBitmap(mask)

    def write(self, write: Callable[[bytes], object]) -> None:
        """Call `write` with the pieces of the serialized index."""

        def piece(data: bytes) -> None:
            write(data)

        faiss.write_index(self._raw, faiss.PyCallbackIOWriter(piece, 1 << 20))

    @classmethod
    def read(cls, read: Read, kind: str, storage: str, m: int) -> AnnIndex:
        """Read a serialized index. The caller must have authenticated it, because FAISS trusts what it parses.

        Args:
            read: called with a number of bytes; returns at most as many, and b"" at the end.
            kind: the kind of the index.
            storage: how it keeps vectors.
            m: the links of an HNSW node.

        Raises:
            ValueError: FAISS cannot parse it, or it is of another kind, or `read` raised it.
        """
        try:
            raw: Any = faiss.read_index(faiss.PyCallbackIOReader(read))
        except ValueError:
            raise
        except Exception as error:  # SWIG turns C++ exceptions into various Python exceptions
            raise ValueError(f"FAISS cannot read it: {type(error).__name__}") from None
        kinds: dict[str, Any] = {"flat": faiss.IndexFlat, "hnsw": faiss.IndexHNSW, "ivf": faiss.IndexIVF}
        if not isinstance(raw, kinds[kind]) or raw.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ValueError(f"not a {kind} index by inner product")
        return cls(raw, kind, storage, m)


def _filled(vectors: Matrix, width: int) -> Matrix:
    """Append zeros to (n, dim) vectors, up to (n, width). Zeros change no product."""
    if vectors.shape[1] == width:
        return np.ascontiguousarray(vectors)
    out = np.zeros((len(vectors), width), np.float32)
    out[:, : vectors.shape[1]] = vectors
    return out


def lists_for(records: int) -> int:
    """Return how many lists an IVF index over so many records has."""
    return max(1, min(int(4 * math.sqrt(records)), records // 30, 8_192))
