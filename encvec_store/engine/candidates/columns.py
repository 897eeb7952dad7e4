"""Filters by columns in memory, over what records hold sealed."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from ...data.arrays import Rows
from ...data.filters import Filter
from ...errors import AuthenticationError, KeyUnavailableError
from ...runtime.concurrency import offload
from ...sealed_index import BUDGET, Filtered, SealedIndex, Snapshot
from ...storage.protocol import union
from .. import lookup
from ..session import Session

__all__ = ["passing"]

_AT_ONCE = 4_096


def passing(session: Session, index: SealedIndex, state: Snapshot, node: Filter) -> Filtered:
    """Return the rows of a state that satisfy a filter. Payloads of rows that are new are opened, all the first time.

    Raises what `Session.open_payloads` does, except for single rows that do not open: these pass.
    """
    columns = index.columns
    columns.want(node)
    if len(columns.missing(state)):
        # a caller with a time limit must not stop it: the next one would begin it again
        index.filling.during(_fill, session, index, state)
        BUDGET.make_room(index)
    columns.cover(state)
    return offload(columns.count, columns.passing, node)


def _fill(session: Session, index: SealedIndex, state: Snapshot) -> None:
    columns = index.columns
    for rows in lookup.portions(session, columns.missing(state), _AT_ONCE):
        found: list[Rows] = []
        try:
            found.append(_add(session, index, rows))
        except (AuthenticationError, KeyUnavailableError):
            for at in range(len(rows)):
                with suppress(AuthenticationError, KeyUnavailableError):
                    found.append(_add(session, index, rows[at : at + 1]))
        columns.skip(np.setdiff1d(rows, union(found)))


def _add(session: Session, index: SealedIndex, rows: Rows) -> Rows:
    found, payloads, _ = session.open_payloads(rows)
    offload(len(found), index.columns.add, found, [metadata for _, metadata, _ in payloads])
    return found
