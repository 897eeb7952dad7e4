"""Record ids: strings, integers and UUIDs, checked as a list, kept as given, and told apart by type."""

import enum
import uuid

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encvec_store.data.ids import MAX_ID_BYTES, check_ids, id_bytes
from encvec_store.data.records import decode_payload, encode_payload
from encvec_store.errors import DuplicateIdError, IdError
from tests.kits.foreign import NAT, Frame, Series

ONE = uuid.UUID(int=1)
IDS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
    st.integers(-(2**63), 2**64 - 1),
    st.uuids(),
    st.sampled_from(["1", 1, str(ONE), ONE, "-1", -1, "i1", "\xff1", "ÿi1"]),
)


@given(st.lists(IDS, unique_by=lambda id: (type(id), id)))
@example([" ", "\0", "a" * MAX_ID_BYTES, "\u00e9", "e\u0301", "\U0001f600", "../x", "'; --", '"'])
@example([1, "1", ONE, str(ONE), ONE.int >> 64, -(2**63), 2**64 - 1])
def test_ids_are_kept_as_given(ids):
    checked = check_ids(ids)
    read = [decode_payload(encode_payload(id, {}, None))[0] for id in checked]
    for found in (checked, read):
        assert found == ids
        assert list(map(type, found)) == list(map(type, ids))
    assert len(set(map(id_bytes, ids))) == len(ids), "no two ids share a token"


class Name(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


class DriverUuid(uuid.UUID):
    """As asyncpg has them."""


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.int64(5), 5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.str_("a"), "a"),
        (Name.A, "a"),
        (Number.ONE, 1),
        (DriverUuid(int=1), ONE),
    ],
)
def test_scalars_of_other_libraries_become_pythons(given, kept):
    (found,) = check_ids([given])
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    "ids",
    [("a", "b"), np.array(["a", "b"]), Series(["a", "b"]), np.array(["a", "b"], object), np.ma.array(["a", "b"])],
    ids=lambda ids: type(ids).__name__,
)
def test_ordered_sequences_are_lists(ids):
    assert check_ids(ids) == ["a", "b"]


def test_a_range_is_a_list_of_integers():
    assert check_ids(range(3)) == check_ids(np.arange(3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        ("abc", "str"),
        (b"abc", "bytes"),
        (bytearray(b"abc"), "bytearray"),
        (5, "int"),
        (None, "NoneType"),
        ({"a", "b"}, "set"),
        (frozenset("ab"), "frozenset"),
        ({"a": 1, "b": 2}, "dict"),
        ({"a": 1, "b": 2}.keys(), "dict_keys"),
        ((id for id in "ab"), "generator"),
        (iter(["a", "b"]), "list_iterator"),
        (Frame(["a", "b"]), "Frame"),
        (np.array([["a", "b"]]), "ndarray"),
        (np.array("ab"), "ndarray"),
        (np.ma.array(["a", "b"], mask=[False, True]), "MaskedArray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_order_is_refused(ids, kind):
    """A set would pair vectors with ids of others; a generator is gone after one look."""
    with pytest.raises(IdError, match=f"ids must be a list, .*got {kind}: give a list"):
        check_ids(ids)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "must be a string, an integer or a UUID, got NoneType"),
        (True, "must be a string, an integer or a UUID, got bool"),
        (np.bool_(True), "must be a string, an integer or a UUID, got bool"),
        (1.0, "must be a string, an integer or a UUID, got float"),
        (b"b", "must be a string, an integer or a UUID, got bytes"),
        (np.datetime64("2020-01-01"), "must be a string, an integer or a UUID, got datetime64"),
        (NAT, "NaTType cannot be kept"),
        (2**64, "must be from -2.63 to 2.64 - 1"),
        (-(2**63) - 1, "must be from -2.63 to 2.64 - 1"),
        ("", "must not be empty"),
        ("\ud800", "cannot be encoded as UTF-8"),
        ("b" * 1025, "must have at most 1024 bytes, got 1025"),
        ("\u00e9" * 513, "must have at most 1024 bytes, got 1026"),
    ],
)
def test_bad_ids(value, message):
    with pytest.raises(IdError, match=rf"ids\[1\]:? {message}") as caught:
        check_ids(["a", value])
    assert type(caught.value) is IdError


def test_a_batch_names_each_id_once():
    with pytest.raises(DuplicateIdError, match=r"ids\[2\] repeats 'a'"):
        check_ids(["a", "b", "a", "b"])
    with pytest.raises(DuplicateIdError, match=r"ids\[2\] repeats 1"):
        check_ids([1, "1", np.int8(1)])
    assert check_ids(["a", "a"], unique=False) == ["a", "a"]
    assert check_ids(["\u00e9", "e\u0301"]) == ["\u00e9", "e\u0301"], "no normalisation: these are two ids"
