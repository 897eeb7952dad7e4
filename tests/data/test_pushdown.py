"""What a store may check of a filter: the predicate that is pushed down, and the terms it is checked on."""

import datetime as dt
import itertools

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from encvec_store import Keyset
from encvec_store.data.fields import Term, parse_policies
from encvec_store.data.filters import AllOf, AnyOf, Match, Present, Range, is_covered, parse, pushdown
from encvec_store.sealing import CollectionConfig, Keyring
from encvec_store.storage import passes
from tests.kits.strategies import FILTERS, METADATA, POLICIES
from tests.kits.terms import readable_token

KEYSET = Keyset.create("memory:")
KEYSET.rotate()
KEYRING = Keyring(KEYSET, "tenant", "collection", bytes(16))


def indexed(policies, metadata, version):
    """Terms of one record, as a backend keeps them."""
    config = CollectionConfig.build(
        dim=1, metric_name=None, scheme_spec=None, fields=policies, max_norm=None, oversample=None
    )
    found: dict[str, set[Term]] = {}
    for _, name, term in KEYRING.codec(version, config).terms([metadata]):
        found.setdefault(name, set()).add(term)
    return found


@given(FILTERS, METADATA, POLICIES, st.sampled_from([1, 2]))
@settings(max_examples=1000)
@example({"a": 2**53 + 1}, {"a": 2**53 + 1}, {"a": "plain", "b": "sealed", "c": "blind"}, 1)
@example({"a": {"gt": 2**53}}, {"a": 2**53 + 1}, {"a": "plain", "b": "sealed", "c": "blind"}, 1)
@example({"a": {"lt": 10**400}}, {"a": 10**399}, {"a": "plain", "b": "sealed", "c": "blind"}, 1)
@example({"a": -0.0}, {"a": 0}, {"a": "plain", "b": "sealed", "c": "blind"}, 1)
@example({"or": [{"a": 1}, {"b": 1}]}, {"b": 1}, {"a": "plain", "b": "sealed", "c": "blind"}, 1)
def test_what_is_pushed_down_never_rejects_what_the_filter_accepts(where, metadata, policies, version):
    """So answers are the same whatever the policy: a store's answer is a superset, checked again when opened."""
    parsed = parse_policies(policies)
    node = parse(where, parsed)
    predicate = pushdown(node, parsed, KEYRING.blind_terms)
    held = passes(predicate)(indexed(policies, metadata, version))
    event(f"pushed: {predicate is not None}, accepted: {node(metadata)}, held: {held}")
    assert held or not node(metadata)


def test_what_is_pushed_down():
    """A superset that is the whole collection would satisfy the property above: these must reach the store."""
    policies = parse_policies({"s": "sealed", "b": "blind", "p": "plain"})

    def push(where):
        return pushdown(parse(where, policies), policies, readable_token)

    x = Term("str", "x")
    blind_x = Match("", (Term("token", b"b=str:x"),))
    assert push({"s": "x"}) is None
    assert push({"b": "x"}) == blind_x
    assert push({"b": {"in": ["x", 1]}}) == Match("", (Term("token", b"b=number:1/1"), Term("token", b"b=str:x")))
    assert push({"b": {"gt": "x"}}) is None
    assert push({"b": {"exists": True}}) is None
    assert push({"p": "x"}) == Match("p", (x,))
    assert push({"p": {"in": ["x", True]}}) == Match("p", (x, Term("bool", 1.0)))
    assert push({"p": {"lt": 5}}) == Range("p", "number", None, 5.0)
    assert push({"p": {"gte": "x"}}) == Range("p", "str", "x", None)
    assert push({"p": {"gte": dt.date(2020, 1, 1)}}).kind == "date"
    assert push({"p": {"gt": b"x"}}) is None
    assert push({"p": {"exists": True}}) == Present("p")
    for where in ({"p": {"exists": False}}, {"p": {"ne": 1}}, {"b": {"nin": [1]}}, {"not": {"p": 1}}):
        assert push(where) is None
    assert push({"s": 1, "b": "x"}) == blind_x
    assert push({"p": "x", "b": "x"}) == AllOf((Match("p", (x,)), blind_x))
    assert push({"or": [{"p": "x"}, {"b": "x"}]}) == AnyOf((Match("p", (x,)), blind_x))
    assert push({"or": [{"p": "x"}, {"s": "x"}]}) is None
    assert push({"or": [{"p": "x", "s": 1}, {"b": "x"}]}) == AnyOf((Match("p", (x,)), blind_x))


def test_blind_terms_name_neither_field_nor_value():
    held = indexed({"country": "blind"}, {"country": "germany"}, 1)
    assert set(held) == {""}
    ((term,),) = held.values()
    assert term.kind == "token"
    assert len(term.value) == 16
    others = [
        *KEYRING.blind_terms("country", b"str:germany"),
        *KEYRING.blind_terms("city", b"str:germany"),
        *KEYRING.blind_terms("country", b"str:france"),
        *Keyring(KEYSET, "tenant", "other", bytes(16)).blind_terms("country", b"str:germany"),
        *Keyring(KEYSET, "other", "collection", bytes(16)).blind_terms("country", b"str:germany"),
        *Keyring(KEYSET, "tenant", "collection", bytes([1]) * 16).blind_terms("country", b"str:germany"),
        *KEYRING.blind_terms("countrystr:germany", b""),
    ]
    assert term in others, "under one of the two key versions"
    assert len(set(others)) == len(others)
    for a, b in itertools.combinations(others, 2):
        assert a != b


def test_what_is_covered():
    """Where the store checks all of a filter, a search need not look at every candidate."""
    policies = parse_policies({"s": "sealed", "b": "blind", "p": "plain"})

    def covered(where):
        return is_covered(parse(where, policies), policies)

    assert is_covered(None, policies)
    whole = ({"b": "x"}, {"p": {"lt": 3}}, {"p": 1, "b": 2}, {"or": [{"p": {"exists": True}}, {"b": {"in": [1]}}]})
    assert all(map(covered, whole))
    partly = ({"s": "x"}, {"b": {"gt": "x"}}, {"not": {"p": 1}}, {"p": {"ne": 1}}, {"p": 1, "s": 1})
    assert not any(map(covered, partly))
    assert not covered({"or": [{"p": 1}, {"and": [{"b": 1}, {"s": 1}]}]})
    assert not is_covered(parse({"b": 1}), None)


def test_terms_of_a_dotted_field_are_those_of_what_it_reaches():
    policies = {"a.b": "plain", "a.c": "blind"}
    assert indexed(policies, {"a": {"b": 1}}, 1) == {"a.b": {Term("number", 1.0)}}
    assert len(indexed(policies, {"a": {"c": 1}}, 1)[""]) == 1
    assert indexed(policies, {"a.b": 2, "a": {"b": 1}}, 1) == {"a.b": {Term("number", 2.0)}}
