"""What a sealed index knows at one moment: graphs, the rows in them, and the tail. Nothing of it is ever changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ..data.arrays import Matrix, Rows
from .gpu import Gpus
from .graph import Bits, Found, Graph
from .manifest import StoredGraph
from .passing import PassingPositions
from .rowsets import is_among, places_of
from .tail import Tail, smallest

if TYPE_CHECKING:
    from ..indexes.faiss import GpuCopy

__all__ = [
    "Allowed",
    "Indexed",
    "Listed",
    "Lists",
    "Looked",
    "Ranks",
    "Snapshot",
    "apart",
    "are_all_in",
    "in_order",
    "others",
    "resealed",
]

Lists = list[tuple[Rows, npt.NDArray[np.floating]]]
"""Rows and costs of each query, nearest first."""


class Allowed(Protocol):
    """The rows that a search may return."""

    def among(self, rows: Rows, graph: Graph | None = None) -> npt.NDArray[np.bool_]:
        """Say for each of (n,) rows whether it is one of them. Those of a graph ascend."""
        ...

    def choice(self, part: Indexed) -> PassingPositions:
        """Return which positions of a part pass."""
        ...


class Ranks(Protocol):
    """Knows costs of rows better than codes do."""

    def ranked(self, queries: Matrix, lists: Lists) -> Lists:
        """Return rows and costs of each of (q, dim) queries, with better costs. They compare with those of graphs."""
        ...


class Listed:
    """Rows that somebody has listed, ascending. Implements `Allowed`."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def among(self, rows: Rows, graph: Graph | None = None) -> npt.NDArray[np.bool_]:
        """Say for each of (n,) rows whether it was listed."""
        if graph is None:
            return is_among(rows, self.rows)
        found = np.zeros(len(rows), np.bool_)
        found[places_of(rows, self.rows)] = True  # mostly the shorter list
        return found

    def choice(self, part: Indexed) -> PassingPositions:
        """Return which positions of a part were listed."""
        return PassingPositions(part, self.among(part.rows, part.graph))


@dataclass(frozen=True, eq=False)
class Indexed:
    """A graph with its rows. Their records were written under one key version."""

    version: int
    """The key version that its segments are sealed under."""
    graph: Graph
    rows: Rows
    """(n,) the row of each position, ascending."""
    alive: npt.NDArray[np.bool_] | None = None
    """(n,) None if all rows are there."""
    stored: StoredGraph | None = None
    kept: bool = True
    """False for a coarse index, which is quick to build and is replaced by a better one."""
    bits: npt.NDArray[np.uint8] | None = field(init=False, default=None)
    """`alive` as a mask of the graph."""
    living: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        living = len(self.rows) if self.alive is None else int(np.count_nonzero(self.alive))
        object.__setattr__(self, "living", living)
        if self.alive is not None:
            object.__setattr__(self, "bits", np.packbits(self.alive, bitorder="little"))

    @property
    def dead(self) -> int:
        """Count the rows that were removed, or whose key version is dead."""
        return len(self.rows) - self.living

    @property
    def living_rows(self) -> Rows:
        """Return the rows that are there, ascending."""
        return self.rows if self.alive is None else self.rows[self.alive]

    def without(self, removed: Rows) -> Indexed:
        """Return the part without these rows."""
        places = places_of(self.rows, removed)
        if not len(places):
            return self
        alive = np.ones(len(self.rows), np.bool_) if self.alive is None else self.alive.copy()
        alive[places] = False
        return replace(self, alive=alive)

    def only(self, kept: Rows) -> Indexed:
        """Return the part with only those of its rows that are in `kept`, which ascends."""
        alive = is_among(self.rows, kept)
        return replace(self, alive=None if alive.all() else alive)

    def still(self, found: Lists | None) -> Lists | None:
        """Return rows and costs that were found before; None if one of the rows is not there any more."""
        if found is None or self.alive is None:
            return found
        rows = np.concatenate([rows for rows, _ in found])
        return found if self.alive[places_of(self.rows, rows)].all() else None

    def chosen(self, allowed: Allowed | None) -> tuple[Bits | None, int]:
        """Return the living positions that are allowed as a mask of the graph, None for all, and how many they are."""
        if allowed is None:
            return self.bits, self.living
        choice = allowed.choice(self)
        return choice.bits, choice.passing

    def nearest(self, queries: Matrix, limit: int, allowed: Allowed | None, gpus: Gpus | None = None) -> Lists:
        """Return (rows, costs) of each query, nearest first."""
        mask, passing, kept = self.bits, self.living, None
        if allowed is not None:
            choice = allowed.choice(self)
            mask, passing, kept = choice.bits, choice.passing, choice.kept
        if not passing:
            nothing = np.empty(0, np.int64), np.empty(0, np.float32)
            return [nothing for _ in queries]
        limit = min(limit, passing)
        copy = None if gpus is None or allowed is not None else gpus.copy_of(self.graph)
        found = None if copy is None else self._by_copy(copy, queries, limit)
        if found is None:
            found = self.graph.search(queries, limit, mask, passing, kept=kept)
        return [(self.rows[positions], costs) for positions, costs in found]

    def _by_copy(self, copy: GpuCopy, queries: Matrix, limit: int) -> Found | None:
        """Search a copy, which takes no mask: ask for more, and leave out the dead. None if too few are left."""
        found = self.graph.search(queries, min(limit + min(self.dead, limit), len(self.rows)), copy=copy)
        if self.alive is not None:
            found = [
                (positions[alive], costs[alive]) for positions, costs in found for alive in [self.alive[positions]]
            ]
        return [(p[:limit], c[:limit]) for p, c in found] if all(len(p) >= limit for p, _ in found) else None


@dataclass(frozen=True, eq=False)
class Looked:
    """What each graph gave in a search."""

    limit: int
    dead: frozenset[int]
    lists: dict[Graph, Lists]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Everything that was indexed, as of a generation of the records."""

    generation: int
    content: int
    stamp: int
    dead: frozenset[int]
    """Key versions that could not be read: their rows are masked."""
    parts: tuple[Indexed, ...]
    tail: Tail
    history: int = 0
    """Another number if an older state of the records was put back: numbers of rows come again there."""

    @property
    def living(self) -> int:
        """Count the living rows."""
        return self.tail.living + sum(part.living for part in self.parts)

    @property
    def complete(self) -> bool:
        """True if parts that are kept hold every record, and nothing else, and the records' stamp says as of when."""
        kept = all(part.kept and part.alive is None for part in self.parts)
        return kept and self.generation > 0 and self.stamp != 0 and not self.dead and not self.tail.count

    @property
    def bytes(self) -> int:
        """Return the memory held by graphs and tail."""
        parts = sum(part.graph.bytes + part.rows.nbytes + len(part.rows) // 8 for part in self.parts)
        return self.tail.bytes + parts

    def needs(self, k: int) -> int:
        """Return the number of candidates that k hits need."""
        return max([k, *(part.graph.needs(k) for part in self.parts)])

    def nearest(
        self,
        queries: Matrix,
        limit: int,
        allowed: Allowed | None = None,
        gpus: Gpus | None = None,
        before: Looked | None = None,
        ranks: Ranks | None = None,
        most: int | None = None,
        read: Mapping[Graph, Lists] | None = None,
    ) -> tuple[list[Rows], Looked]:
        """Return up to `limit` rows for each of (q, dim) queries, nearest first, and what each graph gave.

        Args:
            queries: (q, dim).
            limit: at most so many rows for each query.
            allowed: the rows that may be returned; None means all.
            gpus: copies of graphs to search instead.
            before: what the graphs of an older state gave for the same queries and the same filter. A graph that is
                still here, with every row that it gave, is not searched again.
            ranks: ranks what graphs gave.
            most: return so many rows of `limit`; None for all.
            read: what graphs gave whose codes had to be fetched: see `SealedIndex.nearest`.
        """
        known, read = self.known(before, limit), read or {}
        lists = {
            part.graph: read.get(part.graph)
            or part.still(known.get(part.graph))
            or part.nearest(queries, limit, allowed, gpus)
            for part in self.parts
        }
        looked, found = Looked(limit, self.dead, lists), list(lists.values())
        most = limit if most is None else most
        if ranks is not None:
            found = [ranks.ranked(queries, each) for each in found]
        elif not self.tail.count and len(found) == 1:
            return [rows[:most] for rows, _ in found[0]], looked
        if self.tail.count:
            found.append([self._in_tail(query, limit, allowed) for query in queries])
        if not found:
            return [_NONE for _ in queries], looked
        return [_merged(each, most) for each in zip(*found, strict=True)], looked

    def known(self, before: Looked | None, limit: int) -> dict[Graph, Lists]:
        """Return what each graph gave before, if the same was asked."""
        return {} if before is None or (before.limit, before.dead) != (limit, self.dead) else before.lists

    def matching(self, allowed: Allowed) -> Rows:
        """Return the living rows that are allowed, ascending."""
        found = [part.living_rows[allowed.among(part.rows, part.graph)[_alive(part)]] for part in self.parts]
        rows = self.tail.rows
        return np.sort(np.concatenate([*found, rows[allowed.among(rows)]]))

    def _in_tail(self, query: Matrix, limit: int, allowed: Allowed | None) -> tuple[Rows, npt.NDArray[np.floating]]:
        tail = self.tail
        costs = tail.costs(query)
        rows = tail.buffer.rows[: tail.count]
        if allowed is not None:
            costs[~allowed.among(rows)] = np.inf
        places = smallest(costs, limit)
        return rows[places], costs[places]


_NONE = np.empty(0, np.int64)


def _alive(part: Indexed) -> npt.NDArray[np.bool_] | slice:
    return slice(None) if part.alive is None else part.alive


def _merged(found: tuple[tuple[Rows, npt.NDArray[np.floating]], ...], limit: int) -> Rows:
    rows = np.concatenate([rows for rows, _ in found])
    costs = np.concatenate([costs for _, costs in found])
    return rows[np.argsort(costs, kind="stable")[:limit]]


def resealed(part: Indexed, readable: list[tuple[int, Rows]]) -> Indexed:
    """Return a part whose records were all sealed anew under another key version as one of that version.

    Rows keep their vectors, so the graph stays right. Its segments do not: they are under the old version. While only
    some of them were sealed anew, it stays as it is.

    Args:
        part: of an index.
        readable: key versions with their rows, the oldest first.
    """
    for version, rows in readable:
        here = is_among(part.rows, rows)
        if here.any():
            return part if version == part.version else replace(part, version=version, stored=None)
    return part


def are_all_in(some: tuple[Indexed, ...], parts: tuple[Indexed, ...]) -> bool:
    """Return True if all of some parts are among others, under the same key version."""
    known = {(id(part.graph), part.version) for part in parts}
    return all((id(part.graph), part.version) in known for part in some)


def others(parts: tuple[Indexed, ...], some: tuple[Indexed, ...]) -> tuple[Indexed, ...]:
    """Return the parts that are not among some."""
    graphs = {id(part.graph) for part in some}
    return tuple(part for part in parts if id(part.graph) not in graphs)


def in_order(parts: tuple[Indexed, ...]) -> tuple[Indexed, ...]:
    """Return the parts that have living rows, the largest first."""
    return tuple(sorted((part for part in parts if part.living), key=lambda part: -len(part.rows)))


def apart(parts: tuple[Indexed, ...]) -> tuple[Indexed, ...]:
    """Return parts that share no living row: each row stays in one of them, if possible in one that is stored.

    A part that was sealed anew is stored twice for a moment, under its old and its new key version.
    """
    found: list[Indexed] = []
    for part in sorted(parts, key=lambda part: part.stored is None):
        for other in found:
            if part.living and other.living:
                part = part.without(other.living_rows[is_among(other.living_rows, part.rows)])
        found.append(part)
    return tuple(found)
