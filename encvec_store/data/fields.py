"""Field policies, and what equality and order mean for metadata values.

Filters, blind tokens and plain columns all use `canonical` and `order_key`. So the answer of a filter
does not depend on the policy of its field.
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple

from ..errors import InputError, MetadataError
from .values import exact, text

__all__ = [
    "MISSING",
    "POLICIES",
    "Policy",
    "Term",
    "canonical",
    "dates",
    "field_value",
    "kind",
    "order_key",
    "parse_policies",
    "paths",
    "plain_term",
]

MAX_DEPTH = 32
"""Lists and dicts may be nested this deep."""
_EPOCH = dt.datetime(1970, 1, 1)
_EPOCH_UTC = _EPOCH.replace(tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_MAX_EXPONENT = 10_000  # of a Decimal: an exact comparison with 1E999999999 would fill the memory


class Policy(StrEnum):
    """What the store may see of a field."""

    SEALED = "sealed"
    """Nothing. The client filters, after it has opened the records."""
    BLIND = "blind"
    """A keyed token for each value. The store sees which records share a value, not the value."""
    PLAIN = "plain"
    """The value itself."""


POLICIES = tuple(p.value for p in Policy)
WILDCARD = "*"
MISSING: Final = object()
"""The value of a field that metadata does not have."""


class Term(NamedTuple):
    """One value of one field, as a store may index it. `kind` keeps values of different types apart."""

    kind: str
    value: str | float | bytes


def parse_policies(fields: Mapping[str, str] | None) -> dict[str, Policy] | None:
    """Check a collection's `fields` argument. None allows any field, sealed."""
    if fields is None:
        return None
    if not isinstance(fields, Mapping):
        raise InputError(f"fields must be a mapping of field names to policies, got {type(fields).__name__}")
    policies: dict[str, Policy] = {}
    for given, policy in fields.items():
        name = text(given)
        if not name:
            raise InputError(f"field names must be non-empty strings, got {given!r}")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"field {name!r} cannot be encoded as UTF-8") from None
        if name.startswith("$") or name in ("and", "or", "not"):
            raise InputError(f"a field must not be named {name!r}: the name is an operator of `where`")
        try:
            policies[name] = Policy(policy)
        except ValueError:
            raise InputError(f"field {name!r}: policy must be one of {', '.join(POLICIES)}, got {policy!r}") from None
    if policies.get(WILDCARD, Policy.SEALED) is not Policy.SEALED:
        raise InputError("the wildcard field '*' must be 'sealed': name each field that the store may index")
    return policies


def field_value(metadata: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field, or MISSING. A name with dots also reaches into nested dicts: "a.b" is b of a.

    A key that has the dots itself comes first, at every level.
    """
    value = metadata.get(name, MISSING)
    if value is not MISSING or "." not in name:
        return value
    dot = name.find(".")
    while dot >= 0:
        inner = metadata.get(name[:dot])
        if isinstance(inner, dict):
            value = field_value(inner, name[dot + 1 :])
            if value is not MISSING:
                return value
        dot = name.find(".", dot + 1)
    return MISSING


def paths(name: str) -> Iterator[str]:
    """Yield a field's name, and the names of the fields that it may be nested in."""
    yield name
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def kind(value: Any) -> str:
    """Name the kind of a value: only values of one kind are compared.

    Booleans are not numbers, and aware datetimes ("instant") are not naive ones.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case Decimal() if value.is_snan() or (value.is_finite() and abs(value.adjusted()) > _MAX_EXPONENT):
            raise MetadataError(f"a Decimal must be a number with an exponent from -{_MAX_EXPONENT} to {_MAX_EXPONENT}")
        case int() | float() | Decimal():
            return "number"
        case str():
            return "str"
        case bytes():
            return "bytes"
        case dt.datetime():
            return "datetime" if value.utcoffset() is None else "instant"
        case dt.date():
            return "date"
        case uuid.UUID():
            return "uuid"
        case list() | tuple():
            return "list"
        case dict():
            return "dict"
    raise MetadataError(f"{type(value).__name__} is not a metadata type")


def order_key(value: Any) -> Any:
    """Return what orders values of one `kind`, or None if they have no order."""
    match kind(value):
        case "instant":
            return (value - _EPOCH_UTC) // _MICROSECOND
        case "datetime":
            return (value - _EPOCH) // _MICROSECOND
        case "date":
            return value.toordinal()
        case "number":
            return None if value != value else value  # NaN has no order
        case "str" | "bytes":
            return value
    return None


def dates(value: Any) -> list[dt.date]:
    """Return what ISO text of a filter stands for beside itself: dates and times; nothing for any other value."""
    if type(value) is not str or not _ISO.fullmatch(value):
        return []
    try:
        moment = dt.datetime.fromisoformat(value)
        if len(value) == len("2024-01-31"):
            return [moment.date(), moment, moment.replace(tzinfo=dt.UTC)]
        return [moment]
    except ValueError:  # such as the 31st of February
        return []


def canonical(value: Any, depth: int = 0) -> bytes:
    """Encode a value. A filter takes two values as equal exactly if their encodings are equal.

    int, float and Decimal compare by value (1 equals 1.0). A boolean equals no number.

    Args:
        value: from metadata or from a filter.
        depth: how many lists and dicts enclose it.

    Raises:
        MetadataError: metadata cannot hold values of this type, or the value is nested too deep.
    """
    if depth > MAX_DEPTH:  # counted here: a program may raise the interpreter's recursion limit until it crashes
        raise MetadataError(f"the value is nested deeper than {MAX_DEPTH} levels")
    value = exact(value)
    name = kind(value)
    match name:
        case "null":
            body = b""
        case "bool":
            body = b"1" if value else b"0"
        case "number":
            try:
                numerator, denominator = value.as_integer_ratio()
                # hex: decimal conversion of huge integers is quadratic, and capped by the interpreter
                body = f"{numerator:x}/{denominator:x}".encode()
            except (ValueError, OverflowError):
                body = b"nan" if value != value else (b"inf" if value > 0 else b"-inf")
        case "str":
            body = value.encode()
        case "bytes":
            body = value
        case "instant" | "datetime" | "date":
            body = str(order_key(value)).encode()
        case "uuid":
            body = value.bytes
        case "list":
            body = b"".join(_framed(canonical(item, depth + 1)) for item in value)
        case _:
            if not all(isinstance(key, str) for key in value):
                raise MetadataError("keys must be strings")
            body = b"".join(_framed(key.encode()) + _framed(canonical(value[key], depth + 1)) for key in sorted(value))
    return name.encode() + b":" + body


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


def plain_term(value: Any) -> Term:
    """Return the term under which a store indexes a value of a `plain` field.

    Numbers become floats, which may round. So a store may find too many records, and the client checks them again.
    """
    name = kind(value)
    order = order_key(value)
    match name:
        case "str":
            return Term(name, value)
        case "bool":
            return Term(name, float(value))
        case "number" | "instant" | "datetime" | "date" if order is not None:
            try:
                return Term(name, float(order))
            except OverflowError:
                return Term(name, float("inf") if order > 0 else float("-inf"))
    return Term("other", canonical(value))
