"""JSON forms of typed values: all come back, tags are those of stored records, and data cannot steer a terminal."""

import datetime as dt
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store.cli.output import printable, snippet
from encvec_store.cli.values import parse_where, queries_from
from encvec_store.data import encode_payload
from encvec_store.data import parse_filter as parse
from encvec_store.errors import FilterError, InputError, ShapeError
from encvec_store.transfer import from_json, metadata_from_json, to_json
from tests.kits.strategies import TEXT, VALUES

KEYS = st.one_of(TEXT, st.sampled_from(["$date", "$$date", "$tuple", "$", "$float", "$int", "id"]))


def same(a, b):
    """Compare with types, NaN equal to itself."""
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b) if isinstance(a, float) else a == b


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_metadata_comes_back_with_its_types(metadata):
    text = json.dumps(to_json(metadata), allow_nan=False)
    back = metadata_from_json(json.loads(text))
    assert same(back, metadata)


@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_tags_are_those_of_stored_records(metadata):
    """One notation in the whole project, but for NaN and infinity, which stored records write as bare words."""
    stored = json.loads(encode_payload("id", metadata, None))[1]
    assert to_json(metadata) == json.loads(json.dumps(stored), parse_constant=_tagged)


def _tagged(word):
    return {"$float": {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}[word]}


def test_huge_integers_come_back():
    for n in (10**400, -(10**5000)):
        assert from_json(json.loads(json.dumps(to_json([n])))) == [n]


def test_foreign_keys_with_a_dollar_are_kept():
    assert metadata_from_json({"$ref": 1, "a": {"$ref": 2, "b": 3}}) == {"$ref": 1, "a": {"$ref": 2, "b": 3}}


@pytest.mark.parametrize(
    "value",
    [
        {"$date": "soon"},
        {"$datetime": 5},
        {"$bytes": "?"},
        {"$uuid": None},
        {"$decimal": "1,5"},
        {"$tuple": 3},
        {"$float": []},
        {"$int": "0xg"},
    ],
    ids=str,
)
def test_a_tag_with_nonsense_is_refused(value):
    with pytest.raises(InputError, match=r"the value tagged \$\w+ is none of that type"):
        from_json({"a": [value]})


def test_where_takes_tags_and_operators_with_and_without_dollar():
    where = parse_where('{"day": {"$gte": {"$date": "2024-05-01"}}, "$or": [{"a": 1}, {"b": {"in": [2]}}]}')
    node = parse(where)
    assert node({"day": dt.date(2024, 5, 2), "a": 1})
    assert not node({"day": dt.date(2024, 4, 2), "a": 1})


@pytest.mark.parametrize("text", ["{", "[]", "1", '"x"', "[" * 100_000])
def test_where_that_is_no_object_is_refused(text):
    with pytest.raises(FilterError, match=r"--where (must be|is not JSON)"):
        parse_where(text)


def test_queries_are_one_or_many():
    assert queries_from("[1, 2.5]", "x").shape == (1, 2)
    assert np.array_equal(queries_from("[[1, 2], [3, 4]]", "x"), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "text", ["[]", "[[]]", '["1"]', "[true]", "[null]", "{}", "[[1],[1,2]]", "[[[1]]]", "[1" + "0" * 400 + "]"]
)
def test_queries_that_are_no_vectors_are_refused(text):
    with pytest.raises(ShapeError):
        queries_from(text, "x")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\tc\u3000d", "a b c d"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("[bold]größe 日本 👩\u200d🔬[/bold]", "[bold]größe 日本 👩\u200d🔬[/bold]"),
        ("\ud800", "\\ud800"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_text_cannot_steer_a_terminal(text, shown):
    assert printable(text) == shown


@given(st.text(), st.integers(5, 40))
def test_a_snippet_is_one_short_printable_line(text, width):
    short = snippet(text, width)
    assert len(short) <= width
    assert "\n" not in short
    assert all(char.isprintable() or char in "\u200c\u200d" for char in short)
