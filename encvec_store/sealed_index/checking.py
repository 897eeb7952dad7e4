"""Checks what is stored of a sealed index: all of it authenticates, and codes and columns agree with the records."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix, Rows
from ..errors import AuthenticationError, KeyUnavailableError
from ..runtime.concurrency import offload
from ..storage.protocol import union
from . import column_checking
from . import manifest as manifests
from .index import Opener
from .manifest import Manifest
from .ondemand import fetches, read_whole
from .saving import Shelf
from .segments import MissingSegmentError
from .state import Indexed

__all__ = ["check", "saved"]

_SAMPLE = 1_000
"""Records of each graph whose codes are compared."""
_FAR = 0.5
"""A code is wrong if its squared distance from its vector is a larger share of the mean from one vector to another."""
_WRONG = 0.05
"""Codes of vectors outside the range of a graph are clipped, so a few may look wrong."""
_ATTEMPTS = 3
_CURE = "the index is only a cache, and searches do without it: rebuild it with `encvec maintain`"


def check(opener: Opener, metric: str, dim: int) -> list[str]:
    """Return what is wrong with the stored index of a collection, a line for each fault; none if there is no index.

    Args:
        opener: the open collection.
        metric: the collection's.
        dim: coordinates of a vector.
    """
    shelf = Shelf(metric, dim)
    found: list[str] = []
    for version in opener.keyring.live:
        faults: list[str] = []
        for _ in range(_ATTEMPTS):
            try:
                faults = _faults(opener, shelf, version)
            except KeyUnavailableError:
                faults = []
            except MissingSegmentError as error:  # or another process has stored a newer manifest meanwhile
                faults = [str(error)]
            else:
                break
        found += [f"index of key version {version}: {fault}; {_CURE}" for fault in faults]
    return found


def saved(opener: Opener) -> dict[int, tuple[int, int, int]]:
    """Return by key version generation, content and stamp of the records that the stored index belongs to."""
    states = {}
    for version in opener.keyring.live:
        with suppress(AuthenticationError, KeyUnavailableError):
            found = manifests.read(opener.records, opener.keyring, version)
            if found is not None:
                states[version] = found[0].generation, found[0].content, found[0].stamp
    return states


def _faults(opener: Opener, shelf: Shelf, version: int) -> list[str]:
    try:
        found = manifests.read(opener.records, opener.keyring, version)
    except AuthenticationError as error:
        return [f"the manifest is damaged ({error})"]
    if found is None:
        there = opener.records.blob(manifests.name_of(version)) is not None
        return ["the manifest has a format that this version does not know"] if there else []
    listed = found[0]
    if (listed.metric, listed.dim) != (shelf.metric, shelf.dim):
        return ["the manifest is of another metric or dimension"]
    return _of_graphs(opener, shelf, listed)


def _of_graphs(opener: Opener, shelf: Shelf, listed: Manifest) -> list[str]:
    faults = []
    rows: list[Rows] | None = []
    for number, entry in enumerate(listed.parts, 1):
        try:
            part = shelf.part(opener.records, opener.keyring, listed.version, entry)
            wrong, compared = _disagreeing(opener, part, shelf.metric)
        except (AuthenticationError, ValueError) as error:
            faults.append(f"graph {number} of {len(listed.parts)} is damaged ({error})")
            rows = None
            continue
        if rows is not None:
            rows.append(part.rows)
        if wrong > _WRONG * compared:
            faults.append(f"graph {number} of {len(listed.parts)}: {wrong} of {compared} codes are of other vectors")
    known = None if rows is None else union(rows)
    return faults + column_checking.faults(opener, listed.columns, known)


def _disagreeing(opener: Opener, part: Indexed, metric: str) -> tuple[int, int]:
    """Compare a sample of codes with the records' vectors: (codes that are far from theirs, codes compared)."""
    count = len(part.rows)
    places = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
    rows, vectors, _ = opener.open_vectors(part.rows[places])
    if not len(rows):
        return 0, 0
    coded = _coded(opener, part, np.searchsorted(part.rows, rows))
    far = offload(len(rows), _far, coded, vectors, metric)
    return int(far.sum()), len(rows)


def _coded(opener: Opener, part: Indexed, places: Rows) -> Matrix:
    """Return the vectors at some places, as their codes have them. Raises what `segments.opened` does."""
    if fetches(part):
        return read_whole(opener, part, places)
    return offload(len(places), part.graph.decoded, places)


def _far(coded: Matrix, vectors: Matrix, metric: str) -> npt.NDArray[np.bool_]:
    from .faissing import points_of, width_of  # it loads FAISS

    exact = points_of(metric, vectors, width_of(vectors.shape[1])).astype(np.float64)
    spread, wrong = 2 * exact.var(axis=0).sum(), ((exact - coded) ** 2).sum(axis=1)
    far: npt.NDArray[np.bool_] = wrong > _FAR * spread + 0.01 * (exact**2).sum(axis=1)
    return far
