"""`where` filters: parse them, and split off what a store can check.

A filter is a mapping. `{"country": "de"}` is equality; `{"age": {"gte": 18, "lt": 65}}` takes operators;
`{"and": [...]}`, `{"or": [...]}` and `{"not": {...}}` combine. Several keys in one mapping mean "and".
A leading `$` is allowed before every operator. `{"a.b": 1}` reaches into nested dicts (`fields.field_value`).
A missing field equals nothing and has no order, so it satisfies `ne` and `nin`; `exists` asks for presence.

`between` takes [low, high], both included. `prefix`, `like` (see `patterns`) and `contains` look into text, and care
for case; `ilike` does not. `any` and `all` take lists: the field is a list that has at least one, or every one, of
these values; `contains` with a list as value is `any` of one. An ISO date or time given as text to an operator of
equality or order also stands for the date or time itself: a day for the date, and for its midnight, of a datetime
without a zone or in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from ..errors import FilterError, MetadataError, UnknownFieldError
from .conditions import WITHIN, And, Condition, Filter, Not, Or, fields_of, simplified
from .fields import MAX_DEPTH, WILDCARD, Policy, Term, canonical, dates, kind, order_key, paths, plain_term
from .patterns import PatternError, like
from .values import exact, listed, text

__all__ = [
    "AllOf",
    "AnyOf",
    "Filter",
    "Match",
    "Predicate",
    "Present",
    "Range",
    "breadth",
    "check_fields",
    "is_covered",
    "parse",
    "pushdown",
]

ORDER_OPERATORS = ("lt", "lte", "gt", "gte")
OPERATORS = ("eq", "ne", "in", "nin", *ORDER_OPERATORS, "between", "exists", *WITHIN)


def parse(where: Mapping[str, Any] | None, policies: Mapping[str, Policy] | None = None) -> Filter | None:
    """Turn a `where` mapping into a callable filter; None and {} mean no filter.

    Raises:
        FilterError: malformed filter.
        UnknownFieldError: the collection declares its fields (`policies`), and the filter names another one.
    """
    if where is None or (isinstance(where, Mapping) and not where):
        return None
    node = _parse(where)
    check_fields(fields_of(node), policies, "filter on")
    return simplified(node)


def check_fields(names: Set[str], policies: Mapping[str, Policy] | None, what: str) -> None:
    """Raise UnknownFieldError if the collection declares its fields (`policies`), and a name is not among them."""
    if policies is None or WILDCARD in policies:
        return
    for name in sorted(names):
        if not any(known in policies for known in paths(name)):
            declared = ", ".join(sorted(policies)) or "none"
            raise UnknownFieldError(f"{what} unknown field {name!r}; the collection declares: {declared}")


def _parse(where: Any, depth: int = 0) -> Filter:
    if not isinstance(where, Mapping):
        raise FilterError(f"a filter must be a mapping, got {type(where).__name__}")
    if depth > MAX_DEPTH:
        raise FilterError(f"a filter is nested deeper than {MAX_DEPTH} levels")
    nodes: list[Filter] = []
    for given, operand in where.items():
        key = text(given)
        if key is None:
            raise FilterError(f"filter keys must be strings, got {type(given).__name__}")
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


def _conditions(field: str, operand: Any) -> Iterator[Filter]:
    if not isinstance(operand, Mapping):
        yield _condition(field, "eq", operand)
        return
    if not operand:
        raise FilterError(f"field {field!r}: no operator; use one of {', '.join(OPERATORS)}")
    for name, value in operand.items():
        yield _condition(field, str(name).removeprefix("$"), value)


def _between(field: str, operand: Any) -> Filter:
    ends = listed(operand)
    if ends is None or len(ends) != 2:
        raise FilterError(f"field {field!r}: between must be a list of two values, [low, high]")
    low, high = (_condition(field, name, end, "between") for name, end in zip(("gte", "lte"), ends, strict=True))
    if kind(exact(ends[0])) != kind(exact(ends[1])):
        kinds = " and ".join(map(_kind, ends))
        raise FilterError(f"field {field!r}: between must be two values of one kind, got {kinds}")
    return And((low, high))


def _condition(field: str, operator: str, operand: Any, called: str | None = None) -> Filter:
    if operator not in OPERATORS:
        raise FilterError(f"field {field!r}: unknown operator {operator!r}; use one of {', '.join(OPERATORS)}")
    if operator == "between":
        return _between(field, operand)
    try:
        match operator:
            case "in" | "nin" | "any" | "all":
                items = list(operand) if isinstance(operand, Set) else listed(operand)
                if items is None:
                    raise FilterError(f"field {field!r}: {operator} must be a list, got {type(operand).__name__}")
                values = list(map(exact, items))
            case "prefix" | "like" | "ilike":
                values = [exact(operand)]
                if not isinstance(values[0], str):
                    raise FilterError(f"field {field!r}: {operator} must be a string, got {type(operand).__name__}")
                if operator != "prefix":
                    like(values[0])  # a malformed pattern raises now
            case "exists":
                operand = exact(operand)
                if not isinstance(operand, bool):
                    raise FilterError(f"field {field!r}: exists must be true or false, got {type(operand).__name__}")
                values = [True] if operand else []  # see `Condition.values`
            case _:
                values = [exact(operand)]
                if operator in ORDER_OPERATORS and order_key(values[0]) is None:
                    raise FilterError(
                        f"field {field!r}: {called or operator} must be a value with an order, got {_kind(operand)}"
                    )
        operator = {"eq": "in", "ne": "nin"}.get(operator, operator)
        if operator in ORDER_OPERATORS:
            nodes = [Condition(field, operator, {canonical(value): value}) for value in (*values, *dates(values[0]))]
            return nodes[0] if len(nodes) == 1 else Or(tuple(nodes))
        if operator in ("in", "nin"):
            values += [date for value in values for date in dates(value)]
        return Condition(field, operator, {canonical(value): value for value in values})
    except (MetadataError, UnicodeEncodeError, PatternError) as error:
        raise FilterError(f"field {field!r}: {error}") from None


def _kind(value: Any) -> str:
    """Name a value's type. Errors do not show what is compared: it may be as secret as what is stored."""
    return "NaN" if isinstance(value, float) and value != value else type(value).__name__


# What a store can check: conditions on tokens (blind) and on plain values. A predicate may let too many records pass.


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
    """Rank predicates by how few records they probably match: 0 is the fewest."""
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
"""All blind tokens share one name. The field is bound into the token, so a store learns no field names."""


def pushdown(node: Filter | None, policies: Mapping[str, Policy] | None, tokens: Tokens) -> Predicate | None:
    """Return the part of a filter that a store can check, or None. It never rejects what the filter accepts.

    The client checks negations: they match most of a collection, so an index would not help.

    Args:
        node: a parsed filter.
        policies: the collection's field policies.
        tokens: gives the blind tokens of a canonical value, one for each live key version.
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
    """Say whether a store can check all of a filter. Then nearly all records that it lets pass satisfy the filter."""
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
        case "in" if policy is Policy.BLIND:
            terms = (term for value in sorted(node.values) for term in tokens(node.field, value))
            return Match(BLIND_COLUMN, tuple(terms))
        case "in":
            return Match(node.field, tuple(map(plain_term, node.values.values())))
        case "exists" if node.values and policy is Policy.PLAIN:
            return Present(node.field)
        case "lt" | "lte" | "gt" | "gte" if policy is Policy.PLAIN:
            (operand,) = node.values.values()
            term = plain_term(operand)
            if term.kind == "other":
                return None
            upper = node.operator in ("lt", "lte")
            # lt and gt include the bound too, because a term is a float and may have been rounded to it
            return Range(node.field, term.kind, None if upper else term.value, term.value if upper else None)
    return None
