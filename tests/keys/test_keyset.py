"""Keysets: states, changes that are saved or did not happen, and roots that do not show."""

import base64
import copy
import json
import pickle

import pytest

from encvec_store.errors import KeysetError, KeyUnavailableError
from encvec_store.keys.keyset import Keyset, KeyState


@pytest.fixture
def keyset():
    return Keyset.create("memory:")


def test_fresh(keyset):
    assert (keyset.primary, keyset.live, keyset.uri) == (1, (1,), "memory:")
    assert len(keyset.root(1)) == 32
    assert len({Keyset.create("memory:").root(1) for _ in range(20)}) == 20


def test_rotate(keyset):
    assert [keyset.rotate(), keyset.rotate()] == [2, 3]
    assert keyset.primary == 3
    assert keyset.live == (3, 2, 1)
    assert len({keyset.root(version) for version in (1, 2, 3)}) == 3
    assert [item.state for item in keyset.versions] == [KeyState.ENABLED] * 3


def test_disable_and_enable(keyset):
    keyset.rotate()
    root = keyset.root(1)
    keyset.disable(1)
    assert keyset.live == (2,)
    with pytest.raises(KeyUnavailableError, match="key version 1 is disabled"):
        keyset.root(1)
    keyset.enable(1)
    assert keyset.root(1) == root
    keyset.enable(1)


def test_destroy_is_for_good(keyset):
    keyset.rotate()
    root = keyset.root(1)
    keyset.disable(1)
    keyset.destroy(1)
    keyset.destroy(1)
    with pytest.raises(KeyUnavailableError, match="key version 1 is destroyed"):
        keyset.root(1)
    for change in (keyset.enable, keyset.disable):
        with pytest.raises(KeyUnavailableError, match="cannot be undone"):
            change(1)
    document = base64.b64decode(keyset.export(unsafe_cleartext=True))
    assert base64.b64encode(root) not in document
    assert root not in b"".join(item.root for item in keyset._held.document.versions.values())
    assert keyset.rotate() == 3  # a number is never used again


def test_the_primary_stays(keyset):
    for change in (keyset.disable, keyset.destroy):
        with pytest.raises(KeysetError, match="is the primary: rotate the keyset first"):
            change(1)
    keyset.enable(1)
    assert keyset.live == (1,)


def test_unknown_versions(keyset):
    for use in (keyset.root, keyset.enable, keyset.disable, keyset.destroy):
        with pytest.raises(KeyUnavailableError, match="key version 7 is not in this keyset"):
            use(7)


def test_export_is_guarded(keyset):
    for value in (False, 1, "yes", None):
        with pytest.raises(KeysetError, match="unsafe_cleartext=True"):
            keyset.export(unsafe_cleartext=value)
    with pytest.raises(KeysetError):
        keyset.export()
    with pytest.raises(TypeError):
        keyset.export(True)
    assert base64.b64encode(keyset.root(1)).decode() in base64.b64decode(keyset.export(unsafe_cleartext=True)).decode()


def test_roots_do_not_show(keyset):
    keyset.rotate()
    keyset.disable(1)
    root = keyset.root(2)
    shown = repr(keyset) + str(keyset) + repr(keyset.versions) + repr(list(keyset._held.document.versions.values()))
    for secret in (repr(root), repr(root)[2:-1], root.hex(), base64.b64encode(root).decode()):
        assert secret not in shown
    assert all(item.root == b"" for item in keyset.versions)
    assert repr(keyset) == "Keyset('memory:', primary=2, {1: disabled, 2: enabled})"


@pytest.mark.parametrize("make", [pickle.dumps, copy.copy, copy.deepcopy])
def test_not_pickled_nor_copied(keyset, make):
    with pytest.raises(TypeError, match="open it by its URI"):
        make(keyset)


class Failing:
    uri = "failing:"

    def create(self, document):
        self.document = document

    def save(self, document):
        raise KeysetError("disk full")


def test_failed_save_changes_nothing():
    keyset = Keyset.create("memory:")
    keyset.rotate()
    keyset._held.stored = Failing()
    before = keyset._document()
    for change in (keyset.rotate, lambda: keyset.disable(1), lambda: keyset.destroy(1)):
        with pytest.raises(KeysetError, match="disk full"):
            change()
        assert keyset._document() == before
        assert (keyset.primary, keyset.live) == (2, (2, 1))


def version(number=1, **changes):
    item = {"version": number, "state": "enabled", "created": "now", "root": base64.b64encode(bytes(32)).decode()}
    return {**item, **changes}


def document(*versions, **changes):
    return {"format": "encvec-keyset/1", "primary": 1, "versions": list(versions), **changes}


SHORT = base64.b64encode(bytes(31)).decode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        document(),
        document(version(), format="encvec-keyset/2"),
        document(version(), primary=2),
        document(version(), primary=1.0),
        document(version(), primary=True),
        document(version(), primary=float("inf")),
        document(version(), primary=float("nan")),
        document(version(), primary=[]),
        document(version(), versions=5),
        document(version(), versions=[1]),
        document(version(), versions={"1": version()}),
        document(version(), version()),
        document(version(state="disabled")),
        document(version(state="destroyed", root="")),
        document(version(state="nope")),
        document(version(root=SHORT)),
        document(version(root="!" + SHORT)),
        document(version(root=None)),
        document(version(root="")),
        document(version(), version(2, state="destroyed")),
        document(version(), version(0)),
        document(version(), version(-1)),
        document(version(), version(2**32)),
        document(version(), version(1.5)),
        document(version(), version(float("inf"))),
        document(version(), version("2")),
        document({"version": 1}),
    ],
    ids=lambda content: (content if isinstance(content, bytes) else json.dumps(content).encode())[:60].decode("latin1"),
)
def test_malformed_documents(monkeypatch, content):
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", base64.b64encode(content).decode())
    with pytest.raises(KeysetError):
        Keyset.open("env:ENCVEC_TEST_KEYSET")


def test_well_formed_document(monkeypatch):
    """The cases above fail for what they say: their base opens."""
    content = json.dumps(document(version(), version(2**32 - 1, state="destroyed", root=""))).encode()
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", base64.b64encode(content).decode())
    keyset = Keyset.open("env:ENCVEC_TEST_KEYSET")
    assert keyset.root(1) == bytes(32)
    assert keyset.live == (1,)
