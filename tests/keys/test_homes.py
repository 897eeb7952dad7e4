"""Where keysets live, other than files: environment variables, memory, and the table of URIs."""

import pytest

from encvec_store.errors import InputError, KeysetError, UriError
from encvec_store.keys import PROVIDERS, home
from encvec_store.keys.keyset import Keyset

NAME = "ENCVEC_TEST_KEYSET"
URI = f"env:{NAME}"


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    monkeypatch.setenv(NAME, "")  # so that it is put back whatever a test does


def test_env_round_trip(monkeypatch):
    keyset = Keyset.create(URI)
    keyset.rotate()
    keyset.disable(1)
    again = Keyset.open(URI)
    assert again.root(2) == keyset.root(2)
    assert (again.primary, again.live, again.uri, repr(again)) == (2, (2,), URI, repr(keyset))
    monkeypatch.setenv("ENCVEC_TEST_OTHER", keyset.export(unsafe_cleartext=True))
    assert Keyset.open("env:ENCVEC_TEST_OTHER").root(2) == keyset.root(2)


def test_env_never_overwrites():
    root = Keyset.create(URI).root(1)
    with pytest.raises(KeysetError, match="holds a keyset already"):
        Keyset.create(URI)
    assert Keyset.open(URI).root(1) == root


def test_env_not_set(monkeypatch):
    for prepare in (lambda: monkeypatch.setenv(NAME, ""), lambda: monkeypatch.delenv(NAME)):
        prepare()
        with pytest.raises(KeysetError, match="is not set"):
            Keyset.open(URI)


def test_env_flipped_characters(monkeypatch):
    """An unwrapped keyset has no tag: a flip is an error, or leaves a keyset whose keys open nothing."""
    keyset = Keyset.create(URI)
    text = keyset.export(unsafe_cleartext=True)
    refused = 0
    for position, character in enumerate(text):
        monkeypatch.setenv(NAME, text[:position] + ("A" if character != "A" else "B") + text[position + 1 :])
        try:
            Keyset.open(URI)
        except KeysetError:
            refused += 1
    assert refused > len(text) / 2


@pytest.mark.parametrize("text", ["????", "a", "e30", "e31=", "e30=\n", "\N{SNOWMAN}", " ", "bm9uc2Vuc2U="])
def test_env_malformed(monkeypatch, text):
    monkeypatch.setenv(NAME, text)
    with pytest.raises(KeysetError, match=r"holds no keyset|no keyset of a known format"):
        Keyset.open(URI)


@pytest.mark.parametrize("uri", ["env:", "env:A=B", "env:A\0B", "file:"])
def test_names_that_cannot_be(uri):
    with pytest.raises(UriError):
        Keyset.create(uri)


@pytest.mark.parametrize("uri", ["", "keys.json", "vault:x", "FILE:x", ":x", "/tmp/x", None, 5, b"file:x"])
def test_unknown_uri(uri):
    with pytest.raises(UriError, match="file:, env:, memory:") as caught:
        Keyset.open(uri)
    assert isinstance(caught.value, InputError)


def test_memory_is_gone_with_the_object():
    Keyset.create("memory:")
    with pytest.raises(KeysetError, match="cannot be opened again"):
        Keyset.open("memory:")


def test_bring_your_own(monkeypatch):
    kept = {}

    class Vault:
        def __init__(self, rest, passphrase):
            self.uri, self.rest = f"vault:{rest}", rest

        def create(self, document):
            kept[self.rest] = document

        save = create

        def load(self):
            return kept[self.rest]

    monkeypatch.setitem(PROVIDERS, "vault", Vault)
    assert home("vault:a:b").uri == "vault:a:b"
    keyset = Keyset.create("vault:here")
    keyset.rotate()
    assert Keyset.open("vault:here").root(2) == keyset.root(2)
