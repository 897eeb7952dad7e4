"""Predicates as SQL over a table of terms, in two forms.

`listing` lists the rows, for a filter that few rows pass. `holds` is a condition on one row, for a filter that many
pass. Both are built from quoted names and placeholders only, and by hand: psycopg.sql takes ten times as long, and
every filtered search waits for it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from psycopg.sql import Identifier

from ...data.filters import AllOf, AnyOf, Match, Predicate, Present, Range, breadth
from .wire import KEY, byte_arrays, split_value, typed_kind

__all__ = ["PredicateSql"]


class PredicateSql:
    """Compiles predicates; values become parameters, collected in `parameters`."""

    def __init__(self, records: Identifier, terms: Identifier) -> None:
        self._records = records.as_string()
        self._terms = terms.as_string()
        self._aliases = 0
        self.parameters: dict[str, Any] = {}

    def listing(self, node: Predicate) -> str:
        """Return a query for `row`, the rows that satisfy the predicate; a row may come several times."""
        match node:
            case AllOf(()):
                return f"SELECT row FROM {self._records}"  # noqa: S608
            case AllOf(parts):
                # the most selective part first, the others as conditions; the planner may still reorder them
                first, *others = sorted(parts, key=breadth)
                alias = self._alias()
                rest = AllOf(tuple(others))
                return f"SELECT {alias}.row FROM ({self.listing(first)}) AS {alias} WHERE {self.holds(rest, f'{alias}.row')}"  # noqa: S608, E501
            case AnyOf(()):
                return f"SELECT row FROM {self._terms} WHERE false"  # noqa: S608
            case AnyOf(parts):
                return " UNION ALL ".join(f"({self.listing(part)})" for part in parts)
        alias = self._alias()
        return f"SELECT {alias}.row FROM {self._terms} AS {alias} WHERE {self._leaf(node, alias)}"  # noqa: S608

    def holds(self, node: Predicate, row: str) -> str:
        """Return a condition on the row that the expression `row` gives."""
        match node:
            case AllOf(parts) | AnyOf(parts):
                every = isinstance(node, AllOf)
                if not parts:
                    return "true" if every else "false"
                return f"({(' AND ' if every else ' OR ').join(self.holds(part, row) for part in parts)})"
        alias = self._alias()
        leaf = self._leaf(node, alias)
        return f"EXISTS (SELECT FROM {self._terms} AS {alias} WHERE {alias}.row = {row} AND {leaf})"

    def _leaf(self, node: Match | Range | Present, alias: str) -> str:
        field = f"{alias}.field = {self._parameter(node.field.encode('utf-8', 'surrogatepass'))}"
        match node:
            case Present():
                return field
            case Range():
                return f"{field} AND {self._range(node, alias)}"
        by_kind: dict[str, list[tuple[bytes, bytes | None]]] = defaultdict(list)
        for term in node.terms:
            by_kind[typed_kind(*term)].append(split_value(term.value))
        kinds = [self._one_of(kind, values, alias) for kind, values in by_kind.items()]
        if len(kinds) == 1:
            return f"{field} AND {kinds[0]}"
        return f"{field} AND ({' OR '.join(kinds) if kinds else 'false'})"

    def _one_of(self, kind: str, values: list[tuple[bytes, bytes | None]], alias: str) -> str:
        short = [key for key, _ in values if len(key) < KEY]
        conditions: list[str] = []
        if len(short) == 1:
            conditions.append(f"{alias}.key = {self._parameter(short[0])}")
        elif short:
            conditions.append(f"{alias}.key = ANY({self._parameter(byte_arrays(short))}::bytea[])")
        for key, rest in values:
            if len(key) == KEY:
                same = f"{alias}.rest IS NOT DISTINCT FROM {self._parameter(rest)}::bytea"
                conditions.append(f"({alias}.key = {self._parameter(key)} AND {same})")
        either = conditions[0] if len(conditions) == 1 else f"({' OR '.join(conditions)})"
        return f"{alias}.kind = {self._parameter(kind)} AND {either}"

    def _range(self, node: Range, alias: str) -> str:
        bounds = [bound for bound in (node.low, node.high) if bound is not None]
        kinds = [typed_kind(node.kind, bound) for bound in bounds] or [f"{letter}:{node.kind}" for letter in "nsb"]
        conditions: list[str]
        if len(kinds) < 3:
            conditions = [f"{alias}.kind = {self._parameter(kind)}" for kind in set(kinds)]
        else:
            conditions = [f"{alias}.kind = ANY({self._parameter(kinds)}::text[])"]
        if node.low is not None:
            key, rest = split_value(node.low)
            conditions.append(f"{alias}.key >= {self._parameter(key)}")
            if rest is not None:
                conditions.append(f"({alias}.key > {self._parameter(key)} OR {alias}.rest >= {self._parameter(rest)})")
        if node.high is not None:
            key, rest = split_value(node.high)
            conditions.append(f"{alias}.key <= {self._parameter(key)}")
            if len(key) == KEY:
                conditions.append(
                    f"({alias}.key < {self._parameter(key)} OR {alias}.rest IS NULL"
                    f" OR {alias}.rest <= {self._parameter(rest or b'')})"
                )
        return " AND ".join(conditions)

    def _parameter(self, value: Any) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})b"

    def _alias(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"
