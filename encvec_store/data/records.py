"""Plaintext records and hits, and the bytes of a record's payload.

The payload is what is sealed beside the vector: id, metadata and document. It is JSON, with tags for the types that
JSON lacks, so that every value comes back with its type.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MetadataError, ShapeError
from .columns import as_cells, as_rows
from .fields import MAX_DEPTH, kind
from .ids import Id
from .values import exact, listed, text

__all__ = ["Hit", "Record", "check_documents", "check_metadata", "decode_payload", "encode_payload"]

Vector = npt.NDArray[np.float32]


@dataclass(slots=True)
class Record:
    """A record as it was given: what `get` and `scroll` return."""

    id: Id
    vector: Vector | None = field(repr=False)
    metadata: dict[str, Any]
    document: str | None


@dataclass(slots=True)
class Hit:
    """A record that a search found, with its exact score under the collection's metric.

    cosine and ip: larger is nearer. l2: the Euclidean distance, smaller is nearer.
    """

    id: Id
    score: float
    metadata: dict[str, Any]
    document: str | None
    vector: Vector | None = field(default=None, repr=False)


def check_documents(documents: Sequence[str | None] | None, n: int) -> list[str | None]:
    """Return n documents. Raises ShapeError or MetadataError."""
    if documents is None:
        return [None] * n
    return [_document(item, position) for position, item in enumerate(_listed(documents, n, "documents", "strings"))]


def _document(item: Any, position: int) -> str | None:
    if item is None or type(item) is str:
        return item
    found = text(item)
    if found is None:
        raise MetadataError(f"documents[{position}] must be a string or None, got {type(item).__name__}")
    return found


def _listed(values: Any, n: int, name: str, what: str) -> list[Any]:
    items = listed(as_cells(values, name))
    if items is None:
        raise ShapeError(
            f"{name} must be a list of {n} {what}, one for each id, got {type(values).__name__}: give a list, in the"
            " order of the ids"
        )
    if len(items) != n:
        raise ShapeError(f"{name} must be a list of {n} {what}, one for each id, got {len(items)}")
    return items


def check_metadata(metadata: Sequence[Mapping[str, Any] | None] | None, n: int) -> list[dict[str, Any]]:
    """Return n metadata dictionaries, copied, with built-in types (see `data.values`).

    Raises:
        ShapeError: not a list, or not n of them.
        MetadataError: an item is not a mapping, or a value has a type that cannot be kept.
    """
    if metadata is None:
        return [{} for _ in range(n)]
    items = _listed(as_rows(metadata, "metadata"), n, "metadata", "mappings")
    return [
        item.copy() if _is_simple(item) else _clean_mapping({} if item is None else item, f"metadata[{i}]", 0)
        for i, item in enumerate(items)
    ]


def _is_simple(item: Any) -> bool:
    """Say whether metadata needs no cleaning. Most of it needs none."""
    return type(item) is dict and _NAMES.issuperset(map(type, item)) and _SIMPLE.issuperset(map(type, item.values()))


_ATOMS = (str, bool, int, float, type(None), bytes, dt.date, uuid.UUID, Decimal)
_NAMES = frozenset({str})
_SIMPLE = frozenset({str, bool, int, float, type(None)})


def _clean_mapping(item: Any, where: str, depth: int) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise MetadataError(f"{where} must be a mapping or None, got {type(item).__name__}")
    cleaned: dict[str, Any] = {}
    for key, value in item.items():
        name = text(key)
        if name is None:
            raise MetadataError(f"{where}: keys must be strings, got {type(key).__name__}")
        cleaned[name] = _clean(value, where, name, depth)
    return cleaned


def _clean(value: Any, where: str, key: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise MetadataError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    try:
        value = exact(value)
        if isinstance(value, Decimal):
            kind(value)
    except MetadataError as error:
        raise MetadataError(f"{where}: {key!r}: {error}") from None
    if isinstance(value, dict):
        return _clean_mapping(value, f"{where}.{key}", depth + 1)
    if isinstance(value, list):
        return [_clean(item, where, key, depth + 1) for item in value]
    if isinstance(value, tuple):
        return tuple(_clean(item, where, key, depth + 1) for item in value)
    if not isinstance(value, _ATOMS):
        raise MetadataError(
            f"{where}: {key!r} is {type(value).__name__}; use str, int, float, bool, None, bytes, datetime, "
            "date, UUID, Decimal, or lists, tuples and dicts of these"
        )
    return value


# One tag for each type. A user's key that begins with "$" gets a second one, so no key looks like a tag.
_ENCODERS: dict[type, tuple[str, Any]] = {
    dt.datetime: ("$datetime", dt.datetime.isoformat),
    dt.date: ("$date", dt.date.isoformat),
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode()),
    uuid.UUID: ("$uuid", str),
    Decimal: ("$decimal", str),
}
_DECODERS: dict[str, Any] = {
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$bytes": base64.b64decode,
    "$uuid": uuid.UUID,
    "$decimal": Decimal,
    "$int": lambda digits: int(digits, 16),
    "$tuple": lambda items: tuple(_untag(item) for item in items),
}
_PLAIN = (str, int, float, type(None))
_HUGE = 1 << 1024  # the interpreter converts longer integers to decimal slowly, and very long ones not at all


def _tag(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return {"$int": f"{value:x}"} if isinstance(value, int) and abs(value) > _HUGE else value
    if isinstance(value, dict):
        return {"$" + key if key.startswith("$") else key: _tag(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tag(item) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [_tag(item) for item in value]}
    for base, (tag, encode) in _ENCODERS.items():
        if isinstance(value, base):
            return {tag: encode(value)}
    raise MetadataError(f"{type(value).__name__} is not a metadata type")


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if (decode := _DECODERS.get(key)) is not None:
            return decode(item)
    return {key.removeprefix("$"): _untag(item) for key, item in value.items()}


def _untag_mapping(metadata: dict[str, Any]) -> dict[str, Any]:
    for key, item in metadata.items():
        if key.startswith("$") or isinstance(item, dict | list):
            untagged: dict[str, Any] = _untag(metadata)
            return untagged
    return metadata  # most metadata has no tags


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
_decoder = json.JSONDecoder()
_quoted: Callable[[str], str] = json.encoder.encode_basestring


def encode_payload(id: Id, metadata: dict[str, Any], document: str | None) -> bytes:
    """Serialise what is sealed beside a vector. Raises MetadataError for text that is not valid Unicode."""
    try:
        # joined by hand: a call of the encoder costs several times as much as its work here
        name = _quoted(id) if isinstance(id, str) else _encoder.encode(_tag(id))
        fields = _encoder.encode(_tag(metadata)) if metadata else "{}"
        return f"[{name},{fields},{'null' if document is None else _quoted(document)}]".encode()
    except UnicodeEncodeError:
        raise MetadataError(f"record {id!r}: text with lone surrogates cannot be stored") from None


def decode_payload(payload: bytes) -> tuple[Id, dict[str, Any], str | None]:
    """Return (id, metadata, document) with the types they were given."""
    (id, metadata, document), _ = _decoder.raw_decode(payload.decode())
    return id if isinstance(id, str) else _untag(id), _untag_mapping(metadata), document
