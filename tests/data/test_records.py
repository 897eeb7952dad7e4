"""Records: ids, documents and metadata are checked, kept with their types, and the caller's left alone."""

import copy
import datetime as dt
import enum
import json
import types
import uuid
from collections import OrderedDict, namedtuple
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encvec_store.data.fields import MAX_DEPTH
from encvec_store.data.records import check_documents, check_metadata, decode_payload, encode_payload
from encvec_store.errors import InputError, MetadataError, ShapeError
from tests.kits.foreign import NAT, Frame, Series, timestamp
from tests.kits.strategies import TEXT, VALUES, alike

KEYS = st.one_of(
    TEXT,
    st.sampled_from(["$date", "$tuple", "$bytes", "$$date", "$", "$uuid", "$int", "$decimal", "$datetime", "id", "\0"]),
)


def through(value):
    """Write and read one metadata value."""
    (metadata,) = check_metadata([{"key": value}], 1)
    return decode_payload(encode_payload("id", metadata, None))[1]["key"]


@given(st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES, max_size=2)), max_size=4))
@example({"$date": "2020-01-01"})
@example({"$": {"$": {"$$": 1}}})
@example({"a": {"$tuple": [1]}, "b": ({"$tuple": ()},)})
def test_metadata_comes_back_with_its_types(metadata):
    (checked,) = check_metadata([metadata], 1)
    id, found, document = decode_payload(encode_payload("id", checked, "text"))
    assert (id, document) == ("id", "text")
    assert alike(metadata, found)


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        -(10**5000),
        2**63,
        2**64,
        -0.0,
        5e-324,
        float("inf"),
        float("-inf"),
        float("nan"),
        Decimal("1.10"),
        Decimal("-0E+3"),
        Decimal("NaN"),
        Decimal("-Infinity"),
        Decimal("1E+6000"),
        b"",
        b"\0\xff",
        dt.date.min,
        dt.datetime.max,
        dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30, seconds=-7))),
        dt.datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=dt.UTC),
        uuid.UUID(int=2**128 - 1),
        (),
        ((),),
        [],
        {},
        {"": ""},
        "\0\n\u2028\U0001f600",
        True,
        None,
    ],
    ids=lambda value: f"{type(value).__name__}-{value:x}"[:20] if isinstance(value, int) else repr(value)[:30],
)
def test_every_value_comes_back(value):
    assert alike(value, through(value))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.int64(-3), -3),
        (np.uint8(255), 255),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("é"), "é"),
        (np.bytes_(b"x"), b"x"),
    ],
)
def test_numpy_scalars_become_pythons(given, kept):
    for value, wanted in ((given, kept), ([given], [kept]), ({"a": (given,)}, {"a": (kept,)})):
        assert alike(wanted, through(value))


@pytest.mark.parametrize(
    "value",
    [
        {1},
        object(),
        1j,
        dt.timedelta(1),
        dt.time(1),
        np.array([1]),
        np.datetime64("2020-01-01"),
        np.timedelta64(1, "s"),
        np.complex64(1),
        np.longdouble(1),
        types.MappingProxyType({}),
        bytearray(b"x"),
        lambda: None,
        float,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_kept_is_refused(value):
    for nested in (value, [value], ({"deep": value},)):
        with pytest.raises(MetadataError, match=r"metadata\[1\].*use str, int"):
            check_metadata([{}, {"key": nested}], 2)


class Colour(str, enum.Enum):  # noqa: UP042 - text of it is "Colour.RED"
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class DriverUuid(uuid.UUID):
    """As asyncpg has them."""


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (DriverUuid(int=1), uuid.UUID(int=1)),
        (timestamp(0), dt.datetime(2024, 2, 29, 12, 0, 0, 5)),
        (OrderedDict(a=1), {"a": 1}),
        (Point(1, 2), (1, 2)),
        (np.float64("nan"), float("nan")),
        (np.float64(-0.0), -0.0),
    ],
    ids=repr,
)
def test_subclasses_become_their_base(given, kept):
    assert alike(kept, through(given))
    assert alike([kept], through([given]))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (timestamp(1), "Timestamp has nanoseconds, and a datetime holds microseconds"),
        (NAT, "NaTType cannot be kept as a built-in type: use None"),
        (np.ma.masked, "is MaskedConstant; use str, int"),
        (np.void(b"x"), "is void; use str, int"),
    ],
    ids=["nanoseconds", "NaT", "masked", "void"],
)
def test_nothing_is_kept_as_something_else(value, message):
    """All but the last two are datetimes to `isinstance`."""
    for nested in (value, [value], ({"deep": value},)):
        with pytest.raises(MetadataError, match=rf"metadata\[1\].*{message}"):
            check_metadata([{}, {"key": nested}], 2)


def test_names_and_documents_of_other_libraries_become_pythons():
    (metadata,) = check_metadata([{np.str_("a"): {Colour.RED: 1}}], 1)
    assert alike(metadata, {"a": {"red": 1}})
    assert {type(name) for name in (*metadata, *metadata["a"])} == {str}
    assert list(map(type, check_documents(np.array(["x", "y"]), 2))) == [str, str]


@pytest.mark.parametrize(
    "sequence", [tuple, Series, lambda items: np.array(items, object)], ids=["tuple", "Series", "array"]
)
def test_ordered_sequences_are_lists(sequence):
    assert check_metadata(sequence([{"a": 1}, None]), 2) == [{"a": 1}, {}]
    assert check_documents(sequence(["x", None]), 2) == ["x", None]


@pytest.mark.parametrize("value", [Decimal("sNaN"), Decimal("1E999999999"), Decimal("1E-999999999")])
def test_decimals_without_a_usable_value_are_refused(value):
    with pytest.raises(MetadataError, match=r"metadata\[0\].*'key'.*Decimal"):
        check_metadata([{"key": [value]}], 1)


@pytest.mark.parametrize("item", [0, False, "", [], (), "ab", 1, [("a", 1)], b""], ids=repr)
def test_metadata_of_a_record_is_a_mapping_or_none(item):
    """Nothing that happens to be false passes for "no metadata"."""
    with pytest.raises(MetadataError, match=r"metadata\[1\] must be a mapping or None, got \w+"):
        check_metadata([None, item], 2)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), True])
def test_keys_are_strings(key):
    for metadata in ({key: 1}, {"a": {key: 1}}, {"a": [{key: 1}]}):
        with pytest.raises(MetadataError, match="keys must be strings"):
            check_metadata([metadata], 1)


def nested(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}], ids=["list", "tuple", "dict"])
def test_depth_is_limited(wrap):
    assert through(nested(MAX_DEPTH, wrap)) == nested(MAX_DEPTH, wrap)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(MetadataError, match=f"nested deeper than {MAX_DEPTH} levels"):
            check_metadata([{"key": nested(depth, wrap)}], 1)
    circle: list = []
    circle.append(circle)
    with pytest.raises(MetadataError, match="nested deeper"):
        check_metadata([{"key": circle}], 1)


@pytest.mark.parametrize(
    ("metadata", "document"),
    [({"key": "\ud800"}, None), ({"\udfff": 1}, None), ({}, "x\ud800"), ({"a": ["\ud800"]}, "")],
)
def test_lone_surrogates_are_refused(metadata, document):
    with pytest.raises(MetadataError, match="record 'id': text with lone surrogates"):
        encode_payload("id", metadata, document)


def test_the_callers_objects_are_left_alone():
    metadata = [{"a": [1, {"b": (np.int64(2),)}], "c": OrderedDict(d=1)}, None, {"a": 1, "b": "text"}]
    before = copy.deepcopy(metadata)
    checked = check_metadata(metadata, 3)
    checked[0]["a"][1]["b"] = "changed"
    checked[0]["new"] = 1
    checked[1]["new"] = 1
    checked[2]["new"] = 1
    assert metadata == before
    assert type(metadata[0]["a"][1]["b"][0]) is np.int64


def test_a_mapping_of_any_kind_is_metadata():
    assert check_metadata([types.MappingProxyType({"a": 1}), OrderedDict(b=2)], 2) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("metadata", [{}, {"a": 1}, [{}], [{}] * 3, "ab", 5, object(), iter([{}, {}]), Frame([{}, {}])])
def test_as_many_metadata_as_ids(metadata):
    with pytest.raises((ShapeError, MetadataError), match=r"metadata"):
        check_metadata(metadata, 2)


@pytest.mark.parametrize("documents", ["ab", b"ab", ["a"], ["a"] * 3, {"a": 1, "b": 2}, {"a", "b"}, 5, iter("ab")])
def test_as_many_documents_as_ids(documents):
    with pytest.raises(InputError, match="documents"):
        check_documents(documents, 2)


@pytest.mark.parametrize("text", [1, b"a", ["a"], True])
def test_documents_are_text(text):
    with pytest.raises(MetadataError, match=r"documents\[1\] must be a string or None, got \w+"):
        check_documents([None, text], 2)


def test_documents_may_be_missing():
    assert check_documents(None, 2) == [None, None]
    assert check_documents(("", None), 2) == ["", None]


def test_a_payload_is_json_that_names_its_id():
    assert json.loads(encode_payload("i", {"a": (1,)}, None)) == ["i", {"a": {"$tuple": [1]}}, None]


@given(TEXT, st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.none(), st.booleans()), max_size=3), TEXT)
@example('\x00\x1f"\\/\u2028\U0001f600', {"é": '"'}, "\t\n")
def test_a_payload_is_what_an_encoder_writes_of_it(id, metadata, document):
    """It is put together by hand, and stored data must not differ by how."""
    kept = {"$" + key if key.startswith("$") else key: item for key, item in metadata.items()}
    for text in (document, None):
        written = json.dumps([id, kept, text], ensure_ascii=False, separators=(",", ":")).encode()
        assert encode_payload(id, metadata, text) == written
        assert decode_payload(written) == (id, metadata, text)
