"""Write, top to bottom: records -> check -> shuffle -> encrypt and seal -> store."""

from __future__ import annotations

import functools
import logging
import os
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import length_hint
from typing import Any

import numpy as np

from ..data.arrays import Matrix
from ..data.ids import Id, check_ids
from ..data.metrics import as_vectors, norms
from ..data.partitions import version_of
from ..data.records import check_documents, check_metadata, encode_payload
from ..errors import ShapeError, StaleConfigError
from ..runtime.concurrency import offload, result
from ..schemes.simulation import Sample
from ..sealing.config import CollectionConfig
from ..sealing.limits import counted
from ..storage.protocol import EncryptedBatch
from .session import Session

__all__ = ["WRITE_CHUNK", "checked_vectors", "counting", "stored_settings", "upsert", "warn_of_noise", "watch"]

WRITE_CHUNK = 1024
"""Records encrypted at once: enough for numpy, few enough for the processor's cache, and the store gets the first
ones early."""
_WORKERS = 2
"""Threads that encrypt ahead of a write. Two are about as fast as a store that writes."""
_ATTEMPTS = 16
_MEASURED = 500, 2_000
"""Vectors of a first batch that recall is measured on: at least, at most."""
_POOR = 0.5
log = logging.getLogger("encvec_store")

Checked = tuple[list[Id], Matrix, list[bytes], list[dict[str, Any]]]
"""Ids, (n, dim) vectors, encoded payloads and metadata of n records."""


def upsert(
    session: Session,
    ids: Sequence[Id],
    vectors: Any,
    metadata: Sequence[Mapping[str, Any] | None] | None,
    documents: Sequence[str | None] | None,
    model: str | None = None,
) -> None:
    """Write a batch, all or nothing. See `Collection.upsert`. `model` is what made the vectors, if the caller says."""
    config = session.refresh()
    config.check_model(model)
    checked = offload(length_hint(ids), _checked, config, ids, vectors, metadata, documents)
    if not checked[0]:
        return
    for attempt in range(_ATTEMPTS):
        fresh = _settings_for(session, config, checked[1], model)
        parts = _encrypted(session, fresh, checked)
        try:
            first = next(parts)
            changed = {} if fresh is config else stored_settings(session, fresh)
            session.records.put(first, under=config.sealed, more=parts, **changed)
            session.refresh()
            offload(len(first.tokens), watch, session, fresh, first)
            return
        except StaleConfigError:
            # another process calibrated the collection, or set its max_norm, after we read the settings
            config = session.refresh(force=True)
            config.check_model(model)
            config.metric.check(checked[1], config.max_norm)
            if attempt == _ATTEMPTS - 1:
                raise
        finally:
            parts.close()


def _checked(
    config: CollectionConfig,
    ids: Sequence[Id],
    vectors: Any,
    metadata: Sequence[Mapping[str, Any] | None] | None,
    documents: Sequence[str | None] | None,
) -> Checked:
    """Return the records as they will be sealed, or raise InputError."""
    names = check_ids(ids)
    matrix = checked_vectors(config, vectors, len(names))
    fields = check_metadata(metadata, len(names))
    payloads = [
        encode_payload(name, item, text)
        for name, item, text in zip(names, fields, check_documents(documents, len(names)), strict=True)
    ]
    return names, matrix, payloads, fields


def checked_vectors(config: CollectionConfig, vectors: Any, n: int) -> Matrix:
    """Return the vectors of n records, (n, dim), or raise InputError."""
    matrix = as_vectors(vectors, config.dim)
    if len(matrix) != n:
        raise ShapeError(f"{n} ids but {len(matrix)} vectors")
    if n:
        lengths = config.metric.check(matrix, config.max_norm)
        config.precision.check(matrix, lengths, direction=not config.metric.bounded)
    return matrix


def _settings_for(session: Session, config: CollectionConfig, matrix: Matrix, model: str | None) -> CollectionConfig:
    """Return the settings to write under: with a max_norm if they need one, with the model if they have none, sealed
    under the primary key version, and with a larger count of encryptions now and then.

    So the settings can be opened whenever a record can be: destroying an old key version loses only old records.
    """
    fresh = config if session.keyring.is_current(config.sealed) else config.changed()
    fresh = fresh.of_model(model)
    if config.bounded and config.max_norm is None:
        fresh = fresh.bounded_by(float(norms(matrix).max()))
        warn_of_noise(fresh, matrix)
    return counting(session, fresh, len(matrix))


def counting(session: Session, config: CollectionConfig, n: int) -> CollectionConfig:
    """Return settings with n more encryptions under the primary key version; see `counted`."""
    return counted(config, session.keyring.primary, n, f"collection {session.records.spec.called!r}")


def warn_of_noise(config: CollectionConfig, matrix: Matrix) -> None:
    """Warn if the noise of a scheme without a profile hides what is near, measured on a first (n, dim) batch."""
    if not config.scheme.noisy or config.scheme.needs_profile or len(matrix) < _MEASURED[0]:
        return
    rows = np.random.default_rng(0).permutation(len(matrix))[: _MEASURED[1]]
    found, centred = (
        float(
            config.scheme.trial(Sample(config.metric, config.max_norm, matrix[rows], 0, centre), None)
            .recalls(config.scheme.noise, 10, [10 * config.oversample])
            .mean()
        )
        for centre in (None, config.metric.centre_of(matrix[rows]))
    )
    if found < _POOR:
        better = f" With the mean of the vectors subtracted it would be {centred:.2f}." if centred > found + 0.1 else ""
        log.warning(
            "searches of this collection will find about %.2f of the ten nearest: the noise of %s is large beside the "
            "distances of these vectors.%s Call calibrate(), or use the scheme sealed or sketch",
            found,
            config.scheme.name,
            better,
        )


def stored_settings(session: Session, config: CollectionConfig) -> dict[str, Any]:
    """Seal settings and their blobs, as `Records.put` and `Records.replace` take them."""
    return {"config": session.keyring.seal_config(config), "blobs": session.keyring.seal_blobs(config)}


def _encrypted(session: Session, config: CollectionConfig, checked: Checked) -> Generator[EncryptedBatch, None, None]:
    """Encrypt records in parts. While the store writes one part, threads encrypt the next ones.

    Records go in random order, because row numbers must not tell the order they had in the batch.
    """
    ids, vectors, payloads, metadata = checked
    order = np.random.default_rng().permutation(len(ids)) if len(ids) > 1 else np.zeros(1, np.intp)

    def sealed(part: slice) -> EncryptedBatch:
        chosen = order[part]
        some = chosen.tolist()
        return session.keyring.seal(
            config, [ids[i] for i in some], vectors[chosen], [payloads[i] for i in some], [metadata[i] for i in some]
        )

    parts = iter(_parts(len(ids)))
    if len(ids) <= WRITE_CHUNK:
        yield from map(sealed, parts)
        return
    workers = _workers()
    coming = deque(workers.submit(sealed, part) for part in islice(parts, _WORKERS + 1))
    try:
        while coming:
            batch = result(coming.popleft())
            coming.extend(workers.submit(sealed, part) for part in islice(parts, 1))
            yield batch
    finally:
        for future in coming:
            future.cancel()


@functools.cache
def _workers() -> ThreadPoolExecutor:
    """Return the threads that all upserts share. Starting new ones took a tenth of the time of an upsert."""
    return ThreadPoolExecutor(_WORKERS, "encvec-encrypt")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # threads stay behind in the parent


def _parts(n: int) -> list[slice]:
    """Cut n records into parts. The first ones are smaller, so that the store has something to write soon."""
    parts, start, size = [], 0, WRITE_CHUNK if n <= WRITE_CHUNK else WRITE_CHUNK // 4
    while start < n:
        parts.append(slice(start, min(start + size, n)))
        start, size = start + size, min(2 * size, WRITE_CHUNK)
    return parts


def watch(session: Session, config: CollectionConfig, batch: EncryptedBatch) -> None:
    """Let the session check whether the new records still fit the profile."""
    version = version_of(int(batch.partitions[0]))
    index_vectors = batch.index_vectors.astype(np.float32, copy=False)
    aligned = session.keyring.codec(version, config).aligned(index_vectors, batch.tokens)
    session.drift.add(config.scheme, config.profile, version, aligned, (config.fitted or {}).get("undrifted"))
