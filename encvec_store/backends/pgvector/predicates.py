"""Predicates as SQL over a table of terms, in two forms; imports filters, wire.

`listing` names the rows (for a filter that few satisfy), `holds` is a condition on one row (for one that many do).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from psycopg.adapt import PyFormat
from psycopg.sql import SQL, Composable, Composed, Identifier, Placeholder

from ...filters import AllOf, AnyOf, Match, Predicate, Present, Range, breadth
from .wire import KEY, byte_arrays, split_value, typed_kind

__all__ = ["PredicateSql"]

_BINARY = PyFormat.BINARY


class PredicateSql:
    """Compiles predicates; values become parameters, collected in `parameters`."""

    def __init__(self, records: Identifier, terms: Identifier) -> None:
        self._records = records
        self._terms = terms
        self._aliases = 0
        self.parameters: dict[str, Any] = {}

    def listing(self, node: Predicate) -> Composed:
        """Return a query for `row`, the rows that satisfy the predicate; a row may come several times."""
        match node:
            case AllOf(()):
                return SQL("SELECT row FROM {}").format(self._records)
            case AllOf(parts):
                # the most telling first, the others as conditions; the planner may still turn it round
                first, *others = sorted(parts, key=breadth)
                alias = self._alias()
                return SQL("SELECT {0}.row FROM ({1}) AS {0} WHERE {2}").format(
                    alias, self.listing(first), self.holds(AllOf(tuple(others)), SQL("{}.row").format(alias))
                )
            case AnyOf(()):
                return SQL("SELECT row FROM {} WHERE false").format(self._terms)
            case AnyOf(parts):
                return SQL(" UNION ALL ").join(SQL("({})").format(self.listing(part)) for part in parts)
        alias = self._alias()
        return SQL("SELECT {0}.row FROM {1} AS {0} WHERE {2}").format(alias, self._terms, self._leaf(node, alias))

    def holds(self, node: Predicate, row: Composable) -> Composed:
        """Return a condition on the row that the expression `row` gives."""
        match node:
            case AllOf(parts) | AnyOf(parts):
                every = isinstance(node, AllOf)
                if not parts:
                    return Composed([SQL("true" if every else "false")])
                inner = SQL(" AND " if every else " OR ").join(self.holds(part, row) for part in parts)
                return SQL("({})").format(inner)
        alias = self._alias()
        return SQL("EXISTS (SELECT FROM {0} AS {1} WHERE {1}.row = {2} AND {3})").format(
            self._terms, alias, row, self._leaf(node, alias)
        )

    def _leaf(self, node: Match | Range | Present, alias: Identifier) -> Composed:
        field = SQL("{}.field = {}").format(alias, self._parameter(node.field.encode("utf-8", "surrogatepass")))
        match node:
            case Present():
                return field
            case Range():
                return SQL("{} AND {}").format(field, self._range(node, alias))
        by_kind: dict[str, list[tuple[bytes, bytes | None]]] = defaultdict(list)
        for term in node.terms:
            by_kind[typed_kind(*term)].append(split_value(term.value))
        kinds = [self._one_of(kind, values, alias) for kind, values in by_kind.items()]
        if len(kinds) == 1:
            return SQL("{} AND {}").format(field, kinds[0])
        return SQL("{} AND ({})").format(field, SQL(" OR ").join(kinds) if kinds else SQL("false"))

    def _one_of(self, kind: str, values: list[tuple[bytes, bytes | None]], alias: Identifier) -> Composed:
        short = [key for key, _ in values if len(key) < KEY]
        conditions: list[Composable] = []
        if len(short) == 1:
            conditions.append(SQL("{}.key = {}").format(alias, self._parameter(short[0])))
        elif short:
            conditions.append(SQL("{}.key = ANY({}::bytea[])").format(alias, self._parameter(byte_arrays(short))))
        for key, rest in values:
            if len(key) == KEY:
                same = SQL("({0}.key = {1} AND {0}.rest IS NOT DISTINCT FROM {2}::bytea)")
                conditions.append(same.format(alias, self._parameter(key), self._parameter(rest)))
        either = conditions[0] if len(conditions) == 1 else SQL("({})").format(SQL(" OR ").join(conditions))
        return SQL("{}.kind = {} AND {}").format(alias, self._parameter(kind), either)

    def _range(self, node: Range, alias: Identifier) -> Composed:
        bounds = [bound for bound in (node.low, node.high) if bound is not None]
        kinds = [typed_kind(node.kind, bound) for bound in bounds] or [f"{letter}:{node.kind}" for letter in "nsb"]
        conditions: list[Composable] = [SQL("{}.kind = ANY({}::text[])").format(alias, self._parameter(kinds))]
        if len(kinds) < 3:
            conditions = [SQL("{}.kind = {}").format(alias, self._parameter(kind)) for kind in set(kinds)]
        if node.low is not None:
            key, rest = split_value(node.low)
            conditions.append(SQL("{}.key >= {}").format(alias, self._parameter(key)))
            if rest is not None:
                longer = SQL("({0}.key > {1} OR {0}.rest >= {2})")
                conditions.append(longer.format(alias, self._parameter(key), self._parameter(rest)))
        if node.high is not None:
            key, rest = split_value(node.high)
            conditions.append(SQL("{}.key <= {}").format(alias, self._parameter(key)))
            if len(key) == KEY:
                shorter = SQL("({0}.key < {1} OR {0}.rest IS NULL OR {0}.rest <= {2})")
                conditions.append(shorter.format(alias, self._parameter(key), self._parameter(rest or b"")))
        return SQL(" AND ").join(conditions)

    def _parameter(self, value: Any) -> Placeholder:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return Placeholder(name, format=_BINARY)

    def _alias(self) -> Identifier:
        self._aliases += 1
        return Identifier(f"t{self._aliases}")
