"""Seals records anew under the primary key version, page by page, while others read and write.

The job keeps no state. What is left to do are the records under older key versions, and they are named by their
partitions. So it can be stopped at any moment, begun again, and run by several processes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..data.arrays import Rows
from ..data.partitions import by_version, version_of
from ..data.records import encode_payload
from ..engine.session import Session
from ..engine.whole import read_whole
from ..engine.write import counting, stored_settings
from ..errors import AuthenticationError, StaleConfigError
from ..runtime.concurrency import offload
from ..sealing.codec import Decoded
from ..sealing.config import CollectionConfig
from ..sealing.keyring import INDEX
from ..storage.portions import portions
from ..storage.protocol import EncryptedBatch
from .rewrite import Progress, nothing, settle
from .staging import tidy

__all__ = ["Rekeyed", "rekey"]

PAGE = 2_048
"""Records of one transaction: other writers wait for it."""
_ATTEMPTS = 8


@dataclass(frozen=True)
class Rekeyed:
    """The result of `rekey` for one collection."""

    tenant: str
    collection: str
    version: int
    """The primary key version."""
    sealed: int
    """Records that this call sealed anew under it."""
    left: dict[str, int] = field(default_factory=dict)
    """By key version, records that are under another one still: it is disabled or destroyed, or they are damaged."""
    segments: int = 0
    """Segments of the index that are under older key versions still: another process builds. Run it again later."""
    remains: str = ""
    """Where old ciphertexts may still lie, and what to run against that; empty if nothing remains."""

    @property
    def done(self) -> bool:
        """True if nothing that can be opened is under an older key version."""
        return not self.left and not self.segments

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {**asdict(self), "done": self.done}


def rekey(session: Session, save_index: Callable[[], object], progress: Progress | None = None) -> Rekeyed:
    """Seal all records anew that are under older key versions, then the index. See `Collection.rekey`.

    Each page is a transaction of its own. Records keep their rows, but if they have index vectors: these are encrypted
    anew, and get new rows in the order of the old ones.

    Args:
        session: of the collection.
        save_index: brings the index over opened vectors up to date, and stores it.
        progress: called after each page.

    Raises:
        AuthenticationError: records are damaged. They stay as they are, and all others are sealed anew.
    """
    config = session.refresh()
    if not session.keyring.is_current(config.sealed):  # now, so that nobody writes under an older version from here on
        settle(session, config)
    job = _Job(session, progress)
    while (old := _movable(session)) and job.run(old):
        pass
    _finish(session, job.sealed)
    tidy(session)  # pages of a change of scheme
    if damaged := job.damaged():
        raise AuthenticationError(
            f"{damaged:,} records could not be authenticated, and stay under their old key version; all others were"
            " sealed anew. Run verify"
        )
    if job.sealed or _old_segments(session):
        save_index()
    return _report(session, job.sealed)


def _movable(session: Session) -> dict[int, int]:
    """Count records by partition, of those under older key versions that can be opened."""
    primary, live = session.keyring.primary, session.keyring.live
    counts = session.records.partitions().items()
    return {number: n for number, n in counts if version_of(number) < primary and version_of(number) in live}


def _report(session: Session, sealed: int) -> Rekeyed:
    """Return the report of a job that is done."""
    spec, records, primary = session.records.spec, session.records, session.keyring.primary
    left = {str(version): n for version, n in by_version(records.partitions()).items() if version < primary}
    return Rekeyed(*spec.place, primary, sealed, left, _old_segments(session), records.remains if sealed else "")


def _old_segments(session: Session) -> int:
    """Count the stored segments of the index under older key versions that are not destroyed."""
    destroyed, primary = session.keyring.destroyed, session.keyring.primary
    names = [name.split(".") for name in session.records.blobs(f"{INDEX}.")]
    versions = [int(name[1]) for name in names if len(name) == 3 and name[2] != "lease" and name[1].isdigit()]
    return sum(version < primary and version not in destroyed for version in versions)


class _Job:
    def __init__(self, session: Session, progress: Progress | None) -> None:
        self._session, self._progress = session, progress
        self._total = self.sealed = 0
        self._damaged: set[int] = set()

    def run(self, old: dict[int, int]) -> bool:
        """Go through some partitions, one after the other. Returns False if nothing could be done."""
        records, before = self._session.records, self.sealed
        self._total = max(self._total, sum(old.values()))
        for partition in sorted(old):
            after = 0
            while len(rows := records.rows_of([partition], after=after, limit=PAGE)):
                after = int(rows[-1])
                for part in portions(records, rows, PAGE):
                    self._page(part, list(old))
                    if self._progress is not None:
                        self._progress(len(part), self._total)
        return self.sealed > before

    def damaged(self) -> int:
        """Count the damaged records that are there still."""
        return len(self._session.records.vectors(np.array(sorted(self._damaged), np.int64))[0])

    def _page(self, rows: Rows, old: Sequence[int]) -> None:
        """Seal some rows anew. If one of them is damaged, all others."""
        for attempt in range(_ATTEMPTS):
            try:
                self.sealed += _sealed_anew(self._session, rows, old)
                self._damaged.difference_update(rows.tolist())
                return
            except StaleConfigError:  # another process changed the settings, or had the same page a moment before
                self._session.refresh(force=True)
                if attempt == _ATTEMPTS - 1:
                    raise
            except AuthenticationError:
                if len(rows) == 1:
                    self._damaged.add(int(rows[0]))
                    return
                half = len(rows) // 2
                self._page(rows[:half], old)
                self._page(rows[half:], old)
                return


def _sealed_anew(session: Session, rows: Rows, old: Sequence[int]) -> int:
    """Seal rows anew in one transaction, unless they were updated or moved meanwhile. Returns how many."""
    config, records = session.config, session.records
    found, vectors, opened = read_whole(session, rows, config)
    if not len(found):
        return 0
    fresh = counting(session, config, len(found))
    batch = offload(len(found), _sealed, session, fresh, opened, vectors)
    batch.rows = found
    places = records.find(batch.tokens)
    if ((places > 0) & (places != found)).any() and (len(found) > 1 or len(records.vectors(found)[0])):
        raise AuthenticationError("a record could not be authenticated")  # an older one was put back beside the newer
    changed = {} if fresh is config else stored_settings(session, fresh)
    count = records.reseal(batch, old, under=config.sealed, renumber=bool(config.index_dim), **changed)
    if changed:
        session.refresh()
    return count


def _sealed(session: Session, config: CollectionConfig, opened: list[Decoded], vectors: Any) -> EncryptedBatch:
    payloads = [encode_payload(*record) for record in opened]
    batch = session.keyring.seal(config, [id for id, *_ in opened], vectors, payloads, [each[1] for each in opened])
    batch.retired = []  # the rows say what is replaced
    return batch


def _finish(session: Session, sealed: int) -> None:
    """Have all followers list all rows, so that their indexes learn the new key versions.

    The settings then say that no record is under an older version. They tell, too, whether this was done already.
    """
    for attempt in range(_ATTEMPTS):
        config, primary = session.refresh(force=attempt > 0), session.keyring.primary
        older = [version for version in by_version(session.records.partitions()) if version < primary]
        fresh = config if older or config.rewritten_key >= primary else config.changed(rewritten_key=primary)
        if fresh is config and not sealed and not _old_segments(session):
            return
        changed = {} if fresh is config else stored_settings(session, fresh)
        batch = nothing(config)
        batch.rows = np.empty(0, np.int64)
        try:
            session.records.reseal(batch, [], under=config.sealed, relist=True, **changed)
        except StaleConfigError:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        session.refresh()
        return
