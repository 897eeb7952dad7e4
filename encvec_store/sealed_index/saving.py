"""Keeps the parts of a sealed index in the record store: loads them, saves what is new, and swaps manifests.

Each key version has a manifest and segments of its own, so that destroying a version leaves nothing that opens.
Segments are written first, each under a new random name. Then one small transaction swaps the manifest, if it is still
the one that was read, and deletes the segments that it no longer names. After a crash in between, the store has
segments that no manifest names: the next save deletes them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np

from ..data.arrays import Rows
from ..errors import AuthenticationError, KeyUnavailableError
from ..runtime.concurrency import offload
from ..sealing.keyring import INDEX, Keyring
from ..storage.protocol import Followed
from . import manifest as manifests
from . import segments
from .arrays import Array
from .blocks import are_stored
from .column_shelf import ColumnShelf
from .columns import FieldColumns
from .filling import RowSource
from .kinds import restored
from .lease import lease_name
from .manifest import Manifest, StoredGraph
from .ondemand import blocks_of, is_moved
from .segments import MissingSegmentError, Segment
from .state import Indexed, Snapshot

__all__ = ["Shelf"]

log = logging.getLogger("encvec_store")

_ATTEMPTS = 4
_PARTS_AT_ONCE = 4
"""Parts of a segment written by one transaction: other writers wait for it."""
_ROWS = "rows"
_CODES_AT_ONCE = 200_000
"""Rows of one segment of codes, at most: memory for one copy of them is needed while they are sealed."""


class Shelf:
    """The place of one collection's sealed index in its record store.

    Args:
        metric: the collection's.
        dim: coordinates of a vector.
        fields: False if records have no metadata.
    """

    def __init__(self, metric: str, dim: int, *, fields: bool = True) -> None:
        self._fields = fields
        self.metric, self.dim = metric, dim
        self._known: dict[int, tuple[Manifest, bytes]] = {}
        """By key version, the manifest that memory agrees with, and its stored bytes."""
        self._highest: dict[int, int] = {}
        """By key version, the largest number of a manifest that was seen."""
        self._broken: set[bytes] = set()
        """Manifests that could not be read, or whose segments could not: they are replaced."""
        self._cleared: set[int] = set()
        """Destroyed key versions of which nothing is left in the store."""
        self.columns = ColumnShelf()
        self.damaged = False
        """True if a block is damaged of a graph that is in memory."""
        self.refused = False
        """True once the store refused a write: this role, or this process, may only read."""

    def load(self, records: Followed, keyring: Keyring, only: AbstractSet[int] | None = None) -> tuple[Indexed, ...]:
        """Return the stored parts of all live key versions, or only of some.

        What cannot be read is left out, with a line in the log.
        """
        parts: list[Indexed] = []
        if only is None:
            self._known.clear()
        for version in (each for each in keyring.live if only is None or each in only):
            found = self._loaded(records, keyring, version)
            if found is not None:
                listed, raw, made = found
                self._known[version] = listed, raw
                self._highest[version] = listed.number
                parts.extend(made)
        return tuple(parts)

    def agreed(self, records: Followed, parts: tuple[Indexed, ...]) -> tuple[int, int, int] | None:
        """Return the moment that loaded parts are of, if they are of all records and nothing was written since."""
        held = sum(len(part.rows) for part in parts)
        return manifests.moment_of(records, [listed for listed, _ in self._known.values()], held)

    def better(self, records: Followed, keyring: Keyring, state: Snapshot) -> bool:
        """Say whether another process has stored graphs of more rows than memory has."""
        count, news = 0, False
        for version in keyring.live:
            raw = records.blob(manifests.name_of(version))
            known, held = self._known.get(version, (None, None))
            if raw is None and known is not None:  # deleted with its segments: the scheme was changed, and changed back
                del self._known[version]
                continue
            if raw is not None and raw != held and raw not in self._broken:
                found = self._read(records, keyring, version)
                if found is not None and found[0].number >= self._highest.get(version, 0):
                    known, news = found[0], True
            count += sum(part.count for part in known.parts) if known is not None else 0
        return news and count >= sum(len(part.rows) for part in state.parts if part.kept)

    def manifests(self, records: Followed, keyring: Keyring) -> list[tuple[Manifest, bytes]]:
        """Return the stored manifests and their stored bytes, without those that cannot be read."""
        found = [self._read(records, keyring, version) for version in keyring.live]
        return [each for each in found if each is not None]

    def outdated(self, state: Snapshot) -> bool:
        """Say whether the stored manifests differ from the state."""
        if any(part.kept and part.stored is not None and part.version not in self._known for part in state.parts):
            return True
        return any(
            _differs(listed, tuple(part.stored for part in state.parts if part.kept and part.version == version), state)
            or not self.columns.broken.isdisjoint(segment.name for segment in listed.columns)
            for version, (listed, _) in self._known.items()
        )

    def unsaved(self, state: Snapshot) -> int:
        """Count vectors of graphs that are not stored."""
        return sum(part.graph.count - (part.stored.count if part.stored else 0) for part in state.parts if part.kept)

    def save(self, records: Followed, keyring: Keyring, state: Snapshot, source: RowSource) -> tuple[Snapshot, bool]:
        """Store what is new. Returns the state with its parts as stored; False if another process stored meanwhile.

        Args:
            records: the collection's.
            keyring: seals the segments.
            state: what is stored.
            source: of the metadata.

        Raises:
            StoreError: the store cannot be written.
        """
        parts = [part if part.version in self._known else replace(part, stored=None) for part in state.parts]
        moved = [blocks_of(part) for part in parts if is_moved(part)]  # until they are written anew
        for version in keyring.live:
            mine = [
                place
                for place, part in enumerate(parts)
                if part.kept and part.version == version and not is_moved(part)
            ]
            if (not mine and version not in self._known) or any(
                blocks and blocks.version == version for blocks in moved
            ):
                continue
            made = [self._stored(records, keyring, parts[place]) for place in mine]
            old = self._known[version][0].columns if version in self._known else ()
            write = partial(self._write, records, keyring, version)
            columns = self.columns.saved(records, keyring, old, made, source, write) if self._fields else ()
            swapped = self._swapped(records, keyring, version, made, columns, state)
            for place, part in zip(mine, made, strict=True):
                # if another process was faster, it may have deleted any segment that its manifest does not name
                parts[place] = part if swapped else replace(part, stored=None)
            if not swapped:
                self._known.pop(version, None)
                return replace(state, parts=tuple(parts)), False
        return replace(state, parts=tuple(parts)), True

    def fill(self, records: Followed, keyring: Keyring, columns: FieldColumns, wanted: Rows) -> None:
        """Add to columns what is stored of some rows, which ascend. What cannot be read is left out."""
        for version in keyring.live:
            listed: tuple[Segment, ...] = ()
            for _ in range(_ATTEMPTS):
                found = self._read(records, keyring, version)
                if found is None or found[0].generation > records.generation():  # see `_loaded`
                    break
                listed = found[0].columns
                with suppress(MissingSegmentError):  # another process stored a newer manifest meanwhile
                    self.columns.fill(records, keyring, listed, columns, wanted)
                    break
            else:
                self.columns.give_up(listed, "a segment is missing")

    def accept(self, records: Followed, keyring: Keyring) -> None:
        """Take note of the manifests that others stored, so that the next save may replace them."""
        for version in keyring.live:
            found = None if version in self._known else self._read(records, keyring, version)
            if found is not None:
                self._known[version], self._highest[version] = found, found[0].number

    def clear(self, records: Followed, keyring: Keyring) -> None:
        """Delete what cannot be read, and what lies under destroyed key versions.

        Raises StoreError: the store cannot be written.
        """
        for version in keyring.live if self._broken else ():
            name = manifests.name_of(version)
            raw = records.blob(name)
            if raw is not None and raw in self._broken:
                records.keep(drop=[name, *self._segments_of(records, version)], expect={name: raw})
        destroyed = keyring.destroyed - self._cleared
        if not destroyed:
            return
        texts = set(map(str, destroyed))
        names = [name for name in records.blobs(f"{INDEX}.") if name.split(".")[1] in texts]
        if names:
            records.keep(drop=names)
        for version in destroyed:
            self._known.pop(version, None)
        self._cleared |= destroyed

    def _segments_of(self, records: Followed, version: int) -> list[str]:
        """Return the names of all stored segments of a key version, also of those that no manifest names."""
        names = records.blobs(f"{manifests.name_of(version)}.")
        return [name for name in names if name != lease_name(version)]

    def _loaded(
        self, records: Followed, keyring: Keyring, version: int
    ) -> tuple[Manifest, bytes, list[Indexed]] | None:
        raw = b""
        for _ in range(_ATTEMPTS):
            found = self._read(records, keyring, version)
            if found is None:
                return None
            listed, raw = found
            if listed.generation > records.generation():  # of records that are not there: rows may be used again
                self._give_up(raw, "it is newer than the records")
                return None
            if listed.number < self._highest.get(version, 0):
                log.warning("an older sealed index was put back; what it lacks is read from the records")
            try:
                return listed, raw, [self.part(records, keyring, version, entry) for entry in listed.parts]
            except MissingSegmentError:  # another process stored a newer manifest meanwhile
                continue
            except KeyUnavailableError:
                return None
            except (AuthenticationError, ValueError) as error:
                self._give_up(raw, error)
                return None
        self._give_up(raw, "a segment is missing")
        return None

    def give_up(self, records: Followed, keyring: Keyring) -> None:
        """Have the stored graphs whose codes are in blocks built anew: one of these is damaged."""
        for version, (listed, raw) in list(self._known.items()):
            fetches = any(part.blocks is not None for part in listed.parts)
            if fetches and records.blob(manifests.name_of(version)) == raw:
                self._give_up(raw, "one of its blocks is damaged or missing")
                del self._known[version]
                self.damaged = True

    def _give_up(self, raw: bytes, reason: object) -> None:
        self._broken.add(raw)
        log.warning("the sealed index is built anew from the records: %s", reason)

    def _read(self, records: Followed, keyring: Keyring, version: int) -> tuple[Manifest, bytes] | None:
        raw = records.blob(manifests.name_of(version))
        if raw is None or raw in self._broken:
            return None
        try:
            found = manifests.read(records, keyring, version)
        except KeyUnavailableError:
            return None
        except AuthenticationError as error:
            self._give_up(raw, error)
            return None
        if found is None:
            self._broken.add(raw)
        elif (found[0].dim, found[0].metric) != (self.dim, self.metric):
            self._give_up(found[1], "its dimension or metric differs")
            return None
        return found

    def part(self, records: Followed, keyring: Keyring, version: int, entry: StoredGraph) -> Indexed:
        """Return a stored graph.

        Raises:
            MissingSegmentError: another process has stored a newer manifest.
            AuthenticationError: a segment was altered, moved or swapped.
            KeyUnavailableError: its key version is disabled or destroyed.
            ValueError: its arrays do not fit together.
        """
        codes = [segments.opened(records, keyring, segment) for segment in entry.codes]
        structure = segments.opened(records, keyring, entry.structure)
        rows = np.concatenate([each.pop(_ROWS) for each in codes]) if codes else np.empty(0, np.int64)
        if len(rows) != entry.count or rows.dtype != np.int64 or (rows[1:] <= rows[:-1]).any():
            raise ValueError("its rows do not ascend, or are of another number")
        graph = offload(len(rows), restored, entry.kind, self.metric, self.dim, codes, structure, entry.blocks)
        return Indexed(version, graph, rows, stored=entry)

    def _stored(self, records: Followed, keyring: Keyring, part: Indexed) -> Indexed:
        """Write the segments that a part lacks."""
        old, count = part.stored, part.graph.count
        if old is not None and old.count == count:
            return part
        codes = list(old.codes) if old is not None else []
        for start in range(old.count if old is not None else 0, count, _CODES_AT_ONCE):
            stop = min(start + _CODES_AT_ONCE, count)
            coded = {} if blocks_of(part) is not None else part.graph.codes(start, stop)
            arrays = {_ROWS: part.rows[start:stop], **coded}
            codes.append(self._write(records, keyring, part.version, arrays, stop - start))
        structure = self._write(records, keyring, part.version, part.graph.structure(), count)
        return replace(part, stored=StoredGraph(part.graph.kind, tuple(codes), structure, count, blocks_of(part)))

    def _write(self, records: Followed, keyring: Keyring, version: int, arrays: Mapping[str, Array], n: int) -> Segment:
        segment, parts = segments.sealed(keyring, version, arrays, n)
        for _ in range(0, segment.parts, _PARTS_AT_ONCE):
            records.keep(islice(parts, _PARTS_AT_ONCE))
        return segment

    def _swapped(
        self,
        records: Followed,
        keyring: Keyring,
        version: int,
        parts: list[Indexed],
        columns: tuple[Segment, ...],
        state: Snapshot,
    ) -> bool:
        """Store a manifest that names these parts and columns, and delete segments that it does not name."""
        before, raw = self._known.get(version, (None, None))
        if before is None:
            raw = records.blob(manifests.name_of(version))
            if raw is not None and raw not in self._broken and self._read(records, keyring, version) is not None:
                return False  # another process was faster
        entries = tuple(part.stored for part in parts if part.stored is not None)
        if before is not None and before.columns == columns and not _differs(before, entries, state):
            return True
        number = 1 + max(self._highest.get(version, 0), before.number if before else 0)
        covered = max(0, state.generation), state.content, state.stamp
        listed = Manifest(version, number, self.dim, self.metric, *covered, entries, columns, state.complete)
        name, blob = manifests.name_of(version), manifests.seal(keyring, listed)
        named = {segment.name for segment in listed.segments}
        named_before = before.parts if before is not None else ()
        if not are_stored(records, {part.blocks for part in entries} - {part.blocks for part in named_before}):
            return False  # another process has deleted them, because its manifest does not name them
        theirs = [other for other in self._segments_of(records, version) if other not in named]
        if not records.keep([(name, 0, blob)], drop=theirs, expect={name: raw}):
            return False
        self._known[version] = listed, blob.content
        self._highest[version] = number
        return True


def _differs(listed: Manifest, parts: tuple[StoredGraph | None, ...], state: Snapshot) -> bool:
    """Say whether a manifest must be stored anew: for other parts, or because nobody knew yet of which state it is."""
    return listed.parts != parts or listed.generation <= 0 < state.generation
