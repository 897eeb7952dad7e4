"""`where` filters: parse, evaluate on opened metadata, and split off what a store may check.

A filter is a mapping. `{"country": "de"}` is equality; `{"age": {"gte": 18, "lt": 65}}` takes operators;
`{"and": [...]}`, `{"or": [...]}` and `{"not": {...}}` combine. Several keys side by side mean "and".
Every operator may be written with a leading `$`. A missing field equals nothing, is ordered with nothing,
and so satisfies `ne` and `nin`; use `exists` to ask for presence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from reprlib import repr as beginning
from typing import Any

from ..errors import FilterError, MetadataError, UnknownFieldError
from .fields import MAX_DEPTH, WILDCARD, Policy, Term, canonical, kind, order_key, plain_term, unwrapped

__all__ = [
    "AllOf",
    "AnyOf",
    "Filter",
    "Match",
    "Predicate",
    "Present",
    "Range",
    "breadth",
    "is_covered",
    "parse",
    "pushdown",
]

ORDER_OPERATORS = ("lt", "lte", "gt", "gte")
OPERATORS = ("eq", "ne", "in", "nin", *ORDER_OPERATORS, "exists")
_MISSING = object()


@dataclass(frozen=True)
class Condition:
    """One field, one operator, one operand."""

    field: str
    operator: str
    operand: Any
    encoded: frozenset[bytes]
    """Canonical encodings of the operand, or of each of in and nin."""

    def __call__(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether opened metadata satisfies the condition."""
        value = metadata.get(self.field, _MISSING)
        match self.operator:
            case "exists":
                return (value is not _MISSING) is bool(self.operand)
            case "eq" | "in":
                return value is not _MISSING and canonical(value) in self.encoded
            case "ne" | "nin":
                return value is _MISSING or canonical(value) not in self.encoded
        if value is _MISSING or kind(value) != kind(self.operand):
            return False
        have, want = order_key(value), order_key(self.operand)
        if have is None:
            return False
        match self.operator:
            case "lt":
                return bool(have < want)
            case "lte":
                return bool(have <= want)
            case "gt":
                return bool(have > want)
            case _:
                return bool(have >= want)


@dataclass(frozen=True)
class And:
    """All of the children."""

    children: tuple[Filter, ...]

    def __call__(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether every child holds."""
        return all(child(metadata) for child in self.children)


@dataclass(frozen=True)
class Or:
    """Any of the children."""

    children: tuple[Filter, ...]

    def __call__(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether some child holds."""
        return any(child(metadata) for child in self.children)


@dataclass(frozen=True)
class Not:
    """The contrary of the child."""

    child: Filter

    def __call__(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether the child fails."""
        return not self.child(metadata)


Filter = Condition | And | Or | Not


def parse(where: Mapping[str, Any] | None, policies: Mapping[str, Policy] | None = None) -> Filter | None:
    """Turn a `where` mapping into a callable filter; None and {} mean no filter.

    Raises:
        FilterError: malformed filter.
        UnknownFieldError: the collection declares its fields (`policies`) and this is none of them.
    """
    if where is None or (isinstance(where, Mapping) and not where):
        return None
    node = _parse(where)
    if policies is not None and WILDCARD not in policies:
        for name in sorted(_fields(node) - policies.keys()):
            declared = ", ".join(sorted(policies)) or "none"
            raise UnknownFieldError(f"filter on unknown field {name!r}; the collection declares: {declared}")
    return node


def _parse(where: Any, depth: int = 0) -> Filter:
    if not isinstance(where, Mapping):
        raise FilterError(f"a filter must be a mapping, got {type(where).__name__}: {beginning(where)}")
    if depth > MAX_DEPTH:
        raise FilterError(f"a filter is nested deeper than {MAX_DEPTH} levels")
    nodes: list[Filter] = []
    for key, operand in where.items():
        if not isinstance(key, str):
            raise FilterError(f"filter keys must be strings, got {key!r}")
        match key.removeprefix("$"):
            case "and" | "or" as word:
                if not isinstance(operand, list | tuple) or not operand:
                    raise FilterError(f"{word!r} takes a non-empty list of filters")
                children = tuple(_parse(child, depth + 1) for child in operand)
                nodes.append(And(children) if word == "and" else Or(children))
            case "not":
                nodes.append(Not(_parse(operand, depth + 1)))
            case _ if key.startswith("$"):
                raise FilterError(f"unknown operator {key!r}; combine filters with and, or, not")
            case _:
                nodes.extend(_conditions(key, operand))
    if not nodes:
        raise FilterError("an empty filter stands inside another")
    return nodes[0] if len(nodes) == 1 else And(tuple(nodes))


def _conditions(field: str, operand: Any) -> Iterator[Condition]:
    if not isinstance(operand, Mapping):
        yield _condition(field, "eq", operand)
        return
    if not operand:
        raise FilterError(f"field {field!r}: no operator; use one of {', '.join(OPERATORS)}")
    for name, value in operand.items():
        yield _condition(field, str(name).removeprefix("$"), value)


def _condition(field: str, operator: str, operand: Any) -> Condition:
    if operator not in OPERATORS:
        raise FilterError(f"field {field!r}: unknown operator {operator!r}; use one of {', '.join(OPERATORS)}")
    operand = unwrapped(operand)
    try:
        match operator:
            case "exists":
                if not isinstance(operand, bool):
                    raise FilterError(f"field {field!r}: exists must be true or false, got {beginning(operand)}")
                encoded: frozenset[bytes] = frozenset()
            case "in" | "nin":
                if not isinstance(operand, list | tuple | set | frozenset):
                    raise FilterError(f"field {field!r}: {operator} must be a list, got {beginning(operand)}")
                operand = [unwrapped(value) for value in operand]
                encoded = frozenset(canonical(value) for value in operand)
            case _:
                if operator in ORDER_OPERATORS and order_key(operand) is None:
                    raise FilterError(
                        f"field {field!r}: {operator} must be a value with an order, got {beginning(operand)}"
                    )
                encoded = frozenset((canonical(operand),))
    except (MetadataError, UnicodeEncodeError) as error:
        raise FilterError(f"field {field!r}: {error}") from None
    return Condition(field, operator, operand, encoded)


def _fields(node: Filter) -> set[str]:
    match node:
        case Condition():
            return {node.field}
        case Not():
            return _fields(node.child)
        case _:
            return set().union(*(_fields(child) for child in node.children))


# What a store may check: conditions on opaque tokens (blind) and on plain values. Always a superset.


@dataclass(frozen=True)
class Match:
    """The field has one of these terms."""

    field: str
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Range:
    """The field has a term of `kind` between the bounds, both included; None is unbounded."""

    field: str
    kind: str
    low: str | float | bytes | None
    high: str | float | bytes | None


@dataclass(frozen=True)
class Present:
    """The field has any term."""

    field: str


@dataclass(frozen=True)
class AllOf:
    """All of the parts."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True)
class AnyOf:
    """Any of the parts."""

    parts: tuple[Predicate, ...]


Predicate = Match | Range | Present | AllOf | AnyOf


def breadth(node: Predicate) -> int:
    """Guess, for an order in which to ask, how many records satisfy a predicate: 0 is the fewest."""
    match node:
        case Match():
            return 0
        case AllOf() | AnyOf():
            return 1
        case Range():
            return 2
    return 3


Tokens = Callable[[str, bytes], tuple[Term, ...]]
BLIND_COLUMN = ""
"""All blind tokens stand under one name: the field is bound into the token, so a store learns no field names."""


def pushdown(node: Filter | None, policies: Mapping[str, Policy] | None, tokens: Tokens) -> Predicate | None:
    """Return the part of a filter that a store can check, or None. It never rejects what the filter accepts.

    Negations stay with the client: they select most of a collection, so an index would not help.

    Args:
        node: a parsed filter.
        policies: the collection's field policies.
        tokens: blind tokens of a canonical value, one per live key version.
    """
    match node:
        case Condition():
            return _push_condition(node, (policies or {}).get(node.field, Policy.SEALED), tokens)
        case And():
            pushed = [pushdown(child, policies, tokens) for child in node.children]
            parts = tuple(part for part in pushed if part is not None)
            return AllOf(parts) if len(parts) > 1 else (parts[0] if parts else None)
        case Or():
            pushed = [pushdown(child, policies, tokens) for child in node.children]
            return AnyOf(tuple(p for p in pushed if p is not None)) if None not in pushed else None
    return None


def is_covered(node: Filter | None, policies: Mapping[str, Policy] | None) -> bool:
    """Say whether `pushdown` leaves no part of a filter to the client: what the store lets pass then hardly fails."""
    match node:
        case Condition():
            return pushdown(node, policies, lambda _field, _value: ()) is not None
        case And() | Or():
            return all(is_covered(child, policies) for child in node.children)
    return node is None


def _push_condition(node: Condition, policy: Policy, tokens: Tokens) -> Predicate | None:
    if policy is Policy.SEALED:
        return None
    match node.operator:
        case "eq" | "in" if policy is Policy.BLIND:
            return Match(
                BLIND_COLUMN, tuple(term for value in sorted(node.encoded) for term in tokens(node.field, value))
            )
        case "exists" if node.operand and policy is Policy.PLAIN:
            return Present(node.field)
        case "eq" | "in":
            operands = node.operand if node.operator == "in" else (node.operand,)
            return Match(node.field, tuple(plain_term(value) for value in operands))
        case "lt" | "lte" | "gt" | "gte" if policy is Policy.PLAIN:
            term = plain_term(node.operand)
            if term.kind == "other":
                return None
            upper = node.operator in ("lt", "lte")
            # bounds are included even for lt and gt: a float term may have been rounded onto its bound
            return Range(node.field, term.kind, None if upper else term.value, term.value if upper else None)
    return None
