"""Vectors in half precision, so that candidates are ranked in this process and the store sees only the hits."""

from __future__ import annotations

import numpy as np

from ...data.arrays import Rows
from ...errors import AuthenticationError, KeyUnavailableError
from ...runtime.concurrency import offload
from ...sealed_index import BUDGET, Filling, Halves, SealedIndex, Snapshot
from ..session import Session

__all__ = ["halves_of"]

_AT_ONCE = 8_192


def halves_of(session: Session, index: SealedIndex, state: Snapshot) -> Halves | None:
    """Return what ranks the rows of a state; None if there is no memory for it. Rows that are new are opened.

    They are read in the order of their numbers, which no query changes.
    """
    halves = index.halves
    missing = halves.missing(state)
    if len(missing):
        if index.bytes + halves.memory(len(missing)) > BUDGET.limit:
            return None
        # a caller with a time limit must not stop it: the next one would begin it again
        index.filling.during(_fill, session, index, state)
        BUDGET.make_room(index)
    return halves


def _fill(session: Session, index: SealedIndex, state: Snapshot) -> None:
    halves = index.halves
    rows = halves.missing(state)
    filling, lost = halves.begin(len(rows)), []
    for start in range(0, len(rows), _AT_ONCE):
        asked = rows[start : start + _AT_ONCE]
        try:
            found = _write(session, filling, asked)
        except (AuthenticationError, KeyUnavailableError):
            found = asked[[_opens(session, filling, asked[at : at + 1]) for at in range(len(asked))]]
        lost.append(np.setdiff1d(asked, found))
    offload(len(rows), halves.add, filling)
    if lost:
        halves.skip(np.concatenate(lost))


def _write(session: Session, filling: Filling, rows: Rows) -> Rows:
    found, vectors, _ = session.open_vectors(rows)
    if len(found):
        offload(len(found), filling.write, found, vectors)
    return found


def _opens(session: Session, filling: Filling, row: Rows) -> bool:
    try:
        return bool(len(_write(session, filling, row)))
    except (AuthenticationError, KeyUnavailableError):
        return False
