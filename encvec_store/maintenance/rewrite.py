"""Encrypts a whole collection anew, or changes settings only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from ..crypto.envelope import TOKEN, envelope_size
from ..data.arrays import Matrix, Rows
from ..data.records import encode_payload
from ..engine.lookup import pages
from ..engine.session import Session
from ..engine.whole import require_whole
from ..engine.write import counting, stored_settings
from ..errors import AuthenticationError, StaleConfigError, StoreError
from ..runtime.concurrency import offload
from ..sealing.codec import Decoded
from ..sealing.config import CollectionConfig
from ..sealing.keyring import INDEX
from ..storage.protocol import EncryptedBatch

__all__ = ["REWRITE_CHUNK", "Progress", "anew", "nothing", "reseal", "rewrite", "settle", "unkept"]

REWRITE_CHUNK = 4096

Progress = Callable[[int, int], None]
"""Called now and then with (records done since the last call, records in all)."""


def rewrite(session: Session, config: CollectionConfig, progress: Progress | None = None) -> None:
    """Encrypt every record anew, under the primary key version and `config`, a changed copy of the stored settings.

    It is one transaction: readers see the old content until it commits, and after a crash nothing has changed.
    Records keep their rows. Records under a destroyed key version are dropped; one under a disabled version raises
    KeyUnavailableError. If `config` has another scheme, nothing of the old one stays.

    Raises:
        StaleConfigError: other settings were stored since `config` was read.
        NormError: a record is longer than the new settings allow.
    """
    primary, stored, records = session.keyring.primary, session.config, session.records
    fresh = config.changed(rewritten=primary)
    fresh = counting(session, fresh, records.count())
    if stored.sealed != config.sealed:
        raise StaleConfigError("the collection's settings were changed meanwhile")

    def batches() -> Iterator[EncryptedBatch]:
        total = session.records.count()
        for rows in pages(session, REWRITE_CHUNK):
            kept = session.without(rows, session.keyring.destroyed)
            found, vectors, heads = session.open_vectors(kept, stored)
            _, records, prefixes = session.open_payloads(found)
            if len(found) != len(kept):
                raise AuthenticationError("a record could not be authenticated")
            require_whole(session, found, heads, prefixes, stored)
            yield offload(len(kept), anew, session, fresh, found, vectors, records)
            if progress is not None:
                progress(len(rows), total)

    session.records.replace(
        batches(),
        under=config.sealed,
        index_dim=fresh.index_dim,
        ranked=fresh.ranked,
        drop=unkept(fresh),
        **stored_settings(session, fresh),
    )
    session.refresh()
    if not fresh.index_dim:
        session.index.forget()  # its files hold index vectors


def anew(
    session: Session, config: CollectionConfig, rows: Rows, vectors: Matrix, records: list[Decoded]
) -> EncryptedBatch:
    """Encrypt n opened records for `Records.replace`: they keep their rows. Raises NormError."""
    if config.bounded:
        config.metric.check(vectors, config.max_norm, "records")
    payloads = [encode_payload(*record) for record in records]
    metadata = [fields for _, fields, _ in records]
    batch = session.keyring.seal(config, [id for id, _, _ in records], vectors, payloads, metadata)
    batch.retired.clear()  # all old content is replaced anyway
    batch.rows = rows
    return batch


def unkept(config: CollectionConfig) -> list[str]:
    """Return how names of blobs begin that `Records.replace` drops: with index vectors, no sealed index stays."""
    return [f"{INDEX}."] if config.ranked else []


def settle(session: Session, config: CollectionConfig) -> None:
    """Store settings that change no record, under the next revision, in a transaction of their own.

    Args:
        session: of the collection.
        config: the stored settings, perhaps with changed fields.

    Raises:
        StaleConfigError: other settings were stored since these were read.
    """
    session.records.put(nothing(config), under=config.sealed, **stored_settings(session, config.changed()))
    session.refresh()


def nothing(config: CollectionConfig) -> EncryptedBatch:
    """Return a batch without records."""
    return EncryptedBatch(
        partitions=np.empty(0, np.int64),
        tokens=np.empty((0, TOKEN), np.uint8),
        index_vectors=np.empty((0, config.index_dim), config.precision.dtype),
        vectors=np.empty((0, envelope_size(config.dim, config.precision)), np.uint8),
        payloads=[],
    )


def reseal(session: Session) -> None:
    """Seal the settings under the primary key version if they are under an older one.

    Otherwise the collection could not be opened once that version is disabled or destroyed. A store that is locked or
    read-only keeps them as they are; the next write does it.
    """
    config = session.config
    if not session.keyring.is_current(config.sealed):
        with suppress(StoreError):
            settle(session, config)
