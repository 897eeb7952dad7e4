"""Gets the index over opened vectors built: when it is due, and in the way that the store's mode says."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from ..engine.session import Session
from ..errors import EncvecError, StoreError
from ..runtime.concurrency import Lock
from ..sealed_index import FIRST, Builder, Index, Indexes
from ..sealing.keyring import INDEX
from .jobs import Job
from .rewrite import Progress

__all__ = ["Indexing"]

log = logging.getLogger("encvec_store")


class Indexing:
    """The work on one collection's index over opened vectors. It does nothing if the scheme has index vectors.

    Args:
        session: the collection.
        indexes: its index.
        job: runs one piece of work at a time.
        mode: "background", "inline" or "manual".
    """

    def __init__(self, session: Session, indexes: Indexes, job: Job, mode: str) -> None:
        self._session, self._indexes, self._job, self._mode = session, indexes, job, mode
        self.turn = Lock()
        """Whoever builds the index holds it."""
        self._written = 0
        """Records written since the index was last built."""
        self._wrote = False
        self._closed = False
        self._hinted = False

    def wrote(self, records: int) -> None:
        """Take note of a write, and have the index built if it is due."""
        self._written += records
        self._wrote = True
        if self._written > FIRST:
            self._start()

    def looked(self) -> None:
        """Take note of a search: records that other processes wrote may have to be indexed."""
        builder = self._index.builder
        if builder is not None and builder.wanted:
            self._start()

    def due(self) -> list[str]:
        """Return what is due, in words, as far as this process knows."""
        builder = self._index.builder
        return [] if builder is None else builder.due()

    def run(self, progress: Progress | None = None, *, thorough: bool = False, purge: bool = False) -> list[str]:
        """Build and store what is due. Returns what was done, in words.

        If the calling task is cancelled, this goes on: the next caller would have to begin it again.
        """
        builder, done = self._index.builder, list[str]()
        if builder is not None:
            self._written = 0
            done = self.turn.during(self._build, builder, progress, thorough=thorough, purge=purge)
        self._tidy()
        return done

    def _build(self, builder: Builder, progress: Progress | None, *, thorough: bool, purge: bool) -> list[str]:
        """Let the builder run, unless the collection was closed while this waited for its turn.

        The store may close at any moment then, and the builder's lease could not be given back.
        """
        return [] if self._closed else builder.run(self._session, progress, thorough=thorough, purge=purge)

    def _tidy(self) -> None:
        """Delete what a builder has stored although the scheme was changed meanwhile, and nobody will read."""
        session = self._session
        if not session.refresh().ranked:
            return
        with suppress(StoreError):  # it may only be read
            names = session.records.blobs(f"{INDEX}.")
            if names:
                session.records.keep(drop=names)

    def close(self) -> None:
        """Store what was built, if it is much. In manual mode, say how many records are not indexed, if many."""
        builder = self._index.builder
        if builder is None:
            return
        with self.turn:  # a build whose caller was cancelled uses the store
            self._closed = True
            builder.close(self._session)
        if self._mode == "manual" and (self._wrote or builder.waiting > FIRST):
            left = self._left()
            if left > FIRST:
                log.warning("%s records are not indexed: run `encvec maintain`", f"{left:,}")

    def _left(self) -> int:
        """Count the records in no stored graph."""
        session, index = self._session, self._index
        shelf = index.sealed.shelf
        if shelf is None or index.builder is None or index.builder.exact:
            return 0
        try:
            stored = shelf.manifests(session.records, session.keyring)
            return session.records.count() - sum(listed.count for listed, _ in stored)
        except EncvecError as error:  # the store is gone, or the collection was dropped: nothing is lost by that
            log.info("nobody knows how many records are not indexed: %s", error)
            return 0

    def drop(self) -> None:
        """Forget the index: the collection was dropped."""
        self._index.sealed.forget()

    def stats(self) -> dict[str, Any] | None:
        """Describe the index; None if there is none that is built."""
        index = self._index
        return None if index.builder is None else index.stats(self._session.records, self._session.keyring)

    @property
    def _index(self) -> Index:
        return self._indexes.current

    def _start(self) -> None:
        self._written = 0
        if self._index.builder is None:
            return
        match self._mode:
            case "inline":
                self._job.run(self._quietly)
            case "background":
                self._job.start(self._quietly)
            case _ if not self._hinted:
                self._hinted = True
                log.info("due: index new records. Call Collection.maintain(), or run `encvec maintain`")

    def _quietly(self) -> None:
        """Build the index. A failure goes to the log and to `stats`: searches stay right, and get slower."""
        builder = self._index.builder
        if builder is None:
            return
        try:
            self.run()
            builder.failed = None
        except Exception as error:  # whatever it is, the records are stored and readable
            builder.failed = f"{type(error).__name__}: {error}"
            log.warning("the index could not be built, searches compare more vectors one by one: %s", builder.failed)
