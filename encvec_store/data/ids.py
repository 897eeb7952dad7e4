"""Record ids: strings, integers and UUIDs.

Ids of different types are different: 1, "1" and a UUID never name the same record.
"""

from __future__ import annotations

import uuid
from typing import Any

from ..errors import DuplicateIdError, IdError, InputError, MetadataError
from .values import exact, listed, text

__all__ = ["MAX_ID_BYTES", "Id", "check_ids", "check_name", "id_bytes"]

Id = str | int | uuid.UUID
MAX_ID_BYTES = 1024
MAX_NAME_BYTES = 255
LEAST_INT, MOST_INT = -(1 << 63), (1 << 64) - 1
_TAG = b"\xff"
"""No UTF-8 text has this byte, so no tagged id equals a string."""


def check_ids(ids: Any, *, unique: bool = True) -> list[Id]:
    """Return the ids as a list, with the types that `Id` names.

    Raises:
        IdError: they are not a list, or an id is of a wrong type, empty or too long.
        DuplicateIdError: with `unique`, an id comes twice.
    """
    given = listed(ids)
    if given is None:
        raise IdError(
            f"ids must be a list, tuple or one-dimensional array of strings, integers or UUIDs, got"
            f" {type(ids).__name__}: give a list, in the order of the vectors"
        )
    kinds = set(map(type, given))
    good = kinds <= {str} and all(given) and 4 * max(map(len, given), default=0) <= MAX_ID_BYTES and _is_utf8(given)
    checked: list[Id] = given if good else [_checked(position, value) for position, value in enumerate(given)]
    if unique and len(set(checked)) != len(checked):
        seen: set[Id] = set()
        for position, value in enumerate(checked):
            if value in seen:
                raise DuplicateIdError(f"ids[{position}] repeats {value!r}: a batch must name each id once")
            seen.add(value)
    return checked


def _is_utf8(texts: list[str]) -> bool:
    """Say whether texts have no lone surrogates."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(position: int, value: Any) -> Id:
    try:
        value = exact(value)
    except MetadataError as error:
        raise IdError(f"ids[{position}]: {error}") from None
    match value:
        case bool():
            pass
        case str():
            return _checked_text(position, value)
        case int():
            if LEAST_INT <= value <= MOST_INT:
                return value
            raise IdError(f"ids[{position}] must be from -2^63 to 2^64 - 1; use a string for a larger number")
        case uuid.UUID():
            return value
    raise IdError(f"ids[{position}] must be a string, an integer or a UUID, got {type(value).__name__}")


def _checked_text(position: int, value: str) -> str:
    if not value:
        raise IdError(f"ids[{position}] must not be empty")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise IdError(f"ids[{position}] cannot be encoded as UTF-8: {value!r}") from None
    if size > MAX_ID_BYTES:
        raise IdError(f"ids[{position}] must have at most {MAX_ID_BYTES} bytes, got {size}")
    return value


def id_bytes(id: Id) -> bytes:
    """Return the canonical bytes of an id, from which its token is made: no two ids have the same."""
    if isinstance(id, str):
        return id.encode()
    return _TAG + (b"u" + id.bytes if isinstance(id, uuid.UUID) else b"i%d" % id)


def check_name(what: str, value: str, least: int) -> str:
    """Return the name of a collection or a tenant, of `least` to 255 bytes. Raises InputError."""
    name = text(value)
    if name is None:
        raise InputError(f"{what} must be a string, got {type(value).__name__}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InputError(f"{what} cannot be encoded as UTF-8: {name!r}") from None
    if not least <= size <= MAX_NAME_BYTES or "\0" in name:
        raise InputError(f"{what} must have {least} to {MAX_NAME_BYTES} bytes and no NUL, got {name!r}")
    return name
