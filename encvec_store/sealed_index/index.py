"""The sealed index of one collection: it follows the records, and names candidates.

Nobody tells it about a write. Before it answers, it asks the records what changed since its state, as every follower of
a change table does. So writes of this process and of others take one path, in the order of their commits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from ..data.arrays import Bytes, Matrix, Rows
from ..data.filters import Predicate
from ..data.metrics import Metric
from ..errors import StoreUnreachableError, TenantErasedError
from ..runtime.concurrency import Lock, offload
from ..sealing.codec import Decoded
from ..sealing.keyring import Keyring
from ..storage.protocol import BUSY, Changes, Followed
from .blocks import BlockCache
from .budget import BUDGET, Holder
from .columns import FieldColumns
from .following import not_held, readable_rows
from .gpu import Gpus
from .halves import Halves
from .kinds import build
from .ondemand import blocks_of
from .rowsets import is_among, places_of
from .saving import Shelf
from .state import Indexed, Snapshot, apart, are_all_in, in_order, others, resealed
from .tail import Tail, is_wide

__all__ = ["COARSE", "Opener", "SealedIndex"]

_CHUNK = 8192
_ATTEMPTS = 32
COARSE = 20_000
"""A longer tail gets a coarse index, which is quick to build."""
_BLOCKS = 16
"""Opened blocks may take at least this part of all memory."""
_UNKNOWN = -1, 0, 0
"""Generation, content and stamp of a state that must be compared with all records."""


class Opener(Protocol):
    """What an index needs of an open collection."""

    @property
    def records(self) -> Followed:
        """What is followed."""
        ...

    keyring: Keyring

    def open_vectors(
        self, rows: Rows, *, sent: tuple[Rows, Bytes] | None = None
    ) -> tuple[Rows, Matrix, npt.NDArray[np.uint8]]:
        """Fetch and open exact vectors: (found rows in order, (m, dim) vectors, tokens and headers).

        Args:
            rows: (n,) rows.
            sent: what `records.vectors` has given for these rows and others, ascending.
        """
        ...

    def open_payloads(self, rows: Rows) -> tuple[Rows, list[Decoded], list[bytes]]:
        """Fetch and open payloads: (found rows, their contents, tokens and headers)."""
        ...


class SealedIndex:
    """An index over opened vectors, in memory. Threads may search it while others update it.

    Args:
        metric: the collection's.
        dim: coordinates of a vector.
        shelf: keeps it in the record store; None for an index that lives in memory only.
        device: `cpu`, `cuda` or `auto`: where graphs are searched.
    """

    def __init__(self, metric: Metric, dim: int, shelf: Shelf | None = None, device: str = "cpu") -> None:
        self.gpus = Gpus(device)
        self.columns, self.halves, self.filling = FieldColumns(), Halves(metric, dim), Lock()
        self.beside: WeakSet[Holder] = WeakSet()
        """What searches keep in memory beside the index. It counts as the index's."""
        self.blocks = BlockCache()
        self.metric, self.dim, self.shelf = metric, dim, shelf
        self._state: Snapshot | None = None
        self._history, self._newest = 0, -1
        """See `Snapshot.history`, and the generation that was followed last."""
        self._lock = Lock()

    @property
    def state(self) -> Snapshot | None:
        """What is known, however old it is; None before the first use."""
        return self._state

    @property
    def bytes(self) -> int:
        """The memory held."""
        state = self._state
        more = self.columns.bytes + self.halves.bytes + self.blocks.bytes + sum(each.bytes for each in self.beside)
        return more + (0 if state is None else state.bytes)

    @property
    def room(self) -> int:
        """The memory that blocks may take."""
        return max(BUDGET.limit // _BLOCKS, BUDGET.limit - BUDGET.others(self) - self.bytes + self.blocks.bytes)

    def shrink(self, excess: int) -> None:
        """Drop blocks, which are quickly fetched again."""
        self.blocks.shrink(max(0, self.blocks.bytes - excess))

    def forget(self) -> None:
        """Drop everything in memory. It is loaded again at the next use."""
        self._state = None
        self._forget_beside()

    def _forget_beside(self) -> None:
        self.columns.forget()
        self.halves.forget()
        for each in list(self.beside):
            each.forget()
        self.blocks.shrink(0)

    def current(
        self, opener: Opener, predicate: Predicate | None = None, *, stale: bool = False
    ) -> tuple[Snapshot, Rows | None]:
        """Return the state, no older than this call, and the rows that satisfy a predicate, as of the same moment.

        If the caller knows that the state is `stale`, nobody asks again whether it is.

        Raises StoreUnreachableError if records were updated each time, after they were listed.
        """
        state, dead = self._state, frozenset(opener.keyring.dead)
        if state is not None and state.dead == dead and not stale:
            allowed: Rows | None = None
            if predicate is None:
                same = opener.records.generation() == state.generation
            else:
                changes, allowed = opener.records.following(state.generation, state.content, predicate)
                same = changes is None
            if same:
                return state, allowed
        # a caller with a time limit must not stop the load: the next one would begin it again
        state, allowed = self._lock.during(self._updated, opener, predicate)
        try:
            opener.keyring.live  # noqa: B018 - it may have been erased since, and then nothing may stay in memory
        except TenantErasedError:
            self.forget()
            raise
        BUDGET.make_room(self)
        return state, allowed

    def doubt(self, state: Snapshot) -> None:
        """Have the next use compare a state with all records: rows are gone of which no change tells."""
        with self._lock:
            if self._state is state:
                self._state = replace(state, generation=_UNKNOWN[0], content=_UNKNOWN[1])

    def reload(self, opener: Opener) -> None:
        """Take over what another process has stored. Rows that are not in it are opened again."""
        if self.shelf is None:
            return
        with self._lock:
            parts, state = self.shelf.load(opener.records, opener.keyring), self._state
            tail = Tail.empty(self.metric, self.dim) if state is None else state.tail
            for part in parts:
                tail = tail.without(part.rows)
            self._state = Snapshot(*_UNKNOWN, frozenset(), parts, tail, self._history)
            for _ in range(_ATTEMPTS):
                if self._update(opener, None)[1]:
                    break

    def load(self, opener: Opener) -> None:
        """Load what is stored, if nothing is in memory or it is damaged. The next use compares it with the records."""
        with self._lock:
            if self.shelf is not None and self.shelf.damaged:
                self.shelf.damaged, self._state = False, None
            if self._state is None:
                self._state = self._stored(opener)

    def missing(self, opener: Opener) -> dict[int, Rows]:
        """Return the rows, by key version, that are neither in a graph nor in the tail. They are not opened."""
        with self._lock:
            state, dead = self._state or self._stored(opener), frozenset(opener.keyring.dead)
            since = (state.generation, state.content) if dead == state.dead else _UNKNOWN[:2]
            changes = opener.records.changes(*since)
            return dict(not_held(readable_rows(changes, dead), state.parts, state.tail))

    def adopt(self, old: tuple[Indexed, ...], part: Indexed) -> None:
        """Put a part that was made from records in the place of old parts. The next use compares it with the records.

        If searches have opened its rows meanwhile, these leave the tail, and a coarse index that holds them is dropped.
        """
        with self._lock:
            state = self._state
            if state is None or not are_all_in(old, state.parts):
                return  # see `publish`
            left = others(state.parts, old)
            parts = tuple(each for each in left if each.kept or not len(places_of(each.rows, part.rows)))
            tail = offload(state.tail.count, state.tail.without, part.rows)
            self._state = Snapshot(*_UNKNOWN, state.dead, in_order((*parts, part)), tail, self._history)
        BUDGET.make_room(self)

    def noted(self, saved: Snapshot) -> None:
        """Note where the parts of a state lie in the store."""
        places = {id(part.graph): part.stored for part in saved.parts}
        with self._lock:
            if self._state is not None:
                parts = tuple(
                    replace(part, stored=places.get(id(part.graph), part.stored)) for part in self._state.parts
                )
                self._state = replace(self._state, parts=parts)

    def publish(self, old: tuple[Indexed, ...], new: tuple[Indexed, ...]) -> None:
        """Put new parts in the place of old ones. Rows of the tail that they hold leave it.

        Writes that were followed meanwhile are applied to the new parts.
        """
        with self._lock:
            state = self._state
            if state is None:  # it was dropped meanwhile, to make room for another one
                return
            if not are_all_in(old, state.parts):
                return  # they were dropped, and loaded again, or their records were sealed anew: build from these
            kept = others(state.parts, old)
            gone = [part for part in state.parts if part not in kept]
            here = np.sort(np.concatenate([state.tail.rows, *(part.living_rows for part in gone)]))
            parts = tuple(offload(len(part.rows), part.only, here) for part in new)
            held = np.sort(np.concatenate([part.rows for part in parts])) if parts else np.empty(0, np.int64)
            offload(state.tail.count, self.halves.take, state.tail, held)
            tail = offload(state.tail.count, state.tail.without, held)
            self._state = replace(state, parts=in_order(kept + parts), tail=tail)
        BUDGET.make_room(self)

    def _updated(self, opener: Opener, predicate: Predicate | None) -> tuple[Snapshot, Rows | None]:
        for _ in range(_ATTEMPTS):
            state, whole, allowed = self._update(opener, predicate)
            if whole:
                return state, allowed
            # otherwise some records were updated after they were listed: look again
        raise StoreUnreachableError(BUSY)

    def _update(self, opener: Opener, predicate: Predicate | None) -> tuple[Snapshot, bool, Rows | None]:
        """Follow the records once: (state, False if rows vanished before they were opened, the allowed rows)."""
        dead, state, allowed = frozenset(opener.keyring.dead), self._state, None
        self.columns.follow(dead)
        self.halves.follow(dead)
        if state is None:
            state = self._stored(opener)
        elif self.shelf is not None and state.dead - dead:  # key versions were enabled again
            held = {part.version for part in state.parts}
            back = self.shelf.load(opener.records, opener.keyring, state.dead - dead - held)
            state = replace(state, parts=state.parts + back)
        since = (state.generation, state.content) if dead == state.dead else _UNKNOWN[:2]
        if predicate is None:
            changes = opener.records.changes(*since)
        else:
            changes, allowed = opener.records.following(*since, predicate)
        if changes is None:
            self._state, self._newest = state, state.generation
            return state, True, allowed
        if changes.index_dim is None:
            opener.records.generation()  # says that the collection is gone
        if changes.generation < self._newest:  # an older state was put back: nothing in memory belongs to it
            self._history += 1
            self._forget_beside()
            state = self._stored(opener)
        self._newest = changes.generation
        readable = readable_rows(changes, dead)
        parts, tail = self._kept(state, changes, readable, opener)
        new = not_held(readable, parts, tail)
        parts, tail, whole = self._opened(opener, new, changes.sent, parts, tail)
        followed = changes.generation, changes.content, changes.stamp
        self._state = Snapshot(*followed, dead, in_order(parts), tail, self._history)
        opened = (blocks_of(part) for part in parts if part.version not in dead)
        self.blocks.keep_only({blocks.name for blocks in opened if blocks is not None})
        return self._state, whole, allowed

    def _stored(self, opener: Opener) -> Snapshot:
        shelf, dead = self.shelf, frozenset(opener.keyring.dead)
        parts = () if shelf is None else shelf.load(opener.records, opener.keyring)
        moment = None if shelf is None else shelf.agreed(opener.records, parts)
        if moment is None or moment[0] < self._newest:
            moment = _UNKNOWN
        return Snapshot(*moment, dead, parts, Tail.empty(self.metric, self.dim), self._history)

    def _kept(
        self, state: Snapshot, changes: Changes, readable: list[tuple[int, Rows]], opener: Opener
    ) -> tuple[tuple[Indexed, ...], Tail]:
        """Return what is left of parts and tail."""
        parts, tail = state.parts, state.tail
        if not changes.whole:
            if not len(changes.removed):
                return parts, tail
            return tuple(part.without(changes.removed) for part in parts), tail.without(changes.removed)
        here = np.sort(np.concatenate([np.empty(0, np.int64), *(rows for _, rows in readable)]))
        destroyed = opener.keyring.destroyed
        parts = tuple(resealed(part, readable) for part in parts)
        parts = tuple(offload(len(part.rows), part.only, here) for part in parts if part.version not in destroyed)
        parts = apart(parts)
        tail = offload(tail.count, tail.only, here)
        if destroyed:
            tail = tail.cleared()  # nothing of a destroyed version may stay in memory
        versions = tail.versions.copy()
        for version, rows in readable:
            versions[is_among(tail.rows, rows)] = version
        tail = tail.resealed(versions)
        return parts, tail

    def _opened(
        self,
        opener: Opener,
        new: list[tuple[int, Rows]],
        sent: tuple[Rows, Bytes] | None,
        parts: tuple[Indexed, ...],
        tail: Tail,
    ) -> tuple[tuple[Indexed, ...], Tail, bool]:
        """Open new rows, for the tail, or for a coarse index where they are many."""
        whole = True
        for version, rows in new:
            coarse: Indexed | None = None
            many = len(rows) > COARSE and not tail.wide
            for start in range(0, len(rows), COARSE if many else _CHUNK):
                asked = rows[start : start + (COARSE if many else _CHUNK)]
                found, vectors, _ = opener.open_vectors(asked, sent=sent)
                whole &= len(found) == len(asked)
                if not len(found):
                    continue
                if many and not is_wide(self.metric, vectors):
                    coarse = offload(len(found), self._coarser, coarse, version, found, vectors)
                else:
                    tail = offload(len(found), tail.with_more, found, np.full(len(found), version), vectors)
            if coarse is not None:
                parts = (*parts, coarse)
        return parts, tail, whole

    def _coarser(self, coarse: Indexed | None, version: int, rows: Rows, vectors: Matrix) -> Indexed:
        if coarse is None:
            return Indexed(version, build("ivf", self.metric.name, vectors), rows, kept=False)
        return replace(coarse, graph=coarse.graph.extended(vectors), rows=np.concatenate([coarse.rows, rows]))
