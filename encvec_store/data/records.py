"""Plaintext records and hits, and the bytes of a record's payload.

The payload is what is sealed beside the vector: id, metadata and document, as JSON with tags for the
types that JSON lacks, so that everything comes back with the type it was given.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DuplicateIdError, IdError, MetadataError, ShapeError
from .fields import MAX_DEPTH, kind, unwrapped

__all__ = ["Hit", "Record", "check_documents", "check_ids", "check_metadata", "decode_payload", "encode_payload"]

MAX_ID_BYTES = 1024

Vector = npt.NDArray[np.float32]


@dataclass(slots=True)
class Record:
    """A record as it was given: what `get` and `scroll` return."""

    id: str
    vector: Vector | None = field(repr=False)
    metadata: dict[str, Any]
    document: str | None


@dataclass(slots=True)
class Hit:
    """A record found by a search, with its exact score under the collection's metric.

    cosine and ip: larger is nearer. l2: the Euclidean distance, smaller is nearer.
    """

    id: str
    score: float
    metadata: dict[str, Any]
    document: str | None
    vector: Vector | None = field(default=None, repr=False)


def check_ids(ids: Sequence[str], *, unique: bool = True) -> list[str]:
    """Return the ids as a list. Raises IdError (not a string, empty, too long) or DuplicateIdError."""
    if isinstance(ids, str | bytes):
        raise IdError("ids must be a list of strings, got one string")
    if not isinstance(ids, Iterable):
        raise IdError(f"ids must be a list of strings, got {type(ids).__name__}")
    checked = list(ids)
    good = set(map(type, checked)) <= {str} and all(checked) and 4 * max(map(len, checked), default=0) <= MAX_ID_BYTES
    if not (good and _is_utf8(checked)):
        _refuse_ids(checked)
    if unique and len(set(checked)) != len(checked):
        seen: set[str] = set()
        for position, value in enumerate(checked):
            if value in seen:
                raise DuplicateIdError(f"ids[{position}] repeats {value!r}; a batch names each id once")
            seen.add(value)
    return checked


def _is_utf8(texts: list[str]) -> bool:
    """Say whether texts have no lone surrogates."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_ids(checked: list[Any]) -> None:
    """Look at each id for itself. Raises IdError."""
    for position, value in enumerate(checked):
        if not isinstance(value, str):
            raise IdError(f"ids[{position}] is {type(value).__name__}, not str: {value!r}")
        if not value:
            raise IdError(f"ids[{position}] is empty")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise IdError(f"ids[{position}] cannot be encoded as UTF-8: {value!r}") from None
        if size > MAX_ID_BYTES:
            raise IdError(f"ids[{position}] has {size} bytes; at most {MAX_ID_BYTES} are allowed")


def check_documents(documents: Sequence[str | None] | None, n: int) -> list[str | None]:
    """Return n documents. Raises ShapeError or MetadataError."""
    if documents is None:
        return [None] * n
    texts = _listed(documents, n, "documents", "strings")
    for position, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise MetadataError(f"documents[{position}] is {type(text).__name__}, not str")
    return texts


def _listed(values: Any, n: int, name: str, what: str) -> list[Any]:
    unordered = isinstance(values, str | bytes | Mapping | Set)
    if unordered or not isinstance(values, Collection) or len(values) != n:
        raise ShapeError(f"{name}: expected a list of {n} {what}, one an id")
    return list(values)


def check_metadata(metadata: Sequence[Mapping[str, Any] | None] | None, n: int) -> list[dict[str, Any]]:
    """Return n metadata dictionaries, copied, with numpy scalars turned into Python's. Raises MetadataError."""
    if metadata is None:
        return [{} for _ in range(n)]
    items = _listed(metadata, n, "metadata", "mappings")
    return [
        item.copy() if _is_simple(item) else _clean_mapping({} if item is None else item, f"metadata[{i}]", 0)
        for i, item in enumerate(items)
    ]


def _is_simple(item: Any) -> bool:
    """Say whether metadata has nothing to clean, as it mostly has not."""
    return type(item) is dict and _NAMES.issuperset(map(type, item)) and _SIMPLE.issuperset(map(type, item.values()))


_ATOMS = (str, bool, int, float, type(None), bytes, dt.date, uuid.UUID, Decimal)
_NAMES = frozenset({str})
_SIMPLE = frozenset({str, bool, int, float, type(None)})


def _clean_mapping(item: Any, where: str, depth: int) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise MetadataError(f"{where} is {type(item).__name__}, not a mapping")
    for key in item:
        if not isinstance(key, str):
            raise MetadataError(f"{where}: keys must be strings, got {key!r}")
    return {key: _clean(value, where, key, depth) for key, value in item.items()}


def _clean(value: Any, where: str, key: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise MetadataError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    value = unwrapped(value)
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
    if isinstance(value, Decimal):
        try:
            kind(value)
        except MetadataError as error:
            raise MetadataError(f"{where}: {key!r}: {error}") from None
    return value


# One tag a type. User keys that begin with "$" get a second one, so a tag is never mistaken.
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
_HUGE = 1 << 1024  # the interpreter converts longer integers to decimal slowly, and then not at all


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
    return metadata  # as it mostly is


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
_decoder = json.JSONDecoder()
_quoted: Callable[[str], str] = json.encoder.encode_basestring


def encode_payload(id: str, metadata: dict[str, Any], document: str | None) -> bytes:
    """Serialise what is sealed beside a vector. Raises MetadataError for text that is no valid Unicode."""
    try:
        # put together by hand: an encoder is set up anew by every call, at several times the cost of its work here
        fields = _encoder.encode(_tag(metadata)) if metadata else "{}"
        return f"[{_quoted(id)},{fields},{'null' if document is None else _quoted(document)}]".encode()
    except UnicodeEncodeError:
        raise MetadataError(f"record {id!r}: text with lone surrogates cannot be stored") from None


def decode_payload(payload: bytes) -> tuple[str, dict[str, Any], str | None]:
    """Return (id, metadata, document) with the types they were given."""
    (id, metadata, document), _ = _decoder.raw_decode(payload.decode())
    return id, _untag_mapping(metadata), document
