"""Keeps columns of metadata as sealed segments: a process that filters then need not open all payloads.

A segment has the columns of a batch of rows, all of one key version, and never changes. Which rows go into which
segment depends on the number of rows only. A small one is merged into the next one that is not smaller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

import numpy as np

from ..data.arrays import Rows
from ..errors import AuthenticationError, KeyUnavailableError
from ..sealing.keyring import Keyring
from ..storage.protocol import Followed
from . import segments
from .arrays import Array
from .column_blocks import LEAST, arrays_of, block_of, rows_of, width_of
from .columns import Block, FieldColumns
from .filling import RowSource
from .rowsets import is_among
from .segments import MissingSegmentError, Segment
from .state import Indexed

__all__ = ["FULL", "ColumnShelf"]

log = logging.getLogger("encvec_store")

FULL = 200_000
"""Rows of the largest segment."""
Writing = Callable[[Mapping[str, Array], int], Segment]


class ColumnShelf:
    """The columns of one collection in its record store."""

    def __init__(self) -> None:
        self._rows: dict[str, Rows] = {}
        """Of segments that were read or written."""
        self.broken: set[str] = set()
        """Names of segments that could not be read: they are replaced."""

    def knows(self, segment: Segment) -> bool:
        """Return True if a segment was read or written, or could not be read."""
        return segment.name in self._rows or segment.name in self.broken

    def fill(
        self, records: Followed, keyring: Keyring, listed: tuple[Segment, ...], columns: FieldColumns, wanted: Rows
    ) -> None:
        """Add to columns what is stored of some rows, which ascend.

        Raises MissingSegmentError.
        """
        for segment in sorted(listed, key=lambda segment: -segment.count):
            if segment.name not in columns.seen:
                try:
                    block = self._block(records, keyring, segment)
                except KeyUnavailableError:
                    return
                columns.seen.add(segment.name)
                if block is not None:
                    columns.adopt(block, wanted)

    def saved(
        self,
        records: Followed,
        keyring: Keyring,
        old: tuple[Segment, ...],
        parts: list[Indexed],
        source: RowSource,
        write: Writing,
    ) -> tuple[Segment, ...]:
        """Return segments that cover the rows of these parts, and no others; new ones are written.

        Args:
            records: the collection's.
            keyring: opens the old segments.
            old: what is stored.
            parts: graphs of one key version.
            source: of rows that are in no old segment.
            write: writes a segment.
        """
        none = np.empty(0, np.int64)
        held_rows = np.sort(np.concatenate([none, *(part.rows for part in parts)]))
        living = np.sort(np.concatenate([none, *(part.living_rows for part in parts)]))
        kept: list[Segment] = []
        again: list[Segment] = []
        covered = none
        for segment in old:
            rows = self._rows_of(records, keyring, segment)
            if rows is not None:
                (kept if is_among(rows, held_rows).all() else again).append(segment)
                covered = np.concatenate([covered, rows])
        new = living[~is_among(living, np.sort(covered))]
        count = len(new) + sum(segment.count for segment in again)
        while count and (small := [each for each in kept if each.count < FULL and each.count <= count]):
            least = min(small, key=lambda each: each.count)
            kept.remove(least)
            again.append(least)
            count += least.count
        rows = np.sort(np.concatenate([new, *(self._rows[segment.name] for segment in again)]))
        rows = rows[is_among(rows, living)]
        width = max([LEAST, *(width_of(segment.size, segment.count) for segment in old)])
        made = list(kept)
        for start in range(0, len(rows), FULL):
            block = self._made(records, keyring, rows[start : start + FULL], again, source)
            if len(block.rows):
                made.append(write(arrays_of(block, width), len(block.rows)))
                self._rows[made[-1].name] = block.rows
        for name in {segment.name for segment in old} - {segment.name for segment in made}:
            self._rows.pop(name, None)
        return tuple(made)

    def give_up(self, some: Iterable[Segment], reason: object) -> None:
        """Note that segments cannot be read, and are to be replaced."""
        self.broken |= {segment.name for segment in some}
        for segment in some:
            self._rows.pop(segment.name, None)
        log.warning("stored columns of metadata are built anew from the records: %s", reason)

    def _made(self, records: Followed, keyring: Keyring, rows: Rows, again: list[Segment], source: RowSource) -> Block:
        """Return the columns of some rows, from segments and from their source."""
        columns = FieldColumns()
        for block in self._read(records, keyring, again):
            columns.adopt(block, rows)
        source.add(columns, rows[~is_among(rows, columns.rows)])
        return columns.block(rows)

    def _read(self, records: Followed, keyring: Keyring, some: list[Segment]) -> Iterator[Block]:
        for segment in some:
            with suppress(MissingSegmentError):  # its rows are opened
                block = self._block(records, keyring, segment)
                if block is not None:
                    yield block

    def _rows_of(self, records: Followed, keyring: Keyring, segment: Segment) -> Rows | None:
        """Return the rows of a segment; None if it cannot be read, or is gone."""
        if segment.name not in self._rows:
            with suppress(MissingSegmentError):
                self._opened(records, keyring, segment)
        return self._rows.get(segment.name)

    def _block(self, records: Followed, keyring: Keyring, segment: Segment) -> Block | None:
        arrays = self._opened(records, keyring, segment)
        try:
            return None if arrays is None else block_of(arrays)
        except ValueError as error:
            self.give_up([segment], error)
            return None

    def _opened(self, records: Followed, keyring: Keyring, segment: Segment) -> dict[str, Array] | None:
        if segment.name in self.broken:
            return None
        try:
            arrays = segments.opened(records, keyring, segment)
            self._rows[segment.name] = rows_of(arrays).copy()
        except (AuthenticationError, ValueError) as error:
            self.give_up([segment], error)
            return None
        return arrays
