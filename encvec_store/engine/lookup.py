"""List rows: all rows, rows that satisfy a predicate, or rows of ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..data.arrays import Rows
from ..data.filters import Predicate
from ..data.ids import Id
from ..errors import StaleConfigError, StoreUnreachableError
from ..runtime.concurrency import offload
from ..storage.portions import portions
from .session import Session

__all__ = ["find", "listed", "looks", "pages", "places"]

_ATTEMPTS = 4


def pages(session: Session, size: int, predicate: Callable[[], Predicate | None] | None = None) -> Iterator[Rows]:
    """Yield rows, ascending, up to `size` at a time, and only as many as `portions` allows.

    Raises StoreUnreachableError if they do not ascend.

    Args:
        session: the collection.
        size: the largest number of rows of a page.
        predicate: a function that makes the predicate, because it depends on the keys; None means all rows.
    """
    after = 0
    while len(rows := listed(session, predicate, after=after, limit=size)):
        after = int(rows[-1])
        yield from portions(session.records, rows, size)


def listed(
    session: Session,
    predicate: Callable[[], Predicate | None] | None = None,
    *,
    after: int = 0,
    limit: int | None = None,
) -> Rows:
    """List rows above `after`; `predicate` as in `pages`. Raises StoreUnreachableError if they do not ascend."""
    if predicate is None:
        rows = session.records.rows(after=after, limit=limit)
    else:
        rows = _under_one_key(session, lambda: session.records.rows(predicate(), after=after, limit=limit))
    if (np.diff(rows, prepend=after) <= 0).any():
        raise StoreUnreachableError("the store lists its records out of order: it is damaged")
    return rows


def find(session: Session, ids: Sequence[Id]) -> Rows:
    """Return the rows of those ids that exist, ascending, also under disabled key versions."""

    def look() -> Rows:
        tokens = offload(len(ids), session.keyring.tokens, ids, held=True)
        last = session.keyring.primary  # records are sealed anew under the primary: looked for before and after that
        rows = np.unique([session.records.find(tokens[v]) for v in sorted(tokens, key=lambda v: v == last)])
        return rows[rows > 0]

    return _under_one_key(session, look, lambda rows: len(rows) >= len(ids))


def places(session: Session, ids: Sequence[Id]) -> Rows:
    """Return the row of each id, or 0, under any live key version."""

    def look() -> Rows:
        found = np.zeros(len(ids), np.int64)
        under = list(offload(len(ids), session.keyring.tokens, ids).values())
        for tokens in under if len(under) < 2 else [*under, under[0]]:  # again the primary's, as for `find`
            missing = found == 0
            if len(ids) and missing.any():
                found[missing] = session.records.find(tokens[missing])
        return found

    return _under_one_key(session, look, lambda rows: bool(rows.all()))


def _under_one_key(
    session: Session, look: Callable[[], Rows], complete: Callable[[Rows], bool] = lambda _: False
) -> Rows:
    """Look for rows by tokens or terms, which depend on keys. Look again if the keys changed meanwhile.

    Without this, a record that is encrypted anew between the two steps would seem to be missing.

    Args:
        session: the collection.
        look: makes the tokens or terms and asks the store.
        complete: returns True if no row can be missing.
    """
    for _ in range(_ATTEMPTS):
        before = session.config.rewritten, session.keyring.live
        rows = look()
        if complete(rows) or (session.refresh().rewritten, session.keyring.live) == before:
            return rows
    raise StaleConfigError("the collection was encrypted anew again and again meanwhile; try again")


def looks(session: Session, most: int) -> Iterator[None]:
    """Yield for each look at rows that may vanish before they are read.

    Raises what `Session.never_whole` returns, after `most` looks.
    """
    yield
    since = session.records.generation()
    for _ in range(most - 1):
        yield
    raise session.never_whole(since)
