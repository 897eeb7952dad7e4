"""Metadata of the records in memory, a column for each field: a filter then says at once which rows pass.

The content of a row never changes, so a column only grows. A distinct value is kept once, and has a number.
"""

from __future__ import annotations

import bisect
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..data.arrays import Rows
from ..data.conditions import And, Condition, Filter, Not, fields_of
from ..data.fields import MISSING, canonical, field_value, kind, order_key, paths
from ..runtime.forks import Mutex
from .graph import Graph
from .rowsets import is_among
from .state import Snapshot

__all__ = ["FieldColumns", "Filtered"]

MOST = 64
"""Fields that become columns by themselves. A field that a filter names always becomes one."""
_LONG = 256
"""Characters or bytes of a value that keep its field from becoming a column by itself."""
Mask = npt.NDArray[np.bool_]
_NONE = np.empty(0, np.int64)
_NUMBERS = ("number", "instant", "datetime", "date")
_LEAST = 1_024
_VALUE = 300
"""Bytes that a distinct value takes in the three places that know it."""
_ABSENT = 0
"""The number of a missing value."""


class _Column:
    """One field. Not thread-safe: `FieldColumns` guards it."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._known: dict[Any, int] = {}
        self._numbers: dict[bytes, int] = {}
        self._values: list[Any] = [MISSING]
        self._codes: npt.NDArray[np.unsignedinteger[Any]] = np.zeros(_LEAST, np.uint8)
        self._keys: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64] | list[Any]]] = {}
        """By kind: numbers of its values in the order of their keys, and the keys; made when needed."""
        self._sorted = 1
        """How many values `_keys` knows; the first is the missing one."""

    @property
    def bytes(self) -> int:
        """About the memory held."""
        return self._codes.nbytes + _VALUE * len(self._values)

    def reorder(self, order: npt.NDArray[np.intp]) -> None:
        """Put the rows in another order."""
        self._codes = self._codes[order]

    def write(self, start: int, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Take the field's values of more rows, which begin at a place."""
        numbers = np.fromiter(
            (self._number(field_value(each, self._field)) for each in metadata), np.int64, len(metadata)
        )
        stop, most = start + len(numbers), len(self._values) - 1
        dtype = np.promote_types(self._codes.dtype, np.min_scalar_type(most))
        if stop > len(self._codes) or dtype != self._codes.dtype:
            grown = np.zeros(max(len(self._codes), stop + stop // 2), dtype)
            grown[: len(self._codes)] = self._codes  # a field that appears late begins with fewer than `start`
            self._codes = grown  # masks that are being made see the old one
        self._codes[start:stop] = numbers

    def _number(self, value: Any) -> int:
        if value is MISSING:
            return _ABSENT
        try:
            # 1, 1.0 and True are equal to Python, and only the first two to a filter
            quick = type(value), value
            number = self._known.get(quick)
        except TypeError:  # a list or a dict
            quick, number = None, None
        if number is None:
            number = self._numbers.setdefault(canonical(value), len(self._values))
            if number == len(self._values):
                self._values.append(value)
            if quick is not None and value == value:  # not NaN, which would be another key each time
                self._known[quick] = number
        return number

    def mask(self, condition: Condition, count: int) -> Mask:
        """Return (count,) which of the rows satisfy a condition on the field."""
        codes, passing = self._codes[:count], np.zeros(len(self._values), np.bool_)
        match condition.operator:
            case "exists":
                passing[_ABSENT], opposite = True, bool(condition.values)
            case "in" | "nin":
                numbers = [number for value in condition.values if (number := self._numbers.get(value)) is not None]
                passing[numbers], opposite = True, condition.operator == "nin"
            case _:
                passing[self._in_order(condition)], opposite = True, False
        if opposite:
            passing = ~passing
        found: Mask = passing[codes]
        return found

    def _in_order(self, condition: Condition) -> npt.NDArray[np.int64]:
        """Return the numbers of the values that satisfy an operator of order."""
        (operand,) = condition.values.values()
        if self._sorted != len(self._values):
            self._sort()
        numbers, keys = self._keys.get(kind(operand), (np.empty(0, np.int64), []))
        want = order_key(operand)
        if isinstance(keys, list):
            low, high = bisect.bisect_left(keys, want), bisect.bisect_right(keys, want)
        else:  # keys are rounded: values that round as the operand does are compared themselves
            at = _rounded(want)
            low, high = int(np.searchsorted(keys, at, "left")), int(np.searchsorted(keys, at, "right"))
        sure = numbers[:low] if condition.operator in ("lt", "lte") else numbers[high:]
        close = [n for n in numbers[low:high].tolist() if condition({condition.field: self._values[n]})]
        return np.concatenate([sure, np.array(close, np.int64)])

    def _sort(self) -> None:
        """Put the values that came since into order."""
        by_kind: dict[str, list[tuple[Any, int]]] = {}
        for number, value in enumerate(self._values[self._sorted :], self._sorted):
            key = order_key(value)
            if key is not None:
                by_kind.setdefault(kind(value), []).append((key, number))
        for name, pairs in by_kind.items():
            numbers, keys = self._keys.get(name, (np.empty(0, np.int64), []))
            if name in _NUMBERS:
                held, more = np.asarray(keys, np.float64), np.array([_rounded(key) for key, _ in pairs], np.float64)
                order = np.argsort(more, kind="stable")
                at = np.searchsorted(held, more[order], "right")
                new = np.array([number for _, number in pairs], np.int64)[order]
                self._keys[name] = np.insert(numbers, at, new), np.insert(held, at, more[order])
            else:
                both = sorted([*zip(keys, numbers.tolist(), strict=True), *pairs])
                self._keys[name] = np.array([number for _, number in both], np.int64), [key for key, _ in both]
        self._sorted = len(self._values)


@dataclass(frozen=True, eq=False)
class _Table:
    """The rows of all columns, ascending. A larger table that only appends to it shares `places`."""

    rows: Rows
    places: WeakKeyDictionary[Graph, npt.NDArray[np.intp] | slice] = field(default_factory=WeakKeyDictionary)
    """Where the rows of a graph are."""

    def places_of(self, rows: Rows, graph: Graph | None) -> npt.NDArray[np.intp] | slice:
        """Return the places of rows; -1 for those that are not here."""
        held = None if graph is None else self.places.get(graph)
        if held is not None:
            return held
        found = np.searchsorted(self.rows, rows)
        found[found == len(self.rows)] = -1
        if len(self.rows):
            found[self.rows[found] != rows] = -1
        whole = len(found) and found[0] >= 0 and (np.diff(found) == 1).all()
        return slice(int(found[0]), int(found[-1]) + 1) if whole else found


class Filtered:
    """The rows that satisfy a filter, and those of which nobody knows. Implements `Allowed`."""

    def __init__(self, table: _Table, mask: Mask) -> None:
        self._table = table
        self._mask = np.append(mask, True)  # at place -1: who opens such a row finds out

    def among(self, rows: Rows, graph: Graph | None = None) -> Mask:
        """Say for each of (n,) rows, those of a graph perhaps, whether it passes."""
        found: Mask = self._mask[self._table.places_of(rows, graph)]
        return found

    def known(self, rows: Rows) -> Rows:
        """Return those of ascending rows that have columns."""
        return rows[is_among(rows, self._table.rows)]


class FieldColumns:
    """The columns of one collection. Several threads may use them."""

    def __init__(self) -> None:
        self._guard = Mutex()
        self._named: set[str] = set()
        self._begin()

    def forget(self) -> None:
        """Drop everything but the names of fields that filters have asked for."""
        with self._guard:
            self._begin()

    def _begin(self) -> None:
        self._table = _Table(_NONE)
        self._columns: dict[str, _Column] = {}
        self._left_out: set[str] = set()
        self._nested: set[str] = set()
        """Fields that hold dicts: others may lie in them."""
        self._unreadable: Rows = _NONE
        self._covered: Callable[[], Snapshot | None] = _nothing
        self._dead: frozenset[int] = frozenset()

    @property
    def bytes(self) -> int:
        """About the memory held."""
        return self._table.rows.nbytes + sum(column.bytes for column in list(self._columns.values()))

    @property
    def count(self) -> int:
        """The number of rows known."""
        return len(self._table.rows)

    def want(self, node: Filter) -> None:
        """See to it that there is a column for each field of a filter. If one is missing, all are made anew."""
        with self._guard:
            if not len(self._table.rows):
                self._named |= fields_of(node)
            elif lacking := self._lacking(node):
                self._named |= lacking
                self._begin()

    def missing(self, state: Snapshot) -> Rows:
        """Return the living rows of a state that are not known yet, ascending.

        Call `cover` when they were added. Nothing is kept of rows whose key version is dead.
        """
        if self._covered() is state:
            return _NONE
        if state.dead != self._dead:
            self.forget()
            self._dead = state.dead
        table = self._table
        graphs = [part.living_rows for part in state.parts if part.graph not in table.places]
        rows = np.concatenate([*graphs, state.tail.rows])
        return np.unique(rows[~(is_among(rows, table.rows) | is_among(rows, self._unreadable))])

    def cover(self, state: Snapshot) -> None:
        """Note that everything in a state is known."""
        with self._guard:
            table = self._table
            for part in state.parts:
                if part.graph not in table.places:
                    living = part.living_rows
                    if not (is_among(living, table.rows) | is_among(living, self._unreadable)).all():
                        return  # somebody has asked for another field meanwhile
                    table.places[part.graph] = table.places_of(part.rows, None)
            self._covered = weakref.ref(state)

    def add(self, rows: Rows, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Take the metadata of n rows."""
        with self._guard:
            table = self._table
            new = ~is_among(rows, table.rows)
            if not new.all():
                rows, metadata = rows[new], [each for each, is_new in zip(metadata, new, strict=True) if is_new]
            if not len(rows):
                return
            for name in self._names(metadata):
                self._columns.setdefault(name, _Column(name))
            for column in self._columns.values():
                column.write(len(table.rows), metadata)
            every = np.concatenate([table.rows, rows])
            if (np.diff(every[max(0, len(table.rows) - 1) :]) > 0).all():
                self._table = _Table(every, table.places)
            else:
                order = np.argsort(every)
                for column in self._columns.values():
                    column.reorder(order)
                self._table = _Table(every[order])

    def skip(self, rows: Rows) -> None:
        """Note that these rows cannot be opened, or are gone. They pass, so that whoever needs them finds out."""
        with self._guard:
            self._unreadable = np.unique(np.concatenate([self._unreadable, rows]))

    def passing(self, node: Filter) -> Filtered:
        """Return the rows that satisfy a filter."""
        with self._guard:
            count = len(self._table.rows)
            mask = np.ones(count, np.bool_) if self._lacking(node) else self._mask(node, count)
            return Filtered(self._table, mask)

    def _mask(self, node: Filter, count: int) -> Mask:
        match node:
            case Condition():
                column = self._columns.get(node.field)
                return np.full(count, node({})) if column is None else column.mask(node, count)
            case Not():
                return ~self._mask(node.child, count)
        masks = [self._mask(child, count) for child in node.children]
        found: Mask = np.logical_and.reduce(masks) if isinstance(node, And) else np.logical_or.reduce(masks)
        return found

    def _names(self, metadata: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return the names of the fields that these records add to the columns, and leave others out."""
        found = dict.fromkeys(self._named)
        for each in metadata:
            for name, value in each.items():
                if isinstance(value, dict):
                    self._nested.add(name)
                if name in found or name in self._columns or name in self._left_out:
                    continue
                if len(self._columns) + len(found) >= MOST or not _is_short(value):
                    self._left_out.add(name)
                else:
                    found[name] = None
        return list(found)

    def _lacking(self, node: Filter) -> set[str]:
        """Return the fields of a filter that some record may have, and for which there is no column."""
        names = fields_of(node) - self._columns.keys()
        return {name for name in names if name in self._left_out or self._nested & set(paths(name))}


def _is_short(value: Any) -> bool:
    return not isinstance(value, list | tuple | dict) and not (isinstance(value, str | bytes) and len(value) > _LONG)


def _nothing() -> None:
    return None


def _rounded(key: Any) -> float:
    try:
        return float(key)
    except OverflowError:
        return float("inf") if key > 0 else float("-inf")
