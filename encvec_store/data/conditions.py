"""The conditions of a parsed filter: evaluate them on opened metadata, and simplify them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .fields import MISSING, canonical, field_value, kind, order_key
from .patterns import like

__all__ = ["WITHIN", "And", "Condition", "Filter", "Not", "Or", "fields_of", "key_of", "simplified"]

_TRUE = {canonical(True): True}
WITHIN = ("contains", "prefix", "like", "ilike", "any", "all")
"""Operators that look into a text or a list."""


@dataclass(frozen=True)
class Condition:
    """One field, one operator, one operand."""

    field: str
    operator: str
    """in, nin, exists, an operator of order, or one of `WITHIN`; eq is "in" with one value, ne is "nin"."""
    values: Mapping[bytes, Any]
    """The operands by their canonical encodings; of exists, none where the field must be missing."""

    def __call__(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether opened metadata satisfies the condition."""
        value = field_value(metadata, self.field)
        match self.operator:
            case "exists":
                return (value is not MISSING) is bool(self.values)
            case "in":
                return value is not MISSING and canonical(value) in self.values
            case "nin":
                return value is MISSING or canonical(value) not in self.values
        if value is MISSING:
            return False
        if self.operator in WITHIN:
            return self.fits(value)
        (operand,) = self.values.values()
        if kind(value) != kind(operand):
            return False
        have, want = order_key(value), order_key(operand)
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

    def fits(self, value: Any) -> bool:
        """Say whether a value satisfies an operator that looks into texts and lists."""
        if isinstance(value, list | tuple):
            match self.operator:
                case "contains" | "any":
                    return any(canonical(item) in self.values for item in value)
                case "all":
                    return self.values.keys() <= set(map(canonical, value))
            return False
        if not isinstance(value, str) or self.operator in ("any", "all"):
            return False
        (operand,) = self.values.values()
        match self.operator:
            case "prefix":
                return value.startswith(operand)
            case "like":
                return like(operand)(value)
            case "ilike":
                return like(operand, folded=True)(value)
            case _:
                return isinstance(operand, str) and operand in value


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
    """The opposite of the child."""

    child: Filter

    def __call__(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether the child fails."""
        return not self.child(metadata)


Filter = Condition | And | Or | Not


def fields_of(node: Filter) -> set[str]:
    """Return the names of the fields that a filter asks for."""
    match node:
        case Condition():
            return {node.field}
        case Not():
            return fields_of(node.child)
    return set().union(*map(fields_of, node.children))


def simplified(node: Filter, *, negated: bool = False) -> Filter:
    """Return a shorter filter that the same metadata satisfies.

    Nested "and", "or" and "not" are flattened, and children that repeat are dropped. Under "or", the equalities of a
    field become one "in"; under "and", its inequalities become one "nin". So a value is looked up in a long list, and
    not compared with each of its items.
    """
    match node:
        case Not():
            return simplified(node.child, negated=not negated)
        case Condition():
            return _negated(node) if negated else node
    every = isinstance(node, And) is not negated  # not (a or b) is (not a) and (not b)
    combined, merged = (And, "nin") if every else (Or, "in")
    children: dict[Any, Filter] = {}
    lists: dict[str, dict[bytes, Any]] = {}
    for child in node.children:
        found = simplified(child, negated=negated)
        for part in found.children if isinstance(found, combined) else (found,):
            if isinstance(part, Condition) and part.operator == merged:
                values = lists.setdefault(part.field, {})
                values.update(part.values)
                children[merged, part.field] = Condition(part.field, merged, values)
            else:
                children[key_of(part)] = part
    parts = tuple(children.values())
    return parts[0] if len(parts) == 1 else combined(parts)


def _negated(node: Condition) -> Filter:
    match node.operator:
        case "in" | "nin":
            return Condition(node.field, "nin" if node.operator == "in" else "in", node.values)
        case "exists":
            return Condition(node.field, "exists", {} if node.values else _TRUE)
    return Not(node)  # a missing field is neither less than a value nor greater


def key_of(node: Filter) -> tuple[Any, ...]:
    """Return what two equal filters have in common."""
    match node:
        case Condition():
            return node.field, node.operator, frozenset(node.values)
        case Not():
            return "not", key_of(node.child)
    return type(node), frozenset(map(key_of, node.children))
