"""Read a collection as it is at one moment, whatever others write meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..indexes.exact import ExactIndex
from .session import Session

__all__ = ["frozen"]


@contextmanager
def frozen(session: Session) -> Iterator[Session]:
    """Give a session that reads the records, settings and blobs as they are now. Use it in one thread, for reads only.

    Raises:
        AuthenticationError: the settings are older than those that the session has seen.
    """
    session.refresh()
    with session.records.frozen() as records:
        held = Session(records, ExactIndex(records), session.keyring)
        held.config.check_follows(session.config)
        yield held
