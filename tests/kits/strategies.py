"""Hypothesis strategies for metadata and filters, and an oracle of `where` that shares no code with the package."""

import datetime as dt
import math
import re
import uuid
from decimal import Decimal
from fractions import Fraction
from functools import cmp_to_key

from hypothesis import strategies as st

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
ZONES = st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), dt.timezone(-dt.timedelta(hours=8))])
MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))

NUMBERS = st.one_of(
    st.sampled_from([0, 1, 1.0, Decimal(1), Decimal("1.0"), -0.0, 2**53, 2**53 + 1, 10**30, 0.1, Decimal("0.1")]),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, places=2, min_value=-10, max_value=10),
    st.just(float("nan")),
)
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    TEXT,
    st.binary(max_size=3),
    MOMENTS,
    st.builds(lambda moment, zone: moment.replace(tzinfo=dt.UTC).astimezone(zone), MOMENTS, ZONES),
    st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
    st.builds(lambda n: uuid.UUID(int=n), st.integers(0, 3)),
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)

# Few fields and few values, so that filters hit.
FIELDS = ("a", "b", "c")
COMMON = st.one_of(
    st.sampled_from([0, 1, 1.0, True, False, None, Decimal(1), 2, 2.5, 2**53 + 1, float(2**53), float("nan"), "", "x"]),
    st.sampled_from(["2020-01-01", "2020-01-01T00:00", "2020-01-01 00:00:00Z", "2020-02-31", ["x", 1], "x%1"]),
    st.sampled_from(["1", b"1", "ä", "\U0001f600", "￿", dt.date(2020, 1, 1), dt.datetime(2020, 1, 1), (1, 2), [1, 2]]),
    st.sampled_from([dt.datetime(2020, 1, 1, tzinfo=dt.UTC), uuid.UUID(int=1), {"k": 1}, 10**400, float("inf")]),
    ATOMS,
)
METADATA = st.dictionaries(st.sampled_from(FIELDS), COMMON, max_size=3)


def _ordered(value):
    return isinstance(value, int | float | Decimal | str | bytes | dt.date) and not isinstance(value, bool)


ORDERED = COMMON.filter(lambda value: _ordered(value) and value == value)


def _conditions():
    simple = st.tuples(st.sampled_from(["eq", "ne"]), COMMON)
    several = st.tuples(st.sampled_from(["in", "nin"]), st.lists(COMMON, max_size=3))
    ranges = st.tuples(st.sampled_from(["lt", "lte", "gt", "gte"]), ORDERED)
    exists = st.tuples(st.just("exists"), st.booleans())
    between = st.tuples(st.just("between"), st.tuples(ORDERED, ORDERED).filter(lambda ends: _comparable(*ends)))
    within = st.tuples(
        st.sampled_from(["prefix", "like", "ilike", "contains"]),
        st.sampled_from(["", "x", "X", "2020", "%1%", "_", "\\%"]),
    )
    lists = st.tuples(st.sampled_from(["any", "all"]), st.lists(st.sampled_from([1, 2, "x", True]), max_size=2))
    held = st.tuples(st.just("contains"), COMMON)
    one = st.one_of(simple, several, ranges, exists, between, within, lists, held)
    spelled = st.builds(lambda pair, dollar: ("$" * dollar + pair[0], pair[1]), one, st.booleans())
    plain = COMMON.filter(lambda value: not isinstance(value, dict))
    operators = st.lists(spelled, min_size=1, max_size=2).map(dict)
    return st.dictionaries(st.sampled_from(FIELDS), st.one_of(operators, plain), min_size=1, max_size=2)


FILTERS = st.recursive(
    _conditions(),
    lambda inner: st.one_of(
        st.builds(
            lambda word, parts: {word: parts},
            st.sampled_from(["and", "or", "$and", "$or"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda word, part: {word: part}, st.sampled_from(["not", "$not"]), inner),
    ),
    max_leaves=5,
)
POLICIES = st.one_of(
    st.none(), st.fixed_dictionaries({name: st.sampled_from(["sealed", "blind", "plain"]) for name in FIELDS})
)


def same(a, b):
    """Equality of metadata values, as the documentation of `where` states it."""
    if isinstance(a, bool) or isinstance(b, bool):
        return isinstance(a, bool) and isinstance(b, bool) and a is b
    numbers = int | float | Decimal
    if isinstance(a, numbers) and isinstance(b, numbers):
        return _exact(a) == _exact(b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    for kind in (dt.datetime, dt.date):
        if isinstance(a, kind) or isinstance(b, kind):
            return isinstance(a, kind) and isinstance(b, kind) and _zoned(a) == _zoned(b) and a == b
    return type(a) is type(b) and a == b


def _zoned(value):
    return getattr(value, "tzinfo", None) is not None


def _exact(number):
    if number != number:
        return "nan"
    if isinstance(number, float | Decimal) and math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return Fraction(number)


def _comparable(a, b):
    if isinstance(a, bool) or isinstance(b, bool):
        return False
    for kind in (int | float | Decimal, str, bytes, dt.datetime, dt.date):
        if isinstance(a, kind) or isinstance(b, kind):
            return isinstance(a, kind) and isinstance(b, kind) and _zoned(a) == _zoned(b) and a == a
    return False


_COMPARE = {
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
}


def accepts(where, metadata):
    """Evaluate a filter by the letter of its documentation."""
    return all(_clause(key, operand, metadata) for key, operand in where.items())


def _clause(key, operand, metadata):
    match key.removeprefix("$"):
        case "and":
            return all(accepts(part, metadata) for part in operand)
        case "or":
            return any(accepts(part, metadata) for part in operand)
        case "not":
            return not accepts(operand, metadata)
    operators = operand if isinstance(operand, dict) else {"eq": operand}
    have, value = key in metadata, metadata.get(key)
    results = []
    for name, wanted in operators.items():
        match name.removeprefix("$"):
            case "eq":
                results.append(have and meant(value, wanted))
            case "ne":
                results.append(not (have and meant(value, wanted)))
            case "in":
                results.append(have and any(meant(value, item) for item in wanted))
            case "nin":
                results.append(not (have and any(meant(value, item) for item in wanted)))
            case "between":
                results.append(have and _ordered_by("gte", value, wanted[0]) and _ordered_by("lte", value, wanted[1]))
            case "prefix":
                results.append(isinstance(value, str) and value[: len(wanted)] == wanted)
            case "like":
                results.append(isinstance(value, str) and _like(wanted, value))
            case "ilike":
                results.append(isinstance(value, str) and _like(wanted.lower(), value.lower()))
            case "contains" if isinstance(value, list | tuple):
                results.append(any(same(item, wanted) for item in value))
            case "contains":
                results.append(isinstance(value, str) and isinstance(wanted, str) and value.find(wanted) >= 0)
            case "any":
                results.append(_is_list(value) and any(same(item, each) for item in value for each in wanted))
            case "all":
                results.append(_is_list(value) and all(any(same(item, each) for item in value) for each in wanted))
            case "exists":
                results.append(have is wanted)
            case order:
                results.append(have and _ordered_by(order, value, wanted))
    return all(results)


def _is_list(value):
    return isinstance(value, list | tuple)


def _like(pattern, text):
    """Match by trying every split: slow, and plainly right."""
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(_like(pattern[1:], text[at:]) for at in range(len(text) + 1))
    if pattern[0] == "\\":
        return text[:1] == pattern[1] and _like(pattern[2:], text[1:])
    return bool(text) and pattern[0] in ("_", text[0]) and _like(pattern[1:], text[1:])


def _stands_for(wanted):
    """Return what a value of a filter stands for: text of an ISO date also for that date."""
    if not isinstance(wanted, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?", wanted, re.ASCII):
        return [wanted]
    try:
        if len(wanted) > 10:
            return [wanted, dt.datetime.fromisoformat(wanted)]
        day = dt.date.fromisoformat(wanted)
    except ValueError:
        return [wanted]
    midnight = dt.datetime.combine(day, dt.time())
    return [wanted, day, midnight, midnight.replace(tzinfo=dt.UTC)]


def meant(value, wanted):
    return any(same(value, each) for each in _stands_for(wanted))


def _ordered_by(order, value, wanted):
    return any(_comparable(value, each) and _COMPARE[order](value, each) for each in _stands_for(wanted))


def in_order(order, items):
    """Sort (metadata, anything) pairs by the letter of the documentation of `order_by`."""
    items = list(items)
    for name in reversed(order):
        field = name.removeprefix("-")
        having = [item for item in items if _rank(item[0].get(field)) is not None]
        rest = [item for item in items if _rank(item[0].get(field)) is None]
        before = -1 if name.startswith("-") else 1
        items = sorted(having, key=cmp_to_key(lambda a, b: before * _compare(a[0][field], b[0][field]))) + rest  # noqa: B023
    return items


def _rank(value):
    """Return the place of a value's kind among others; None if it has no order."""
    if value != value:
        return None
    kinds = [bool, int | float | Decimal, str, bytes]
    for rank, kind in enumerate(kinds):
        if isinstance(value, kind):
            return rank
    if isinstance(value, dt.datetime):
        return 6 if _zoned(value) else 5
    return 4 if isinstance(value, dt.date) else 7 if isinstance(value, uuid.UUID) else None


def _compare(a, b):
    ranks = _rank(a), _rank(b)
    return (ranks[0] > ranks[1]) - (ranks[0] < ranks[1]) if ranks[0] != ranks[1] else (a > b) - (a < b)


def alike(a, b):
    """Equal with equal types, NaN included; a datetime may come back in another zone object, and without its fold."""
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dt.datetime):
        same_clock = type(b) is dt.datetime and a.replace(tzinfo=None) == b.replace(tzinfo=None)
        return same_clock and a.utcoffset() == b.utcoffset()
    if isinstance(a, float | Decimal) and a != a:
        return type(a) is type(b) and b != b
    if isinstance(a, float) and a == b == 0:
        return type(b) is float and math.copysign(1, a) == math.copysign(1, b)
    return type(a) is type(b) and a == b
