"""`where` filters: what is malformed and how that is said, and every operator."""

import datetime as dt
import sys
import uuid
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import event, example, given, settings

from encvec_store.data.conditions import WITHIN, And, Condition, Not, simplified
from encvec_store.data.fields import Policy, parse_policies
from encvec_store.data.filters import ORDER_OPERATORS, _parse, parse, pushdown
from encvec_store.data.records import check_metadata, decode_payload, encode_payload
from encvec_store.errors import FilterError, UnknownFieldError
from tests.kits.foreign import NAT, Frame, Series, timestamp
from tests.kits.strategies import FILTERS, METADATA, accepts
from tests.kits.terms import readable_token

NOON = dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("a", "a filter must be a mapping, got str$"),
        (5, "a filter must be a mapping, got int"),
        ([], "a filter must be a mapping, got list"),
        ([{"a": 1}], "a filter must be a mapping, got list"),
        ({1: 2}, "filter keys must be strings, got int"),
        ({"and": {"a": 1}}, "'and' takes a non-empty list of filters"),
        ({"and": []}, "'and' takes a non-empty list of filters"),
        ({"$or": ()}, "'or' takes a non-empty list of filters"),
        ({"or": "ab"}, "'or' takes a non-empty list"),
        ({"or": [1]}, "a filter must be a mapping, got int"),
        ({"not": [{"a": 1}]}, "a filter must be a mapping, got list"),
        ({"not": {}}, "an empty filter stands inside another"),
        ({"and": [{"a": 1}, {}]}, "an empty filter stands inside another"),
        ({"$nor": [{"a": 1}]}, r"unknown operator '\$nor'; combine filters with and, or, not"),
        ({"$a": 1}, r"unknown operator '\$a'"),
        ({"a": {}}, "field 'a': no operator; use one of eq, ne"),
        ({"a": {"$near": "x"}}, "unknown operator 'near'"),
        ({"a": {"$$eq": 1}}, r"unknown operator '\$eq'"),
        ({"a": {1: 1}}, "unknown operator '1'"),
        ({"a": {"eq": 1, "gte": None}}, "field 'a': gte must be a value with an order, got NoneType$"),
        ({"a": {"exists": 1}}, "field 'a': exists must be true or false, got int$"),
        ({"a": {"exists": None}}, "exists must be true or false"),
        ({"a": {"in": 1}}, "field 'a': in must be a list, got int$"),
        ({"a": {"in": "ab"}}, "field 'a': in must be a list, got str$"),
        ({"a": {"nin": {"b": 1}}}, "field 'a': nin must be a list"),
        ({"a": {"lt": True}}, "field 'a': lt must be a value with an order, got bool$"),
        ({"a": {"lt": [1]}}, "lt must be a value with an order"),
        ({"a": {"gt": float("nan")}}, "gt must be a value with an order, got NaN$"),
        ({"a": {"lte": uuid.UUID(int=1)}}, "lte must be a value with an order"),
        ({"a": {1, 2}}, "field 'a': set is not a metadata type"),
        ({"a": object}, "field 'a': type is not a metadata type"),
        ({"a": {"in": [1, 1j]}}, "field 'a': complex is not a metadata type"),
        ({"a": np.array([1])}, "field 'a': ndarray is not a metadata type"),
        ({"a": np.datetime64("2020-01-01")}, "field 'a': datetime64 is not a metadata type"),
        ({"a": {"gt": dt.timedelta(1)}}, "timedelta is not a metadata type"),
        ({"a": {"eq": {1: 2}}}, "field 'a': keys must be strings"),
        ({"a": {"ne": [{"b": 1, 2: 3}]}}, "field 'a': keys must be strings"),
        ({"a": "\ud800"}, "field 'a': .*surrogates not allowed"),
        ({"a": {"gt": "\ud800"}}, "field 'a': .*surrogates not allowed"),
        ({"a": {"near": 1}}, "field 'a': unknown operator 'near'; use one of eq, .* between, .* ilike, any, all"),
        ({"a": {"between": 1}}, r"field 'a': between must be a list of two values, \[low, high\]"),
        ({"a": {"between": [1]}}, "between must be a list of two values"),
        ({"a": {"between": [1, "x"]}}, "between must be two values of one kind, got int and str"),
        ({"a": {"between": [None, 1]}}, "field 'a': between must be a value with an order, got NoneType"),
        ({"a": {"prefix": 1}}, "field 'a': prefix must be a string, got int"),
        ({"a": {"like": ["x"]}}, "field 'a': like must be a string, got list"),
        ({"a": {"like": "x\\"}}, "field 'a': like must not end in a backslash"),
        ({"a": {"ilike": 1}}, "field 'a': ilike must be a string, got int"),
        ({"a": {"any": "x"}}, "field 'a': any must be a list, got str"),
        ({"a": {"all": 1}}, "field 'a': all must be a list, got int"),
        ({"a": Decimal("sNaN")}, "field 'a': a Decimal must be a number with an exponent"),
        ({"a": {"lt": Decimal("1E999999999")}}, "field 'a': a Decimal must be a number with an exponent"),
    ],
)
def test_malformed_filters(where, message):
    with pytest.raises(FilterError, match=message) as caught:
        parse(where)
    assert type(caught.value) is FilterError
    assert isinstance(caught.value, ValueError)


def deep(word, depth):
    where = {"a": 1}
    for _ in range(depth):
        where = {word: where if word == "not" else [where]}
    return where


@pytest.mark.parametrize("word", ["and", "or", "not"])
def test_depth_is_limited(word):
    assert parse(deep(word, 32))({"a": 1}) is True
    for depth in (33, 100_000):
        with pytest.raises(FilterError, match="nested deeper than 32 levels"):
            parse(deep(word, depth))


def test_depth_of_an_operand_is_limited():
    """By a count, not by the interpreter's limit, which may be raised until its stack runs over."""
    value, at_most = [], sys.getrecursionlimit()
    for depth in range(100_000):
        if depth == 31:
            assert parse({"a": value})({"a": value}) is True
        value = [value]
    sys.setrecursionlimit(10**6)
    try:
        for where in ({"a": value}, {"a": {"in": [1, value]}}):
            with pytest.raises(FilterError, match="field 'a': the value is nested deeper than 32 levels"):
                parse(where)
        for where in ({"a": {"lt": value}}, {"a": {"exists": value}}, {"a": {"in": {"b": value}}}, {"and": [value]}):
            with pytest.raises(FilterError):
                parse(where)
    finally:
        sys.setrecursionlimit(at_most)


@pytest.mark.parametrize("where", [None, {}])
def test_no_filter(where):
    assert parse(where) is None
    assert pushdown(None, {"a": Policy.PLAIN}, lambda *_: ()) is None


def test_unknown_fields_are_named():
    policies = parse_policies({"a": "sealed", "b": "blind"})
    with pytest.raises(UnknownFieldError, match="filter on unknown field 'c'; the collection declares: a, b"):
        parse({"or": [{"a": 1}, {"not": {"$and": [{"c": 1}]}}]}, policies)
    with pytest.raises(UnknownFieldError, match="declares: none"):
        parse({"c": 1}, {})
    assert parse({"c": 1}, parse_policies({"a": "blind", "*": "sealed"})) is not None
    assert parse({"c": 1}, None) is not None


@pytest.mark.parametrize(
    ("operator", "operand", "chosen"),
    [
        ("eq", 1, {"one", "one.0", "decimal"}),
        ("ne", 1, {"two", "true", "text", "none", "list", "nan", "missing"}),
        ("in", [1, "1"], {"one", "one.0", "decimal", "text"}),
        ("in", {2, None}, {"two", "none"}),
        ("in", [], set()),
        ("nin", (1, "1"), {"two", "true", "none", "list", "nan", "missing"}),
        (
            "nin",
            frozenset(),
            {"one", "one.0", "decimal", "two", "true", "text", "none", "list", "nan", "missing"},
        ),
        ("lt", 2, {"one", "one.0", "decimal"}),
        ("lte", Decimal(2), {"one", "one.0", "decimal", "two"}),
        ("gt", 1.0, {"two"}),
        ("gte", 1, {"one", "one.0", "decimal", "two"}),
        ("gte", "", {"text"}),
        ("exists", True, {"one", "one.0", "decimal", "two", "true", "text", "none", "list", "nan"}),
        ("exists", False, {"missing"}),
        ("eq", True, {"true"}),
        ("eq", None, {"none"}),
        ("eq", (1, "1"), {"list"}),
        ("eq", float("nan"), {"nan"}),
    ],
)
def test_every_operator(operator, operand, chosen):
    records = {
        "one": 1,
        "one.0": 1.0,
        "decimal": Decimal("1.0"),
        "two": 2,
        "true": True,
        "text": "1",
        "none": None,
        "list": [1, "1"],
        "nan": float("nan"),
    }
    data = {name: {"a": value} for name, value in records.items()} | {"missing": {"b": 1}}
    for spelled in (operator, "$" + operator):
        node = parse({"a": {spelled: operand}})
        assert {name for name, metadata in data.items() if node(metadata)} == chosen


def test_conditions_side_by_side_are_all_required():
    node = parse({"a": {"gte": 1, "$lt": 3}, "b": "x", "$not": {"c": {"exists": True}}, "or": [{"a": 1}, {"a": 2.5}]})
    assert node({"a": 1, "b": "x"})
    assert node({"a": 2.5, "b": "x"})
    assert not node({"a": 2, "b": "x"})
    assert not node({"a": 3, "b": "x"})
    assert not node({"a": 1, "b": "y"})
    assert not node({"a": 1, "b": "x", "c": None})


def test_instants_compare_over_zones_and_never_with_naive_ones():
    node = parse({"a": {"lte": NOON.astimezone(dt.timezone(dt.timedelta(hours=9)))}})
    assert node({"a": NOON})
    assert not node({"a": NOON + dt.timedelta(microseconds=1)})
    assert not node({"a": NOON.replace(tzinfo=None)})
    assert not node({"a": dt.date(2000, 1, 1)})


@pytest.mark.parametrize(
    ("operand", "value"), [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("x"), "x")]
)
def test_numpy_scalars_are_their_values(operand, value):
    """Metadata takes them, so filters do."""
    assert parse({"a": operand})({"a": value})
    assert parse({"a": {"in": [operand]}})({"a": value})
    if not isinstance(value, bool):
        assert parse({"a": {"gte": operand}})({"a": value})
    assert (
        pushdown(parse({"a": operand}), {"a": Policy.PLAIN}, None).terms
        == pushdown(parse({"a": value}), {"a": Policy.PLAIN}, None).terms
    )


@given(FILTERS, METADATA)
@settings(max_examples=400)
@example({"a": 2**53 + 1}, {"a": float(2**53)})
@example({"a": {"gt": 2**53}}, {"a": 2**53 + 1})
@example({"a": {"lt": "\U0001f600"}}, {"a": "￿"})
def test_filters_agree_with_their_documentation(where, metadata):
    expected = accepts(where, metadata)
    event(f"accepted: {expected}")
    assert parse(where)(metadata) is expected
    opened = decode_payload(encode_payload("id", metadata, None))[1]
    assert parse(where)(opened) is expected, "and the same after a journey through the store"


@given(FILTERS, METADATA)
@settings(max_examples=400)
@example({"or": [{"a": 1}, {"or": [{"a": {"in": []}}, {"a": 1.0}]}, {"b": 1}]}, {"b": 1})
@example({"not": {"or": [{"a": {"ne": 1}}, {"not": {"b": {"exists": False}}}]}}, {"a": 1})
@example({"not": {"and": [{"a": {"lt": 1}}, {"a": {"lt": 1}}]}}, {})
def test_a_simplified_filter_holds_for_the_same_metadata(where, metadata):
    node = _parse(where)
    assert simplified(node)(metadata) is node(metadata)
    assert flat(simplified(node))


def flat(node, above=None):
    """Say whether no "and" stands directly in an "and", nothing repeats, and "not" stands before conditions only."""
    match node:
        case Condition():
            return True
        case Not():  # a missing field has no order, and nothing within
            return isinstance(node.child, Condition) and node.child.operator in (*ORDER_OPERATORS, *WITHIN)
    merged = [child.field for child in node.children if isinstance(child, Condition) and child.operator == "in"]
    alone = isinstance(node, And) or len(set(merged)) == len(merged)
    return (
        type(node) is not above and len(node.children) > 1 and alone and all(flat(c, type(node)) for c in node.children)
    )


def test_a_long_or_of_equalities_is_one_lookup():
    equalities = [{"a": number} for number in range(1500)]
    both = parse_policies({"a": "plain", "b": "blind"})
    assert parse({"or": equalities}) == parse({"a": {"in": list(range(1500))}})
    assert parse({"or": [{"or": equalities[:700]}, *equalities[600:]]}) == parse({"a": {"in": list(range(1500))}})
    assert parse({"not": {"or": equalities}}) == parse({"a": {"nin": list(range(1500))}})
    assert parse({"and": [{"a": {"ne": number}} for number in range(1500)]}) == parse({"a": {"nin": list(range(1500))}})
    assert parse({"and": [{"not": one} for one in equalities]}) == parse({"a": {"nin": list(range(1500))}})
    assert len(pushdown(parse({"or": equalities}, both), both, readable_token).terms) == 1500


NESTED = {
    "a": {"b": {"c": 1}, "list": [{"b": 1}], "b.c": 2},
    "x": {"y.z": 3, "y": {"z": 4}},
    "x.w": {"v": 5},
    "t": ({"u": 6},),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.b", {"c": 1}),
        ("a.b.c", 2),  # the key "b.c" of a comes before c of its b
        ("x.y.z", 3),
        ("x.w.v", 5),
        ("a.list", [{"b": 1}]),
    ],
)
def test_a_dotted_name_reaches_into_nested_metadata(name, value):
    (metadata,) = check_metadata([NESTED], 1)
    assert parse({name: {"eq": value}})(metadata)
    assert parse({name: {"exists": True}})(metadata)
    assert not parse({name: {"ne": value}})(metadata)
    assert parse({name: value if not isinstance(value, dict) else {"eq": value}})({name: value}), "a key with dots"
    assert not parse({name: {"eq": value}})({**metadata, name: None}), "which comes first"


@pytest.mark.parametrize(
    "name", ["a.c", "a.b.c.d", "a.list.b", "a.list.0.b", "t.u", "a.", ".a", ".", "a..b", "b.c", "n.a"]
)
def test_a_dotted_name_that_leads_nowhere_is_missing(name):
    (metadata,) = check_metadata([{**NESTED, "n": None}], 1)
    assert parse({name: {"exists": False}})(metadata)
    assert parse({name: {"ne": 1}})(metadata)
    assert not parse({name: {"gt": 0}})(metadata)


def test_a_declared_field_may_be_reached_into():
    declared = parse_policies({"a": "blind", "b.c": "plain"})
    assert parse({"a.x.y": 1}, declared)({"a": {"x": {"y": 1}}})
    assert pushdown(parse({"a.x": 1}, declared), declared, readable_token) is None, "the token is that of the whole"
    assert parse({"b.c.d": 1}, declared) is not None
    for name in ("b", "b.x", "ab.x"):
        with pytest.raises(UnknownFieldError, match=r"declares: a, b[.]c"):
            parse({name: 1}, declared)


@pytest.mark.parametrize(
    "items", [np.array([1, 2]), Series([1, 2]), (1, 2), {1, 2}, {1: "a", 2: "b"}.keys(), range(1, 3)]
)
def test_in_takes_any_list(items):
    assert parse({"a": {"in": items}}) == parse({"a": {"in": [1, 2]}})


@pytest.mark.parametrize(
    ("operand", "message"),
    [
        (NAT, "NaTType cannot be kept"),
        ({"in": [NAT]}, "NaTType cannot be kept"),
        ({"gt": timestamp(1)}, "Timestamp has nanoseconds"),
        ([timestamp(1)], "Timestamp has nanoseconds"),
        ({"in": (i for i in "ab")}, "in must be a list"),
        ({"nin": Frame([1])}, "nin must be a list"),
        ({"in": np.ma.array([1, 2], mask=[0, 1])}, "in must be a list"),
    ],
)
def test_operands_that_are_not_what_they_seem(operand, message):
    with pytest.raises(FilterError, match=f"field 'a': {message}"):
        parse({"a": operand})
