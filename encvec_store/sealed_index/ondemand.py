"""Searches of lists whose codes lie in the store: which lists, which blocks, fetch them, compare.

Only `read` waits for the store. Everything else computes, in a worker thread if there is much of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes, Matrix, Rows
from ..errors import AuthenticationError, KeyUnavailableError, StoreUnreachableError
from ..runtime.concurrency import offload
from ..storage.protocol import BUSY
from .blocks import CURE, BlockCache, Blocks, fetched
from .budget import BUDGET
from .graph import Bits, Costs, Graph, Positions
from .segments import MissingSegmentError
from .state import Allowed, Indexed, Looked, Ranks, Snapshot

if TYPE_CHECKING:
    from .index import Opener, SealedIndex
    from .lists import Lists, Numbers

__all__ = ["Needed", "blocks_of", "fetches", "is_moved", "lists_of", "nearest", "needed", "read", "read_whole"]

_ATTEMPTS = 8
_PER_QUERY = 256
"""A query of a batch takes about as long as so many records to decode."""
_ROWS = 2_000
"""So few rows that pass a filter are read themselves: that is less than the lists around a query."""
_SPARE = 2
_QUERY = 64
_AT_ONCE = 64
"""Blocks of one statement, where all are read."""
_ROOM = 16 << 20
"""Bytes of blocks that a search reads by one statement, even if none may be kept. It holds them, and their codes."""
Ranked = tuple[Rows, Costs]


class Needed(NamedTuple):
    """What a search of one query reads."""

    lists: int
    blocks: int
    cached: int
    bytes: int
    """Of the blocks that are not cached."""


def fetches(part: Indexed) -> bool:
    """Return True if the codes of a part lie in the store."""
    return part.graph.kind == "lists"


def lists_of(part: Indexed) -> Lists:
    """Return the graph of a part whose codes lie in the store."""
    return cast("Lists", part.graph)


def nearest(
    opener: Opener,
    index: SealedIndex,
    state: Snapshot,
    queries: Matrix,
    limit: int,
    allowed: Allowed | None,
    before: Looked | None = None,
    ranks: Ranks | None = None,
    most: int | None = None,
) -> tuple[Snapshot, list[Rows], Looked]:
    """Return what `Snapshot.nearest` does, after the state that was searched: a newer one if blocks of this are gone.

    Raises:
        AuthenticationError: a block was altered, moved or swapped, or is missing although the manifest names it.
        StoreUnreachableError: blocks were replaced each time before they could be fetched.
    """
    missing: str | None = None
    for _ in range(_ATTEMPTS):
        try:
            found = _read_all(opener, index, state, queries, limit, allowed, before)
        except MissingSegmentError as error:
            if missing == str(error):
                _give_up(opener, index)
                raise AuthenticationError(f"the sealed index is damaged: {error}. {CURE}") from None
            missing = str(error)
            if index.state is state:
                index.reload(opener)
            state, _ = index.current(opener, stale=True)
        except KeyUnavailableError:  # a part may also be of records that were sealed anew under another key
            index.reload(opener)
            state, _ = index.current(opener, stale=True)
        except AuthenticationError:
            _give_up(opener, index)
            raise
        else:
            size = state.tail.count // 16 + (_PER_QUERY * len(queries) if len(queries) > 1 else 0)
            return state, *offload(size, state.nearest, queries, limit, allowed, index.gpus, before, ranks, most, found)
    raise StoreUnreachableError(BUSY)


def _give_up(opener: Opener, index: SealedIndex) -> None:
    """Note that a block is damaged or missing: the next builder builds anew what is stored."""
    if index.shelf is not None:
        index.shelf.give_up(opener.records, opener.keyring)


def _read_all(
    opener: Opener,
    index: SealedIndex,
    state: Snapshot,
    queries: Matrix,
    limit: int,
    allowed: Allowed | None,
    before: Looked | None,
) -> dict[Graph, list[Ranked]]:
    """Return what each graph gives whose codes lie in the store."""
    found: dict[Graph, list[Ranked]] = {}
    parts = [part for part in state.parts if fetches(part) and part.version not in state.dead]
    if not parts:
        return found
    known, room = state.known(before, limit), index.room
    for part in parts:
        held = part.still(known.get(part.graph))
        found[part.graph] = held or read(opener, index, part, queries, limit, allowed, room)
    return found


def blocks_of(part: Indexed) -> Blocks | None:
    """Return the blocks of a part; None if its codes are in memory."""
    return lists_of(part).blocks if fetches(part) else None


def is_moved(part: Indexed) -> bool:
    """Return True if the blocks of a part are sealed under another key version than its records."""
    blocks = blocks_of(part)
    return blocks is not None and blocks.version != part.version


def read(
    opener: Opener, index: SealedIndex, part: Indexed, queries: Matrix, limit: int, allowed: Allowed | None, room: int
) -> list[Ranked]:
    """Return (rows, costs) of each of (q, dim) queries, nearest first.

    Args:
        opener: the open collection.
        index: keeps the blocks that are fetched.
        part: with lists.
        queries: (q, dim).
        limit: at most so many rows for each query; never fewer, if enough pass.
        allowed: the rows that may be returned; None means all.
        room: bytes that opened blocks may take.

    Raises:
        MissingSegmentError: blocks are gone. Read the manifest again.
        AuthenticationError: a block was altered, moved or swapped.
        KeyUnavailableError: the part's key version is disabled or destroyed.
    """
    graph = lists_of(part)
    chosen, passing = offload(part.graph.count >> 10, part.chosen, allowed)
    limit = min(limit, passing)
    if not limit:
        return [_NOTHING for _ in queries]
    if chosen is not None and passing <= max(_ROWS, limit):
        rows = part.rows[_positions(chosen, graph.count)]
        found, vectors, _ = opener.open_vectors(rows)
        return offload(len(found) + len(queries), _compared, graph, found, vectors, queries, limit)
    search = _Search(graph, queries, limit, chosen, passing)
    for lists in search.rounds():
        for wave in _waves(graph, lists):
            pieces = graph.pieces(wave)
            parts = sorted({block for _, block, *_ in pieces})
            opened = index.blocks.get(graph.blocks.name, parts)
            if missing := [part for part in parts if part not in opened]:
                fresh = fetched(opener.records, opener.keyring, graph.blocks, missing)
                opened |= fresh
                most = max(room // 2, room - 2 * len(parts) * graph.blocks.size)
                index.blocks.put(graph.blocks.name, fresh, most)
                BUDGET.grow(index)
                if graph.blocks.version in opener.keyring.dead:  # since a moment ago
                    index.blocks.drop(graph.blocks.name)
            offload(_QUERY * len(queries), search.scan, wave, pieces, opened)
    return [(part.rows[positions], costs) for positions, costs in search.found]


def read_whole(opener: Opener, part: Indexed, positions: Positions) -> Matrix:
    """Fetch all blocks of a part, and return the vectors at some positions, as their codes have them: (n, width).

    Raises:
        MissingSegmentError: blocks are gone. Read the manifest again.
        AuthenticationError: a block was altered, moved or swapped.
        ValueError: the blocks do not hold each position once.
    """
    graph = lists_of(part)
    blocks, wanted = graph.blocks, np.full(graph.count, -1, np.int64)
    wanted[positions] = np.arange(len(positions))
    codes, lists = np.empty((len(positions), blocks.width), np.uint8), np.empty(len(positions), np.int64)
    seen = np.zeros(graph.count, np.bool_)
    for start in range(0, blocks.parts, _AT_ONCE):
        opened = fetched(opener.records, opener.keyring, blocks, range(start, min(start + _AT_ONCE, blocks.parts)))
        for number, block in opened.items():
            first = number * blocks.each
            places = blocks.places_of(block)[: graph.count - first]
            if places.max() >= graph.count or seen[places].any():
                raise ValueError("the blocks do not hold each position once")
            seen[places] = True
            at = np.flatnonzero(wanted[places] >= 0)
            codes[wanted[places[at]]] = blocks.codes_of(block)[at]
            lists[wanted[places[at]]] = np.searchsorted(graph.ends, first + at, "right") - 1
    if not seen.all():
        raise ValueError("the blocks do not hold each position once")
    return offload(len(positions), graph.layout.decoded, lists, codes)


def needed(cache: BlockCache, part: Indexed, query: Matrix, limit: int) -> Needed:
    """Return what a search without a filter would read for a (dim,) query."""
    graph = lists_of(part)
    search = _Search(graph, query[None], limit, None, graph.count)
    lists = next(search.rounds())
    blocks = {block for _, block, *_ in graph.pieces(lists)}
    cached = len(cache.peek(graph.blocks.name, blocks))
    return Needed(len(lists), len(blocks), cached, (len(blocks) - cached) * graph.blocks.size)


_NOTHING: Ranked = np.empty(0, np.int64), np.empty(0, np.float32)


class _Search:
    """The lists that each query reads, and what was found in them. Rounds follow until each query has enough."""

    def __init__(self, graph: Lists, queries: Matrix, limit: int, chosen: Bits | None, passing: int) -> None:
        from .faissing import points_of  # it loads FAISS

        self._graph, self._limit, self._chosen = graph, limit, chosen
        self._points = points_of(graph.metric, queries, graph.width)
        share = passing / graph.count
        self._stop = graph.effort(self._wanted(share))
        self._asked: dict[int, Numbers] = {}
        """By query, the lists of this round, ascending."""
        self._done: list[Numbers] = [np.empty(0, np.int64) for _ in queries]
        """Those of the rounds before."""
        self._seen, self._passed = np.zeros(len(queries), np.int64), np.zeros(len(queries), np.int64)
        self.found: list[tuple[Positions, Costs]] = [_NOTHING for _ in queries]

    def _wanted(self, share: float) -> int:
        return math.ceil(_SPARE * self._limit / share) if share < 1 else self._limit

    def rounds(self) -> Iterator[Numbers]:
        """Yield the numbers of lists to be read, ascending. Call `scan` for all of them before the next."""
        graph, asked = self._graph, list(range(len(self._points)))
        while asked:
            order = offload(len(asked) * graph.lists >> 10, graph.layout.nearest, self._points[asked], self._stop)
            # two lists may be equally near, and then change places from round to round
            self._asked = {query: np.setdiff1d(row, self._done[query]) for query, row in zip(asked, order, strict=True)}
            yield np.unique(np.concatenate(list(self._asked.values())))
            if self._stop >= graph.lists:
                return
            more = {query: stop for query in asked if (stop := self._more(query)) > self._stop}
            for query in more:
                self._done[query] = np.union1d(self._done[query], self._asked[query])
            asked, self._stop = list(more), min(graph.lists, max([2 * self._stop, *more.values()]))

    def _more(self, query: int) -> int:
        """Return how many lists a query should read, in all."""
        if len(self.found[query][0]) < self._limit:
            return min(self._graph.lists, 4 * self._stop)
        if self._chosen is None or not self._seen[query]:
            return 0
        wanted = self._graph.effort(self._wanted(min(1.0, self._passed[query] / self._seen[query])))
        return min(wanted, self._graph.lists) if wanted > self._stop else 0

    def scan(self, wave: Numbers, pieces: list[tuple[int, int, int, int]], opened: dict[int, Bytes]) -> None:
        """Compare the queries with what is in some lists."""
        from ..indexes.faiss import omp_threads  # these load FAISS
        from .faissing import faiss, found_by
        from .lists import passes

        graph, blocks = self._graph, self._graph.blocks
        if not pieces:
            return
        codes_of = {number: blocks.codes_of(block) for number, block in opened.items()}
        places_of = {number: blocks.places_of(block) for number, block in opened.items()}
        raw = graph.layout.over(wave, ((place, codes_of[block][start:stop]) for place, block, start, stop in pieces))
        places = np.concatenate([places_of[block][start:stop] for _, block, start, stop in pieces])
        selector = None
        if self._chosen is not None:
            keep = passes(places, self._chosen)
            selector = faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))
            self._count(wave, keep)
        asked, most = list(self._asked), max(len(np.intersect1d(each, wave)) for each in self._asked.values())
        parameters = faiss.SearchParametersIVF(nprobe=most, sel=selector)
        with omp_threads(1 if len(asked) == 1 else None):
            found, costs = found_by(raw, self._points[asked], min(self._limit, len(places)), parameters)
        if graph.metric != "l2":
            np.negative(costs, out=costs)
        for query, at, cost in zip(asked, found, costs, strict=True):
            held = at >= 0
            self.found[query] = _merged(self.found[query], (places[at[held]].astype(np.int64), cost[held]), self._limit)

    def _count(self, wave: Numbers, keep: npt.NDArray[np.bool_]) -> None:
        """Count for each query the vectors in its lists, and those that pass the filter."""
        sizes = np.diff(self._graph.ends)[wave]
        passed = np.diff(np.concatenate([[0], np.cumsum(keep)])[np.concatenate([[0], np.cumsum(sizes)])])
        for query, lists in self._asked.items():
            here = np.isin(wave, lists)
            self._seen[query] += sizes[here].sum()
            self._passed[query] += passed[here].sum()


def _merged(one: Ranked, other: Ranked, limit: int) -> Ranked:
    if not len(one[0]):
        return other
    positions, costs = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    positions, first = np.unique(positions, return_index=True)  # a list may have been read for another query before
    order = np.argsort(costs[first], kind="stable")[:limit]
    return positions[order], costs[first[order]]


def _waves(graph: Lists, lists: Numbers) -> Iterator[Numbers]:
    """Cut lists, whose numbers ascend, so that one statement reads the blocks of each cut; at least a list."""
    most, each = max(1, _ROOM // graph.blocks.size), graph.blocks.each
    first, last = graph.ends[lists] // each, np.maximum(graph.ends[lists + 1] - 1, graph.ends[lists]) // each
    before = np.append(-1, np.maximum.accumulate(last)[:-1])
    counts = np.cumsum(np.maximum(last - np.maximum(first, before + 1) + 1, 0))
    if len(counts) and counts[-1] <= most:
        yield lists
        return
    number = counts // most
    yield from np.split(lists, np.flatnonzero(np.diff(number)) + 1)


def _positions(mask: Bits, count: int) -> Positions:
    return np.flatnonzero(np.unpackbits(mask, count=count, bitorder="little"))


def _compared(graph: Lists, rows: Rows, vectors: Matrix, queries: Matrix, limit: int) -> list[Ranked]:
    """Compare queries with opened vectors, exactly."""
    from .faissing import faiss, measure_of, points_of

    if not len(rows):
        return [_NOTHING for _ in queries]
    points = [points_of(graph.metric, each, graph.width) for each in (queries, vectors)]
    costs, places = faiss.knn(*points, min(limit, len(rows)), measure_of(graph.metric))
    if graph.metric != "l2":
        costs = -costs
    return [(rows[at], cost) for at, cost in zip(places, costs, strict=True)]
