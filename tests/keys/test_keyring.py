"""Keysets in the system keyring, over a keyring in memory."""

import pytest

from encvec_store.errors import KeysetError, UriError
from encvec_store.keys import Keyset

keyring = pytest.importorskip("keyring", reason="keyring (the extra keyring) is not installed")
backend = pytest.importorskip("keyring.backend")


class InMemory(backend.KeyringBackend):
    priority = 1

    def __init__(self):
        super().__init__()
        self.entries = {}

    def get_password(self, service, username):
        return self.entries.get((service, username))

    def set_password(self, service, username, password):
        self.entries[service, username] = password


@pytest.fixture(autouse=True)
def ring():
    before = keyring.get_keyring()
    made = InMemory()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def test_a_keyset(ring):
    keyset = Keyset.create("keyring:vectors")
    keyset.rotate()
    again = Keyset.open("keyring:vectors")
    assert (again.root(2), again.primary) == (keyset.root(2), 2)
    assert list(ring.entries) == [("encvec_store", "vectors")]
    assert Keyset.open_or_create("keyring:vectors").root(1) == keyset.root(1)
    with pytest.raises(KeysetError, match="holds a keyset already"):
        Keyset.create("keyring:vectors")


def test_it_may_be_wrapped_as_well():
    root = Keyset.create("keyring:vectors", wrap="passphrase", passphrase="secret").root(1)
    assert Keyset.open("keyring:vectors", passphrase="secret").root(1) == root


def test_two_writers_lose_no_key():
    Keyset.create("keyring:vectors")
    one, two = Keyset.open("keyring:vectors"), Keyset.open("keyring:vectors")
    one.rotate()
    with pytest.raises(KeysetError, match="has changed since: open it again"):
        two.rotate()


def test_what_is_not_there_or_no_keyset(ring):
    with pytest.raises(KeysetError, match="no keyset in the system keyring under 'vectors'"):
        Keyset.open("keyring:vectors")
    ring.entries["encvec_store", "vectors"] = "?"
    with pytest.raises(KeysetError, match="must hold a keyset in base64"):
        Keyset.open("keyring:vectors")
    with pytest.raises(UriError, match="must be followed by the name of an entry"):
        Keyset.open("keyring:")


def test_a_keyring_that_cannot_be_used(monkeypatch, ring):
    def locked(self, service, username, password):
        raise RuntimeError(f"cannot store {password}")

    monkeypatch.setattr(InMemory, "set_password", locked)
    with pytest.raises(KeysetError, match=r"cannot be used \(RuntimeError\)") as caught:
        Keyset.create("keyring:vectors")
    assert caught.value.__context__ is None, "its words may hold the keys"
