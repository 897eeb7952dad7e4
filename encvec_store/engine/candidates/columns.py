"""Filters by columns in memory, over what records hold sealed."""

from __future__ import annotations

from ...data.filters import Filter
from ...runtime.concurrency import offload
from ...sealed_index import BUDGET, Filtered, SealedIndex, Snapshot, fill
from ..session import Session

__all__ = ["passing"]


def passing(session: Session, index: SealedIndex, state: Snapshot, node: Filter) -> Filtered:
    """Return the rows of a state that satisfy a filter. Columns of rows that are new are filled first.

    Raises what `Session.open_payloads` does, except for single rows that do not open: these pass.
    """
    columns = index.columns
    columns.want(node)
    if len(columns.missing(state)):
        # a caller with a time limit must not stop it: the next one would begin it again
        index.filling.during(fill, session, index, state)
        BUDGET.make_room(index)
    columns.cover(state)
    return offload(columns.count, columns.passing, node)
