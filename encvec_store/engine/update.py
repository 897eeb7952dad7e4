"""Change metadata and documents of records that are there: rows -> open -> merge -> seal -> store.

A vector that stays is not sealed anew: its envelope and its index vector move to the new row as they are, and the new
payload is sealed under their header. So the store sees that the vector is the same. Records under an older key version
are sealed anew as a whole, under the primary.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import numpy as np

from ..crypto.envelope import PREFIX, key_versions
from ..data.arrays import Bytes, Matrix, Rows
from ..data.columns import as_cells, as_rows
from ..data.ids import Id, check_ids
from ..data.records import check_documents, check_metadata, encode_payload
from ..errors import AuthenticationError, InputError, StaleConfigError
from ..runtime.concurrency import offload
from ..sealing.codec import Decoded
from ..sealing.config import CollectionConfig
from ..storage.portions import portions
from ..storage.protocol import EncryptedBatch
from . import lookup
from .candidates import Sources
from .read import matching_rows
from .session import Session
from .whole import require_whole
from .write import WRITE_CHUNK, checked_vectors, counting, stored_settings, watch

__all__ = ["update"]

_LOOKS = 32


class _GoneError(Exception):
    """A record was written again or deleted after it was found."""


@dataclass(frozen=True)
class _Change:
    """What becomes of the records named, or of all that a filter finds. None leaves a part as it is."""

    names: list[Id] | None
    metadata: list[dict[str, Any] | None] | None
    documents: list[str | None] | None
    vectors: Matrix | None
    replace: bool

    def at(self, position: int, record: Decoded) -> Decoded:
        """Return what becomes of a record: the one named at a position, or one that the filter found."""
        place = 0 if self.names is None else position
        name, metadata, document = record
        if self.names is not None and name != self.names[place]:
            raise AuthenticationError("a record could not be authenticated")
        if self.metadata is not None:
            new = self.metadata[place]
            if self.replace:
                metadata = new or {}
            elif new is not None:
                metadata = {**metadata, **new}
        if self.documents is not None and (self.replace or self.documents[place] is not None):
            document = self.documents[place]
        return name, metadata, document


def update(
    session: Session,
    sources: Sources,
    ids: Sequence[Id] | None,
    where: Mapping[str, Any] | None,
    *,
    metadata: Any,
    documents: Any,
    vectors: Any,
    replace: bool,
    model: str | None = None,
) -> int:
    """Change parts of records, all or nothing. See `Collection.update`. `model` is what made the vectors."""
    config, model = session.refresh(), None if vectors is None else model
    change = offload(
        length_hint(() if ids is None else ids),
        _checked,
        config,
        ids,
        where,
        metadata,
        documents,
        vectors,
        bool(replace),
    )
    for _ in lookup.looks(session, _LOOKS):
        if change.names is None:
            rows = matching_rows(session, sources, where)
            places = np.zeros(len(rows), np.int64)
        else:
            found = lookup.places(session, change.names)
            places = np.flatnonzero(found)
            rows = found[places]
        if not len(rows):
            return 0
        config.check_model(model)
        if _stored(session, config, change, rows, places, model):
            return len(rows)
        config = session.refresh(force=True)
    raise AssertionError("unreachable")


def _stored(
    session: Session, config: CollectionConfig, change: _Change, rows: Rows, places: Rows, model: str | None
) -> bool:
    """Write one version of the change; return False if settings or records changed meanwhile, so that nothing was."""
    fresh = config if session.keyring.is_current(config.sealed) else config.changed()
    fresh = counting(session, fresh.of_model(model), len(rows))
    parts = _sealed(session, config, fresh, change, rows, places)
    try:
        first = next(parts)
        changed = {} if fresh is config else stored_settings(session, fresh)
        if not session.records.put(first, under=config.sealed, more=parts, over=rows, **changed):
            return False
    except (StaleConfigError, _GoneError):
        return False
    finally:
        parts.close()
    session.refresh()
    if change.vectors is not None:
        offload(len(first.tokens), watch, session, fresh, first)
    return True


def _checked(
    config: CollectionConfig,
    ids: Sequence[Id] | None,
    where: Mapping[str, Any] | None,
    metadata: Any,
    documents: Any,
    vectors: Any,
    replace: bool,
) -> _Change:
    """Return the change, or raise InputError."""
    if (ids is None) == (where is None):
        raise InputError("update takes either ids or where, not both and not neither")
    if metadata is None and documents is None and vectors is None:
        raise InputError("update takes metadata, documents or vectors: give at least one of them")
    if ids is None:
        if documents is not None or vectors is not None:
            raise InputError("with where, update takes metadata only: documents and vectors need ids")
        if not isinstance(metadata, Mapping):
            raise InputError(
                f"with where, metadata must be one mapping for all records found, got {type(metadata).__name__}"
            )
        return _Change(None, list(check_metadata([metadata], 1)), None, None, replace)
    names = check_ids(ids)
    n, matrix, fields = len(names), None, None
    if metadata is not None:
        given = [metadata] * n if isinstance(metadata, Mapping) else as_cells(as_rows(metadata, "metadata"), "metadata")
        fields = [
            None if item is None else checked for item, checked in zip(given, check_metadata(given, n), strict=True)
        ]
    if vectors is not None:
        matrix = checked_vectors(config, vectors, n)
    return _Change(names, fields, None if documents is None else check_documents(documents, n), matrix, replace)


def _sealed(
    session: Session, config: CollectionConfig, fresh: CollectionConfig, change: _Change, rows: Rows, places: Rows
) -> Generator[EncryptedBatch, None, None]:
    """Seal the changed records in parts, in random order. Raises _GoneError if one is not there any more."""
    order = np.random.default_rng().permutation(len(rows))
    for start in range(0, len(order), WRITE_CHUNK):
        some = order[start : start + WRITE_CHUNK]
        some = some[np.argsort(rows[some])]
        known = dict(zip(rows[some].tolist(), places[some].tolist(), strict=True))
        for part in portions(session.records, rows[some], WRITE_CHUNK):
            at = np.array([known[row] for row in part.tolist()], np.int64)
            yield from _part(session, config, fresh, change, part, at)


def _part(
    session: Session, config: CollectionConfig, fresh: CollectionConfig, change: _Change, rows: Rows, places: Rows
) -> Iterator[EncryptedBatch]:
    primary = session.keyring.primary
    found, decoded, prefixes = session.open_payloads(rows)
    if len(found) < len(rows):
        raise _GoneError
    records = [change.at(place, record) for place, record in zip(places.tolist(), decoded, strict=True)]
    payloads = [encode_payload(*record) for record in records]
    if change.vectors is not None:
        vectors, kept = change.vectors[places], np.zeros(len(rows), np.bool_)
        envelopes, index_vectors = np.empty((len(rows), 0), np.uint8), np.empty((len(rows), 0), np.float32)
    else:
        have, envelopes = session.records.vectors(rows)
        with_index, index_vectors = session.records.index_vectors(rows)
        if len(have) < len(rows) or len(with_index) < len(rows):
            raise _GoneError
        again, vectors, heads = session.open_vectors(rows, config, sent=(rows, envelopes))
        if len(again) < len(rows) or not np.array_equal(heads, envelopes[:, :PREFIX]):
            raise _GoneError  # it was damaged, and no longer is
        require_whole(session, rows, heads, prefixes, config)
        kept = key_versions(envelopes) == primary
    for chosen, keeps in ((np.flatnonzero(kept), True), (np.flatnonzero(~kept), False)):
        some = np.random.default_rng().permutation(chosen)
        ids, metadata = [records[i][0] for i in some], [records[i][1] for i in some]
        texts = [payloads[i] for i in some]
        if keeps and len(some):
            stay = envelopes[some], index_vectors[some]
            yield offload(len(some), _beside, session, primary, fresh, ids, *stay, texts, metadata)
        elif len(some):
            yield offload(len(some), session.keyring.seal, fresh, ids, vectors[some], texts, metadata)


def _beside(
    session: Session,
    version: int,
    config: CollectionConfig,
    ids: Sequence[Id],
    envelopes: Bytes,
    index_vectors: Matrix,
    payloads: Sequence[bytes],
    metadata: Sequence[Mapping[str, Any]],
) -> EncryptedBatch:
    """Seal payloads of records whose vectors, under this key version, stay as they are."""
    batch = session.keyring.codec(version, config).seal_payloads(envelopes, index_vectors, payloads, metadata)
    others = (tokens for other, tokens in session.keyring.tokens(ids, held=True).items() if other != version)
    batch.retired = [token.tobytes() for tokens in others for token in tokens]
    return batch
