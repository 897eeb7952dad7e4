"""The tail: opened vectors of rows that are in no graph yet. It is compared exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix, Rows
from ..data.metrics import Metric, norms
from ..runtime.forks import Mutex
from .graph import Costs
from .rowsets import is_among

__all__ = ["Tail", "is_wide", "smallest"]

_LEAST = 256
_COMFORT = 1e-12, 1e12
"""Lengths of vectors whose products stay well within the range of float32."""
_CHUNK = 8192
_SPARE = 4
"""A copy of the whole is worth it when a quarter of the tail is dead."""


class _Buffer:
    """Rows and vectors, with room for more. States that were published earlier see only what they had."""

    def __init__(self, metric: Metric, dim: int, room: int) -> None:
        self.metric = metric
        self.rows = np.empty(room, np.int64)
        self.versions = np.empty(room, np.int64)
        self.vectors: Matrix = np.empty((room, dim), np.float32)
        self.squares = np.empty(room, np.float32)
        self.used = 0
        self._lock = Mutex()
        self.centre: Matrix | None = None
        """l2: what is subtracted from every vector, so that squares and products do not cancel."""

    def claim(self, start: int, stop: int) -> bool:
        """Reserve the places for a writer. Returns False if they are taken, or if there is no room.

        A search that was cancelled leaves a thread that goes on writing: nobody else may write to its places.
        """
        with self._lock:
            free = self.used == start and stop <= len(self.rows)
            if free:
                self.used = stop
            return free

    def write(self, start: int, rows: Rows, versions: Rows, vectors: Matrix) -> None:
        stop = start + len(rows)
        if self.metric.name == "l2":
            if self.centre is None:
                self.centre = vectors[0].copy()
            np.subtract(vectors, self.centre, out=self.vectors[start:stop])
        elif self.metric.name == "cosine":
            self.vectors[start:stop] = self.metric.lift(vectors)
        else:
            self.vectors[start:stop] = vectors
        held = self.vectors[start:stop]
        np.einsum("ij,ij->i", held, held, out=self.squares[start:stop])
        self.rows[start:stop], self.versions[start:stop] = rows, versions


@dataclass(frozen=True, eq=False)
class Tail:
    """The first `count` rows of a buffer, ascending by time, not always by row.

    Vectors are kept ready for comparison: of length 1 under cosine, less a fixed point under l2.
    """

    buffer: _Buffer
    count: int
    dead: npt.NDArray[np.bool_] | None
    """(count,) True for rows that were removed; None if there are none."""
    wide: bool
    """True if products may leave float32's range, so that costs need double precision."""

    @classmethod
    def empty(cls, metric: Metric, dim: int, room: int = _LEAST) -> Tail:
        """Return a tail without rows, with room for some."""
        return cls(_Buffer(metric, dim, room), 0, None, False)

    @property
    def rows(self) -> Rows:
        """Return the living rows."""
        rows = self.buffer.rows[: self.count]
        return rows if self.dead is None else rows[~self.dead]

    @property
    def versions(self) -> Rows:
        """Return the key version of each living row."""
        versions = self.buffer.versions[: self.count]
        return versions if self.dead is None else versions[~self.dead]

    @property
    def living(self) -> int:
        """Count the living rows."""
        return self.count if self.dead is None else self.count - int(np.count_nonzero(self.dead))

    @property
    def bytes(self) -> int:
        """Return the memory held."""
        held = self.buffer
        return held.vectors.nbytes + held.rows.nbytes + held.versions.nbytes + held.squares.nbytes

    def vectors_of(self, places: npt.NDArray[np.intp]) -> Matrix:
        """Return the vectors of places among the living rows: under cosine of length 1."""
        if self.dead is not None:
            places = np.flatnonzero(~self.dead)[places]
        vectors = self.buffer.vectors[places]
        return vectors if self.buffer.centre is None else vectors + self.buffer.centre

    def with_more(self, rows: Rows, versions: Rows, vectors: Matrix) -> Tail:
        """Return a tail with n more rows. This tail stays as it is."""
        if not len(rows):
            return self
        buffer, dead = self.buffer, self.dead
        need = self.count + len(rows)
        if not buffer.claim(self.count, need):
            buffer = self._copied(max(_LEAST, need + need // 2))
            buffer.used = need
        wide = self.wide or is_wide(buffer.metric, vectors)
        buffer.write(self.count, rows, versions, vectors)
        if dead is not None:
            dead = np.concatenate([dead, np.zeros(len(rows), np.bool_)])
        return Tail(buffer, need, dead, wide)

    def without(self, removed: Rows) -> Tail:
        """Return a tail without these rows."""
        rows = self.buffer.rows[: self.count]
        gone = is_among(rows, np.sort(removed))
        if not gone.any():
            return self
        return self._masked(gone if self.dead is None else gone | self.dead)

    def only(self, kept: Rows) -> Tail:
        """Return a tail with only those of its rows that are in `kept`, which ascends."""
        gone = ~is_among(self.buffer.rows[: self.count], kept)
        return self._masked(gone if self.dead is None else gone | self.dead)

    def compact(self) -> Tail:
        """Return a copy that holds nothing of removed rows."""
        places = np.flatnonzero(~self.dead) if self.dead is not None else np.arange(self.count)
        made = _Buffer(self.buffer.metric, self.buffer.vectors.shape[1], max(_LEAST, len(places) + len(places) // 4))
        made.centre = self.buffer.centre
        for name in ("rows", "versions", "vectors", "squares"):
            getattr(made, name)[: len(places)] = getattr(self.buffer, name)[places]
        made.used = len(places)
        return Tail(made, len(places), None, self.wide and bool(len(places)))

    def resealed(self, versions: Rows) -> Tail:
        """Return a tail whose living rows have these key versions."""
        if np.array_equal(versions, self.versions):
            return self
        made = self.compact()
        made.buffer.versions[: made.count] = versions
        return made

    def cleared(self) -> Tail:
        """Return a copy that holds nothing of removed rows, and no point that was taken from one of them."""
        made = self.compact()
        held = made.buffer
        if held.centre is not None:
            living = held.vectors[: made.count] + held.centre
            held.centre = living[0].copy() if len(living) else None
            if len(living):
                held.vectors[: made.count] = living - living[0]
                np.einsum("ij,ij->i", living - living[0], living - living[0], out=held.squares[: made.count])
        return made

    def costs(self, query: Matrix) -> Costs | npt.NDArray[np.float64]:
        """Return the cost of each row for a (dim,) query, smaller is nearer; infinite for rows that were removed.

        Costs compare with those of graphs.
        """
        vectors, squares = self.buffer.vectors[: self.count], self.buffer.squares[: self.count]
        costs: Costs | npt.NDArray[np.float64]
        if self.buffer.metric.name == "cosine":
            costs = vectors @ -self.buffer.metric.lift_query(query[None])[0]
        elif self.wide:
            costs = self._wide_costs(query)
        elif self.buffer.metric.name == "l2":
            query = query if self.buffer.centre is None else query - self.buffer.centre
            costs = vectors @ (-2 * query)
            costs += squares
            costs += query @ query
        else:
            costs = vectors @ -query
        if self.dead is not None:
            costs[self.dead] = np.inf
        return costs

    def _wide_costs(self, query: Matrix) -> npt.NDArray[np.float64]:
        costs = np.empty(self.count)
        shift = self.buffer.centre
        wide = query.astype(np.float64) - (0 if shift is None else shift.astype(np.float64))
        for start in range(0, self.count, _CHUNK):
            part = self.buffer.vectors[start : min(start + _CHUNK, self.count)].astype(np.float64)
            if self.buffer.metric.name == "l2":
                part -= wide
                costs[start : start + len(part)] = np.einsum("ij,ij->i", part, part)
            else:
                costs[start : start + len(part)] = part @ -wide
        return costs

    def _masked(self, dead: npt.NDArray[np.bool_]) -> Tail:
        made = replace(self, dead=dead)
        return made.compact() if np.count_nonzero(dead) * _SPARE > self.count else made

    def _copied(self, room: int) -> _Buffer:
        old, made = self.buffer, _Buffer(self.buffer.metric, self.buffer.vectors.shape[1], room)
        made.centre, made.used = old.centre, self.count
        for name in ("rows", "versions", "vectors", "squares"):
            getattr(made, name)[: self.count] = getattr(old, name)[: self.count]
        return made


def is_wide(metric: Metric, vectors: Matrix) -> bool:
    """Return True if products of (n, dim) vectors may leave float32's range."""
    if metric.name == "cosine" or not len(vectors):
        return False
    lengths = norms(vectors)
    return not (_COMFORT[0] < lengths.min() and lengths.max() < _COMFORT[1])


def smallest(costs: npt.NDArray[np.floating], limit: int) -> npt.NDArray[np.intp]:
    """Return the places of up to `limit` smallest finite costs, smallest first."""
    if limit < len(costs):
        places = np.argpartition(costs, limit)[:limit]
        places = places[np.argsort(costs[places], kind="stable")]
    else:
        places = np.argsort(costs, kind="stable")
    found: npt.NDArray[np.intp] = places[: int(np.count_nonzero(costs[places] < np.inf))]
    return found
