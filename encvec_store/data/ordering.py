"""`order_by`: the order of records by their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ..errors import InputError
from .fields import MISSING, Policy, field_value, kind, order_key
from .filters import check_fields
from .values import listed, text

__all__ = ["Order", "parse_order"]

_KINDS = ("bool", "number", "str", "bytes", "date", "datetime", "instant", "uuid")
Key = tuple[tuple[int, Any] | None, ...]


@dataclass(frozen=True)
class Order:
    """Fields, the most important first, and whether each descends.

    Values of one kind have their order: numbers by value, text by code point, times by time, False before True, UUIDs
    by their bytes. Kinds follow each other: booleans, numbers, text, bytes, dates, datetimes without a zone, datetimes
    with one, UUIDs. "Descending" reverses all this. Records without the field, and those whose value has no order
    (None, NaN, lists, dicts), come last either way. Records that are equal in all fields keep the order they had.
    """

    fields: tuple[tuple[str, bool], ...]

    def key(self, metadata: Mapping[str, Any]) -> Key:
        """Return what `places` needs of a record."""
        return tuple(_key(field_value(metadata, name)) for name, _ in self.fields)

    def places(self, keys: Sequence[Key]) -> list[int]:
        """Return the places of records with these keys, in order."""
        places = list(range(len(keys)))
        for number, (_, descends) in reversed(list(enumerate(self.fields))):
            having = [(key, place) for place in places if (key := keys[place][number]) is not None]
            having.sort(key=itemgetter(0), reverse=descends)
            places = [place for _, place in having] + [place for place in places if keys[place][number] is None]
        return places


def parse_order(order_by: str | Sequence[str] | None, policies: Mapping[str, Policy] | None = None) -> Order | None:
    """Turn `order_by` into an order: a field, or several; a leading "-" means descending. None means none.

    Raises:
        InputError: malformed.
        UnknownFieldError: the collection declares its fields (`policies`), and another one is named.
    """
    if order_by is None:
        return None
    given = [order_by] if isinstance(order_by, str) else listed(order_by)
    names = [text(item) for item in given or ()]
    if not names or not all(name and name != "-" for name in names):
        raise InputError(
            f"order_by must be a field or a list of fields, with '-' before those that descend, got {order_by!r}"
        )
    fields = tuple((name.removeprefix("-"), name.startswith("-")) for name in names if name)
    check_fields({name for name, _ in fields}, policies, "order_by")
    return Order(fields)


def _key(value: Any) -> tuple[int, Any] | None:
    if value is MISSING or (name := kind(value)) not in _KINDS:
        return None
    key = value if name in ("bool", "uuid") else order_key(value)
    return None if key is None else (_KINDS.index(name), key)
