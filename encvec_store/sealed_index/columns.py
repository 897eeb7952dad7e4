"""Metadata of the records in memory, a column for each field: a filter then says at once which rows pass.

The content of a row never changes, so a column only grows.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..data.arrays import Rows
from ..data.conditions import And, Condition, Filter, Not, fields_of, key_of
from ..data.fields import MISSING, field_value, paths
from ..runtime.forks import Mutex
from .column import FieldColumn, Values
from .graph import Graph
from .passing import PassingPositions
from .rowsets import is_among
from .state import Indexed, Snapshot

__all__ = ["Block", "FieldColumns", "Filtered"]

MOST = 64
"""Fields that become columns by themselves. A field that a filter names always becomes one."""
_LONG = 256
"""Characters or bytes of values, on average, that keep their field from becoming a column by itself."""
_FILTERS, _REMEMBERED = 16, 128 << 20
"""Filters whose result is remembered, and bytes that they take together."""
Mask = npt.NDArray[np.bool_]
_NONE = np.empty(0, np.int64)


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
        self._choices: WeakKeyDictionary[Indexed, PassingPositions] = WeakKeyDictionary()
        self._mask = np.append(mask, True)  # at place -1: who opens such a row finds out

    def among(self, rows: Rows, graph: Graph | None = None) -> Mask:
        """Say for each of (n,) rows, those of a graph perhaps, whether it passes."""
        found: Mask = self._mask[self._table.places_of(rows, graph)]
        return found

    def choice(self, part: Indexed) -> PassingPositions:
        """Return which positions of a part pass."""
        found = self._choices.get(part)
        if found is None:
            found = self._choices[part] = PassingPositions(part, self.among(part.rows, part.graph))
        return found

    @property
    def bytes(self) -> int:
        """The memory held."""
        return self._mask.nbytes + sum(choice.bytes for choice in list(self._choices.values()))

    def known(self, rows: Rows) -> Rows:
        """Return those of ascending rows that have columns."""
        return rows[is_among(rows, self._table.rows)]


@dataclass(frozen=True, eq=False)
class Block:
    """The columns of some rows, as they are stored."""

    rows: Rows
    """(n,), ascending."""
    columns: dict[str, Values]
    left_out: frozenset[str]
    """Fields that some of the rows have, and that are no columns."""
    nested: frozenset[str]
    """Fields that hold dicts."""


class FieldColumns:
    """The columns of one collection. Several threads may use them."""

    def __init__(self) -> None:
        self._guard = Mutex()
        self._named: set[str] = set()
        self._dead: frozenset[int] = frozenset()
        self._begin()

    def forget(self) -> None:
        """Drop everything but the names of fields that filters have asked for."""
        with self._guard:
            self._begin()

    def _begin(self) -> None:
        self._table = _Table(_NONE)
        self._columns: dict[str, FieldColumn] = {}
        self._left_out: set[str] = set()
        self._nested: set[str] = set()
        """Fields that hold dicts: others may lie in them."""
        self._unreadable: Rows = _NONE
        self._covered: Callable[[], Snapshot | None] = _nothing
        self._filters: dict[Any, Filtered] = {}
        """What filters let pass, the one used last at the end."""
        self.seen: set[str] = set()
        """Names of stored blocks that were tried."""

    @property
    def bytes(self) -> int:
        """About the memory held."""
        columns = sum(column.bytes for column in list(self._columns.values()))
        return self._table.rows.nbytes + columns + sum(found.bytes for found in list(self._filters.values()))

    @property
    def rows(self) -> Rows:
        """The rows known, ascending."""
        return self._table.rows

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

    def follow(self, dead: frozenset[int]) -> None:
        """Drop everything if other key versions are dead than before."""
        if dead != self._dead:
            with self._guard:
                self._begin()
                self._dead = dead

    def missing(self, state: Snapshot) -> Rows:
        """Return the living rows of a state that are not known yet, ascending.

        Call `cover` when they were added. Nothing is kept of rows whose key version is dead.
        """
        if self._covered() is state:
            return _NONE
        self.follow(state.dead)
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
            self._nested |= {name for each in metadata for name, value in each.items() if isinstance(value, dict)}
            self._choose(metadata)
            for name, column in self._columns.items():
                column.write(len(table.rows), _values(metadata, name))
            self._extend(rows)

    def adopt(self, block: Block, wanted: Rows) -> None:
        """Take those of the wanted rows, ascending, that are in a block.

        None are taken if the block lacks a field that a filter has named.
        """
        with self._guard:
            lost = block.left_out - self._named
            hidden = {name for name in self._named - block.columns.keys() if block.nested & set(paths(name))}
            if lost != block.left_out or hidden:
                return
            table = self._table
            places = np.flatnonzero(is_among(block.rows, wanted) & ~is_among(block.rows, table.rows))
            if not len(places):
                return
            for name in lost & self._columns.keys():
                del self._columns[name]
            self._left_out |= lost
            self._nested |= block.nested
            for name in block.columns:
                if name not in self._columns and name not in self._left_out:
                    self._add_column(name)
            for name, column in self._columns.items():
                if name in block.columns:
                    column.adopt(len(table.rows), block.columns[name], places)
            self._extend(block.rows[places])

    def block(self, rows: Rows) -> Block:
        """Return the columns of those of ascending rows that are known."""
        with self._guard:
            table = self._table
            rows = rows[is_among(rows, table.rows)]
            places = np.searchsorted(table.rows, rows)
            columns = {name: column.taken(places) for name, column in self._columns.items()}
            return Block(rows, columns, frozenset(self._left_out), frozenset(self._nested))

    def skip(self, rows: Rows) -> None:
        """Note that these rows cannot be opened, or are gone. They pass, so that whoever needs them finds out."""
        with self._guard:
            self._unreadable = np.unique(np.concatenate([self._unreadable, rows]))

    def passing(self, node: Filter) -> Filtered:
        """Return the rows that satisfy a filter. The next search with the same filter gets the same."""
        key = key_of(node)
        with self._guard:
            found = self._filters.pop(key, None)
            if found is None:
                count = len(self._table.rows)
                if self._lacking(node):
                    return Filtered(self._table, np.ones(count, np.bool_))
                found = Filtered(self._table, self._mask(node, count))
            self._filters[key] = found
            held = [filtered.bytes for filtered in self._filters.values()]
            while len(held) > 1 and (len(held) > _FILTERS or sum(held) > _REMEMBERED):
                del self._filters[next(iter(self._filters))], held[0]
            return found

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

    def _extend(self, rows: Rows) -> None:
        """Note the rows that the columns have taken at their end."""
        self._filters = {}
        table = self._table
        every = np.concatenate([table.rows, rows])
        if (np.diff(every[max(0, len(table.rows) - 1) :]) > 0).all():
            self._table = _Table(every, table.places)
        else:
            order = np.argsort(every)
            for column in self._columns.values():
                column.reorder(order)
            self._table = _Table(every[order])

    def _choose(self, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Begin the columns that these records add, and leave other fields out."""
        for name in self._named - self._columns.keys():
            self._columns[name] = FieldColumn()
        for name in dict.fromkeys(name for each in metadata for name in each):
            if name not in self._columns and name not in self._left_out:
                if len(self._columns) < MOST and _are_short(_values(metadata, name)):
                    self._columns[name] = FieldColumn()
                else:
                    self._left_out.add(name)

    def _add_column(self, name: str) -> None:
        if name in self._named or len(self._columns) < MOST:
            self._columns[name] = FieldColumn()
        else:
            self._left_out.add(name)

    def _lacking(self, node: Filter) -> set[str]:
        """Return the fields of a filter that some record may have, and for which there is no column."""
        names = fields_of(node) - self._columns.keys()
        return {name for name in names if name in self._left_out or self._nested & set(paths(name))}


def _values(metadata: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    if "." in name:
        return [field_value(each, name) for each in metadata]
    return [each.get(name, MISSING) for each in metadata]


def _are_short(values: Iterable[Any]) -> bool:
    """Return True if values are scalars, and not long on average."""
    there = [value for value in values if value is not MISSING]
    if any(isinstance(value, list | tuple | dict) for value in there):
        return False
    return sum(len(value) for value in there if isinstance(value, str | bytes)) <= _LONG * len(there)


def _nothing() -> None:
    return None
