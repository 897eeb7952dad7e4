"""Equality and order of metadata values: `canonical`, `kind`, `order_key`, and policies."""

import datetime as dt
import itertools
import uuid
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encvec_store.data.fields import Policy, canonical, kind, order_key, parse_policies, plain_term
from encvec_store.errors import InputError, MetadataError
from tests.kits.strategies import COMMON, VALUES, same

IST = dt.timezone(dt.timedelta(hours=5, minutes=30))
NOON = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)

EQUAL = [
    (1, 1.0, Decimal(1), Decimal("1.00"), Decimal("1E0")),
    (0, 0.0, -0.0, Decimal("-0")),
    (2**53 + 1, Decimal(2**53 + 1)),
    (10**5000, Decimal(10**5000)),
    (0.5, Decimal("0.5")),
    (float("nan"), -float("nan"), Decimal("nan")),
    (float("inf"), Decimal("inf")),
    (NOON, NOON.astimezone(IST), NOON.astimezone(dt.timezone(-dt.timedelta(hours=3)))),
    ([1, "a"], (1.0, "a")),
    ({"a": 1, "b": [True]}, {"b": (True,), "a": Decimal(1)}),
]
"""Values that a filter takes for one another, a line each; those of different lines are all different."""
ALONE = [
    True,
    False,
    None,
    "1",
    b"1",
    "",
    b"",
    [],
    {},
    [[]],
    [1],
    [[1]],
    ["a1"],
    ["a", "1"],
    {"a": 1},
    {"a": [1]},
    {"a": 1, "b": True},
    0.1,
    Decimal("0.1"),
    float(2**53),
    10**5000 + 1,
    float("-inf"),
    NOON.replace(tzinfo=None),
    NOON + dt.timedelta(microseconds=1),
    dt.date(2024, 2, 29),
    dt.datetime(2024, 2, 29),
    uuid.UUID(int=1),
    str(uuid.UUID(int=1)),
    "\u00e9",
    "e\u0301",
    ["number:1/1"],
    "nan",
    "null",
]


@pytest.mark.parametrize("line", EQUAL, ids=lambda line: repr(line[-1])[:30])
def test_equal_values_have_one_encoding(line):
    assert len({canonical(value) for value in line}) == 1


def test_different_values_have_different_encodings():
    values = [line[0] for line in EQUAL] + ALONE
    for a, b in itertools.combinations(values, 2):
        assert canonical(a) != canonical(b), (a, b)


@given(VALUES, VALUES)
def test_encodings_are_equal_exactly_where_values_are(a, b):
    assert (canonical(a) == canonical(b)) is same(a, b)


@given(COMMON, COMMON)
@example(1, True)
@example(2**53, float(2**53))
def test_encodings_of_common_values(a, b):
    assert (canonical(a) == canonical(b)) is same(a, b)


@given(COMMON, COMMON)
def test_order_agrees_with_equality(a, b):
    """Where both have an order: neither above the other exactly when equal."""
    if kind(a) == kind(b) and (x := order_key(a)) is not None and (y := order_key(b)) is not None:
        assert (not x < y and not y < x) is (canonical(a) == canonical(b))


@given(COMMON, COMMON)
def test_plain_terms_never_part_what_belongs_together(a, b):
    """Terms may round, so that a store returns too much; they keep equality, and order up to ties."""
    s, t = plain_term(a), plain_term(b)
    if canonical(a) == canonical(b):
        assert s == t
    if kind(a) == kind(b) and order_key(a) is not None and order_key(b) is not None and "other" not in (s.kind, t.kind):
        assert s.kind == t.kind
        assert s.value <= t.value or order_key(a) > order_key(b)


@pytest.mark.parametrize("value", [True, None, float("nan"), Decimal("nan"), uuid.UUID(int=1), [1], (1,), {"a": 1}])
def test_no_order(value):
    assert order_key(value) is None


@pytest.mark.parametrize(
    "line",
    [
        [
            float("-inf"),
            -(10**400),
            -1,
            Decimal("-0.5"),
            0,
            Decimal("0.1"),
            0.1,
            2**53,
            2**53 + 1,
            10**400,
            Decimal("inf"),
        ],
        ["", "A", "a", "é", "￿", "\U0001f600"],
        [b"", b"\0", b"a", b"\xff"],
        [dt.date.min, dt.date(2024, 2, 28), dt.date(2024, 2, 29), dt.date.max],
        [dt.datetime.min, dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 0, 0, 0, 1), dt.datetime.max],
        [NOON.astimezone(IST), NOON.astimezone(IST) + dt.timedelta(microseconds=1), NOON + dt.timedelta(hours=1)],
    ],
    ids=lambda line: type(line[0]).__name__,
)
def test_order(line):
    keys = [order_key(value) for value in line]
    assert len({kind(value) for value in line}) == 1
    assert all(a < b for a, b in itertools.pairwise(keys))


def test_a_zone_that_knows_no_offset_is_no_zone():
    class Nowhere(dt.tzinfo):
        def utcoffset(self, moment):
            return None

    value = dt.datetime(2020, 1, 1, tzinfo=Nowhere())
    assert kind(value) == "datetime"
    assert canonical(value) == canonical(dt.datetime(2020, 1, 1))


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, range(3), dt.timedelta(1), dt.time(1), type])
def test_what_is_no_metadata_type(value):
    with pytest.raises(MetadataError, match="is not a metadata type"):
        canonical(value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("value", [Decimal("sNaN"), Decimal("1E999999999"), Decimal("-1E-999999999")])
def test_decimals_that_have_no_value_or_would_fill_the_memory(value):
    """Exact comparison of 1E999999999 takes a gigabyte: one short value must not stop a process."""
    with pytest.raises(MetadataError, match="Decimal"):
        canonical(value)
    with pytest.raises(MetadataError, match="Decimal"):
        order_key(value)


def test_policies():
    assert parse_policies(None) is None
    assert parse_policies({}) == {}
    assert parse_policies({"a": "blind", "*": "sealed"}) == {"a": Policy.BLIND, "*": Policy.SEALED}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"": "blind"}, "non-empty strings"),
        ({1: "blind"}, "non-empty strings"),
        ({"a": "secret"}, "policy must be one of sealed, blind, plain, got 'secret'"),
        ({"a": None}, "got None"),
        ({"$a": "blind"}, "operator of `where`"),
        ({"and": "blind"}, "operator of `where`"),
        ({"*": "plain"}, "must be 'sealed'"),
        ({"\ud800": "blind"}, "cannot be encoded as UTF-8"),
        (["a"], "a mapping"),
        ("a", "a mapping"),
    ],
)
def test_bad_policies(fields, message):
    with pytest.raises(InputError, match=message):
        parse_policies(fields)


@given(st.sampled_from(list(Policy)))
def test_a_policy_may_be_given_as_itself(policy):
    assert parse_policies({"a": policy}) == {"a": policy}
