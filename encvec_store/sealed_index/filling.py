"""Fills columns: from what is stored of them, and by opening payloads."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data.arrays import Rows
from ..errors import AuthenticationError, KeyUnavailableError
from ..runtime.concurrency import offload
from ..storage.portions import portions
from ..storage.protocol import union
from .columns import FieldColumns
from .rowsets import is_among
from .state import Snapshot

if TYPE_CHECKING:
    from .index import Opener, SealedIndex

__all__ = ["RowSource", "fill"]

_AT_ONCE = 4_096
_FEW = 256
"""So many payloads are opened sooner than a stored block is read."""


@dataclass(frozen=True, eq=False)
class RowSource:
    """Where the metadata of rows comes from, for columns that are stored."""

    opener: Opener
    held: FieldColumns
    """Columns in memory, which need not be complete."""

    def add(self, columns: FieldColumns, rows: Rows) -> None:
        """Add the metadata of rows, which ascend, to columns."""
        known = self.held.block(rows)
        columns.adopt(known, rows)
        _open(self.opener, columns, rows[~is_among(rows, columns.rows)])


def fill(opener: Opener, index: SealedIndex, state: Snapshot) -> None:
    """See to it that the columns of an index know all rows of a state.

    Raises what `Session.open_payloads` does, except for single rows that do not open: these pass every filter.
    """
    columns = index.columns
    missing = columns.missing(state)
    if len(missing) > _FEW and index.shelf is not None:
        index.shelf.fill(opener.records, opener.keyring, columns, missing)
        missing = columns.missing(state)
    _open(opener, columns, missing)


def _open(opener: Opener, columns: FieldColumns, rows: Rows) -> None:
    """Open the payloads of rows, ascending, and add their metadata to columns."""

    def add(some: Rows) -> Rows:
        found, payloads, _ = opener.open_payloads(some)
        offload(len(found), columns.add, found, [metadata for _, metadata, _ in payloads])
        return found

    for part in portions(opener.records, rows, _AT_ONCE):
        found: list[Rows] = []
        try:
            found.append(add(part))
        except (AuthenticationError, KeyUnavailableError):
            for at in range(len(part)):
                with suppress(AuthenticationError, KeyUnavailableError):
                    found.append(add(part[at : at + 1]))
        columns.skip(np.setdiff1d(part, union(found)))
