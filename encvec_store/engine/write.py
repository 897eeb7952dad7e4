"""The write walk: records -> validate -> encrypt -> seal -> backend; imports handle, records, metrics, crypto."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from operator import length_hint
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.envelope import TOKEN, config_key_version, envelope_size, headers
from ..data.fields import Policy, Term, canonical, plain_term
from ..data.filters import BLIND_COLUMN
from ..data.metrics import as_vectors, norms
from ..data.records import check_documents, check_ids, check_metadata, decode_payload, encode_payload
from ..data.spaces import version_of
from ..errors import AuthenticationError, ShapeError, StaleConfigError, StoreError
from ..sealing.config import CollectionConfig
from ..sealing.keyring import Vault
from ..storage import EncryptedBatch
from ..waits import offload, result
from .session import Handle

__all__ = ["REWRITE_CHUNK", "WRITE_CHUNK", "encrypt_batch", "reseal", "rewrite", "settle", "upsert"]

REWRITE_CHUNK = 4096
WRITE_CHUNK = 1024
"""Records encrypted at once: enough for numpy, few enough for the cache, and an upsert of more begins to be written
early."""
_WORKERS = 2
"""Threads that encrypt ahead of a write: together they are about as fast as what they feed."""
_ATTEMPTS = 8

Matrix = npt.NDArray[np.float32]


def upsert(
    handle: Handle,
    ids: Sequence[str],
    vectors: Any,
    metadata: Sequence[Mapping[str, Any] | None] | None,
    documents: Sequence[str | None] | None,
) -> None:
    """Write a batch, all or nothing. See `Collection.upsert`."""
    config = handle.refresh()
    names, matrix, payloads, fields = offload(length_hint(ids), _checked, config, ids, vectors, metadata, documents)
    if not names:
        return
    for attempt in range(_ATTEMPTS):
        fresh = config
        if config.metric.bounded and config.max_norm is None:
            fresh = config.bounded_by(float(norms(matrix).max()))
        parts = _encrypted(handle.vault, fresh, names, matrix, payloads, fields)
        try:
            first, changed = next(parts), _new_config(handle.vault, config, fresh)
            handle.backend.put(first, under=config.sealed, more=parts, **changed)
            handle.refresh()
            offload(len(first.tokens), _watch, handle, fresh, first)
            return
        except StaleConfigError:
            # calibrated, or given its max_norm, by another process between our reading and writing
            config = handle.refresh()
            config.metric.check(matrix, config.max_norm)
            if attempt == _ATTEMPTS - 1:
                raise
        finally:
            parts.close()


def _watch(handle: Handle, config: CollectionConfig, batch: EncryptedBatch) -> None:
    """Let the handle see whether what was written still fits the profile, whichever cells it went to."""
    version = version_of(int(batch.spaces[0]))
    aligned = handle.vault.scheme(version, config).aligned(
        batch.index_vectors.astype(np.float32, copy=False), batch.tokens
    )
    handle.drift.add(config.scheme, config.profile, version, aligned)


def _encrypted(
    vault: Vault,
    config: CollectionConfig,
    ids: Sequence[str],
    vectors: Matrix,
    payloads: Sequence[bytes],
    metadata: Sequence[Mapping[str, Any]],
) -> Generator[EncryptedBatch, None, None]:
    """Encrypt checked records in parts; while one is being written, the next ones in threads of their own."""

    def encrypted(part: slice) -> EncryptedBatch:
        return encrypt_batch(vault, config, ids[part], vectors[part], payloads[part], metadata[part])

    parts = iter(_parts(len(ids)))
    if len(ids) <= WRITE_CHUNK:
        yield from map(encrypted, parts)
        return
    workers = _workers()
    coming = deque(workers.submit(encrypted, part) for part in islice(parts, _WORKERS + 1))
    try:
        while coming:
            batch = result(coming.popleft())
            coming.extend(workers.submit(encrypted, part) for part in islice(parts, 1))
            yield batch
    finally:
        for future in coming:
            future.cancel()


@functools.cache
def _workers() -> ThreadPoolExecutor:
    """Return the threads that all upserts share; to start some for each took a tenth of its time."""
    return ThreadPoolExecutor(_WORKERS, "encvec-encrypt")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # threads stay behind in the parent


def _parts(n: int) -> list[slice]:
    """Cut n records into parts, of many the first ones smaller, so that the store does not wait long for something."""
    parts, start, size = [], 0, WRITE_CHUNK if n <= WRITE_CHUNK else WRITE_CHUNK // 4
    while start < n:
        parts.append(slice(start, min(start + size, n)))
        start, size = start + size, min(2 * size, WRITE_CHUNK)
    return parts


def _checked(
    config: CollectionConfig,
    ids: Sequence[str],
    vectors: Any,
    metadata: Sequence[Mapping[str, Any] | None] | None,
    documents: Sequence[str | None] | None,
) -> tuple[list[str], Matrix, list[bytes], list[dict[str, Any]]]:
    """Return (ids, (n, dim) vectors, payloads, metadata), or raise InputError."""
    names = check_ids(ids)
    matrix = as_vectors(vectors, config.dim)
    if len(matrix) != len(names):
        raise ShapeError(f"{len(names)} ids but {len(matrix)} vectors")
    fields = check_metadata(metadata, len(names))
    payloads = [
        encode_payload(name, item, text)
        for name, item, text in zip(names, fields, check_documents(documents, len(names)), strict=True)
    ]
    if names:
        lengths = config.metric.check(matrix, config.max_norm)
        config.precision.check(matrix, lengths, direction=not config.metric.bounded)
    return names, matrix, payloads, fields


def _new_config(vault: Vault, config: CollectionConfig, fresh: CollectionConfig) -> dict[str, Any]:
    """Return sealed settings and artefacts to be stored with a write: when they or the primary key version changed.

    So settings are readable whenever some record is: destroying an old key version loses old records only.
    """
    if fresh is config and config_key_version(config.sealed) == vault.primary:
        return {}
    return {"config": vault.seal_config(fresh), "artefacts": vault.seal_artefacts(fresh)}


def reseal(handle: Handle) -> None:
    """Seal the settings under the primary key version, where they are under an older one.

    Else disabling or destroying that one would close the collection. A store that is locked or read-only keeps
    them as they are: the next write does it.
    """
    config, vault = handle.config, handle.vault
    if config_key_version(config.sealed) == vault.primary:
        return
    with suppress(StoreError):
        settle(handle, config)


def settle(handle: Handle, fresh: CollectionConfig) -> None:
    """Store settings that change no record, sealed under the primary key version, in a transaction of their own.

    Raises:
        StaleConfigError: others were stored meanwhile.
    """
    config, vault = handle.config, handle.vault
    nothing = EncryptedBatch(
        spaces=np.empty(0, np.int64),
        tokens=np.empty((0, TOKEN), np.uint8),
        index_vectors=np.empty((0, config.index_dim), config.precision.dtype),
        vectors=np.empty((0, envelope_size(config.dim, config.precision)), np.uint8),
        payloads=[],
    )
    sealed, artefacts = vault.seal_config(fresh), vault.seal_artefacts(fresh)
    handle.backend.put(nothing, under=config.sealed, config=sealed, artefacts=artefacts)
    handle.refresh()


def encrypt_batch(
    vault: Vault,
    config: CollectionConfig,
    ids: Sequence[str],
    vectors: Matrix,
    payloads: Sequence[bytes],
    metadata: Sequence[Mapping[str, Any]],
) -> EncryptedBatch:
    """Encrypt checked records under the primary key version."""
    version = vault.primary
    cipher = vault.cipher(version)
    named = vault.tokens(ids, held=True)
    tokens = named[version]
    kept = config.precision.kept(vectors)
    # from what is kept, so that the same record again is the same ciphertext, also after opening it
    points = config.metric.lift(kept.astype(np.float32, copy=False), config.max_norm)
    encrypted, nonces = vault.scheme(version, config).encrypt(points, tokens)
    index_vectors = config.precision.kept(encrypted)
    heads = headers(vault.stamp(version, config), nonces, cipher.bindings(tokens, kept, index_vectors))
    return EncryptedBatch(
        spaces=vault.spaces(version, config, tokens),
        tokens=tokens,
        index_vectors=index_vectors,
        vectors=cipher.seal_vectors(tokens, heads, kept),
        payloads=cipher.seal_payloads(tokens, heads, payloads),
        terms=terms(vault, config, metadata, version=version),
        retired=[row.tobytes() for other, rows in named.items() if other != version for row in rows],
    )


def terms(
    vault: Vault, config: CollectionConfig, metadata: Sequence[Mapping[str, Any]], *, version: int
) -> list[tuple[int, str, Term]]:
    """Return what a backend may index: plain values, and blind tokens under a key version."""
    blind: list[tuple[int, str, bytes]] = []
    plain: list[tuple[int, str, Term]] = []
    for name, policy in (config.policies or {}).items():
        if policy is Policy.SEALED:
            continue
        for position, item in enumerate(metadata):
            if name not in item:
                continue
            if policy is Policy.BLIND:
                blind.append((position, name, canonical(item[name])))
            else:
                plain.append((position, name, plain_term(item[name])))
    tokens = vault.cipher(version).blind_tokens([(name, value) for _, name, value in blind]) if blind else []
    return plain + [
        (position, BLIND_COLUMN, Term("token", token)) for (position, _, _), token in zip(blind, tokens, strict=True)
    ]


def rewrite(handle: Handle, config: CollectionConfig, progress: Any = None) -> None:
    """Encrypt every record anew under `config`, changed from the stored settings, and the primary key version.

    It is one transaction: until it commits every reader sees the old content, and after a crash that is all there is.
    Records under a destroyed key version are dropped; one under a disabled version raises KeyUnavailableError.
    """
    fresh = replace(config, revision=config.revision + 1)

    def batches() -> Iterator[EncryptedBatch]:
        total = handle.backend.count()
        for rows in handle.pages(REWRITE_CHUNK):
            kept = handle.without(rows, handle.vault.destroyed)
            found, vectors, heads = handle.open_vectors(kept, config)
            _, payloads, prefixes = handle.open_payloads(found)
            if len(found) != len(kept) or [head.tobytes() for head in heads] != prefixes:
                raise AuthenticationError("a record could not be authenticated")
            yield offload(len(kept), again, vectors, payloads)
            if progress is not None:
                progress(len(rows), total)

    def again(vectors: Matrix, payloads: list[bytes]) -> EncryptedBatch:
        decoded = [decode_payload(payload) for payload in payloads]
        ids, metadata = [item[0] for item in decoded], [item[1] for item in decoded]
        batch = encrypt_batch(handle.vault, fresh, ids, vectors, payloads, metadata)
        batch.retired.clear()  # the old rows go all together
        return batch

    vault = handle.vault
    handle.backend.replace(
        batches(),
        vault.seal_config(fresh),
        under=config.sealed,
        index_dim=fresh.index_dim,
        artefacts=vault.seal_artefacts(fresh),
    )
    handle.refresh()
