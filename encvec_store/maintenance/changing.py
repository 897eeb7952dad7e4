"""Changes the scheme of a collection: pages are encrypted while others read and write, then all is put in place.

    plan      the settings to come, with their profile, are chosen once and stored
    pages     some rows at a time are read, encrypted and stored as a sealed blob, each by a short transaction
    end       one transaction puts the pages in place, and what was written since; plan and pages are dropped in it

Until the end everybody sees the old content. Killed at any moment, the next call goes on with the pages that are there.
Writers wait for the transactions only: for one page, and for the end, which encrypts next to nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..data.arrays import Matrix, Rows
from ..engine.session import Session
from ..engine.whole import read_whole
from ..engine.write import counting, stored_settings
from ..errors import AuthenticationError, NormError, StaleConfigError
from ..runtime.concurrency import Lock, offload
from ..sealing.codec import Decoded
from ..sealing.config import CollectionConfig, check_max_norm
from ..sealing.keyring import CHANGE
from ..storage.portions import portions
from ..storage.protocol import Blob, EncryptedBatch, RanksOnServer
from . import staging
from .rewrite import Progress, anew, nothing, settle, unkept
from .scheme import SchemeChange, with_scheme
from .staging import Page, Plan

__all__ = ["change"]

PAGE_ROWS = 4_096
PAGE_BYTES = 4 << 20
"""Bytes of vectors in a page, about, and of payloads: other writers wait while it is stored."""
_FEW = 1_024
"""So few records that were written meanwhile are encrypted in the last transaction."""
_ROUNDS = 8
_ATTEMPTS = 8
_GIVEN_UP = "another process has given up this change of scheme, or has begun another: call this again to begin anew"

log = logging.getLogger("encvec_store")


def change(
    session: Session,
    spec: Any,
    max_norm: float | None,
    fitted: Callable[[CollectionConfig], CollectionConfig],
    turn: Lock,
    progress: Progress | None,
) -> SchemeChange:
    """Encrypt all records under another scheme. See `Collection.change`.

    Args:
        session: of the collection.
        spec: a scheme as `Store.collection` takes it.
        max_norm: the longest allowed vector; see `with_scheme`.
        fitted: fits a scheme to the collection, if it needs that and there are records enough.
        turn: held during the last transaction: whoever builds the index holds it.
        progress: called with records that are encrypted; first with those that an earlier call has encrypted.
    """
    before = session.refresh()
    if before.has_scheme(spec):
        with_scheme(session, before, spec, max_norm)  # refuses a max_norm
        staging.drop(session)
        return SchemeChange(before.scheme.name, before.scheme.name, False, session.records.count(), 0, "")
    plan = staging.planned(session)
    if plan is None or not plan.fits(session, before) or not plan.leads_to(spec, max_norm):
        fresh = fitted(with_scheme(session, before, spec, max_norm))
        if fresh.ranked and isinstance(session.records, RanksOnServer):
            session.records.require_ranking(fresh.index_dim)
        plan = staging.begin(session, before, fresh)
    work, resumed = _Work(session, plan, progress), 0
    try:
        resumed = work.resume()
        work.encrypt()
        work.put_in_place(turn)
    except StaleConfigError:
        if not _ended(session, spec, max_norm):
            raise
    except NormError:  # a longer record came: the plan can never end
        staging.drop(session)
        raise
    records = session.records
    return SchemeChange(before.scheme.name, plan.settings.scheme.name, True, records.count(), resumed, records.remains)


def _ended(session: Session, spec: Any, max_norm: float | None) -> bool:
    """Say whether the collection is as was asked for by now: another process has gone on with the same change."""
    config = session.refresh(force=True)
    return config.has_scheme(spec) and check_max_norm(max_norm, config.metric) in (None, config.max_norm)


class _Work:
    def __init__(self, session: Session, plan: Plan, progress: Progress | None) -> None:
        self._session, self._plan, self._progress = session, plan, progress
        self._pages: list[Page] = []
        self._total = session.records.count()
        width = session.records.spec.envelope_size + 4 * plan.settings.index_dim
        self._rows = max(1, min(PAGE_ROWS, PAGE_BYTES // width))

    def resume(self) -> int:
        """Find the pages of earlier calls. Returns how many records they hold that are there still."""
        rows, done = self._session.records.rows(), 0
        for page in staging.listed(self._session.records.blobs(f"{CHANGE}."), self._plan):
            batch = staging.opened(self._session, page)
            if batch is None or batch.rows is None:
                _refused(page)
                continue
            self._pages.append(page)
            held = int(np.isin(batch.rows, rows).sum())
            done += held
            self._told(held)
        return done

    def encrypt(self) -> None:
        """Store pages until few records are left that are in none. A faster writer is not followed forever."""
        for _ in range(_ROUNDS):
            left = self._left()
            if len(left) <= _FEW and self._pages:
                return
            for rows in portions(self._session.records, left, self._rows, PAGE_BYTES):
                self._page(rows)

    def put_in_place(self, turn: Lock) -> None:
        """Put everything in place by one transaction."""
        session, plan = self._session, self._plan
        for attempt in range(_ATTEMPTS):
            config = self._settings(force=attempt > 0)
            most = len(self._left()) + _FEW
            fresh = counting(session, plan.applied(config), most)
            try:
                with turn:
                    session.records.replace(
                        self._batches(config, fresh, most),
                        under=config.sealed,
                        index_dim=fresh.index_dim,
                        ranked=fresh.ranked,
                        drop=[*unkept(fresh), f"{CHANGE}."],
                        **stored_settings(session, fresh),
                    )
                    session.refresh()
                    if not fresh.index_dim:
                        session.index.forget()  # its files hold index vectors
                return
            except StaleConfigError:  # other settings, or many new records
                if attempt == _ATTEMPTS - 1:
                    raise
            self.encrypt()

    def _settings(self, *, force: bool = False) -> CollectionConfig:
        """Return the current settings. Raises StaleConfigError if the plan is not that of the collection any more."""
        config = self._session.refresh(force=force)
        if not self._plan.fits(self._session, config):
            raise StaleConfigError("keys or settings of the collection were changed meanwhile: begin this change again")
        if force and self._session.records.blob(staging.PLAN) != self._plan.raw:
            raise StaleConfigError(_GIVEN_UP)
        return config

    def _left(self) -> Rows:
        return staging.outside(self._session.records.rows(), self._pages)

    def _page(self, rows: Rows) -> None:
        """Encrypt some rows, as far as they are still there, and store them as a page."""
        page = Page(int(rows[0]) - 1, int(rows[-1]), self._plan.number)
        found, vectors, opened = self._read(rows)
        blob = offload(len(found), self._sealed, page, found, vectors, opened)
        if not self._session.records.keep([(page.name, 0, blob)], expect={staging.PLAN: self._plan.raw}):
            raise StaleConfigError(_GIVEN_UP)
        self._pages.append(page)
        self._told(len(rows))

    def _read(self, rows: Rows, attempt: int = 1) -> tuple[Rows, Matrix, list[Decoded]]:
        """Open rows, as far as they are still there. Before that, count how often a key encrypts them."""
        session, config = self._session, self._settings(force=attempt > 1)
        try:
            counted = counting(session, config, len(rows))
            if counted is not config:
                settle(session, counted)
                config = session.config
            return read_whole(session, session.without(rows, session.keyring.destroyed), config)
        except StaleConfigError:  # others wrote, or changed the settings
            if attempt == _ATTEMPTS:
                raise
        return self._read(rows, attempt + 1)

    def _sealed(self, page: Page, rows: Rows, vectors: Matrix, opened: list[Decoded]) -> Blob:
        session, settings = self._session, self._plan.settings
        batch = anew(session, settings, rows, vectors, opened) if len(rows) else nothing(settings)
        batch.rows = rows
        return session.keyring.seal_change(page.name, staging.content(batch))

    def _batches(self, config: CollectionConfig, fresh: CollectionConfig, most: int) -> Iterator[EncryptedBatch]:
        """Yield every record that is there: those of pages, then the others, of which there may be `most`.

        Nobody writes meanwhile. Records under destroyed key versions are left out. Those under disabled ones are not
        taken from pages: reading them raises KeyUnavailableError.
        """
        session = self._session
        rows = session.records.rows()
        there = np.isin(rows, session.without(rows, session.keyring.destroyed), assume_unique=True)
        openable = np.isin(rows, session.without(rows, session.keyring.dead), assume_unique=True)
        for page in list(self._pages):
            batch = staging.opened(session, page)
            if batch is None or batch.rows is None:
                _refused(page)
                self._pages.remove(page)
                continue
            at = np.searchsorted(rows[:-1], batch.rows)  # of the last row, if there are none so large
            places = np.flatnonzero(openable[at] & (rows[at] == batch.rows)) if len(rows) else at[:0]
            there[at[places]] = openable[at[places]] = False  # two processes may have made pages of the same rows
            if len(places):
                yield batch.only(places)
        left = rows[there]
        if len(left) > most:
            raise StaleConfigError("too many records were written meanwhile")
        for some in portions(session.records, left, self._rows):
            found, vectors, opened = read_whole(session, some, config)
            if len(found) != len(some):
                raise AuthenticationError("a record could not be authenticated")
            yield offload(len(found), anew, session, fresh, found, vectors, opened)
            self._told(len(some))

    def _told(self, done: int) -> None:
        if self._progress is not None and done:
            self._progress(done, self._total)


def _refused(page: Page) -> None:
    log.warning("a page of the change of scheme could not be authenticated: its records are encrypted again")
