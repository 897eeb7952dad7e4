"""Where keysets lie, other than files: environment variables, memory, and the table of URIs."""

from typing import ClassVar

import pytest

from encvec_store.errors import InputError, KeysetError, UriError
from encvec_store.keys import STORAGES
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


def test_env_two_writers():
    """As with files: the second of two that both opened the keyset is told, and the first one's key is kept."""
    Keyset.create(URI)
    one, two = Keyset.open(URI), Keyset.open(URI)
    one.rotate()
    with pytest.raises(KeysetError, match="has changed since: open the keyset again"):
        two.rotate()
    assert two.primary == 1
    assert Keyset.open(URI).root(2) == one.root(2)


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
    with pytest.raises(KeysetError, match=r"must hold a keyset in base64|no keyset of a known format|unknown format"):
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


def test_what_is_unknown_is_not_shown():
    """A keyset, or a passphrase, that was given in the place of a URI."""
    keyset = Keyset.create("memory:").export(unsafe_cleartext=True)
    for given in (keyset, f"my secret: {keyset}"):
        with pytest.raises(UriError, match="another string") as caught:
            Keyset.open(given)
        assert keyset not in str(caught.value)


def test_open_or_create(tmp_path):
    uri = f"file:{tmp_path}/keys.json?wrap=none"
    made = Keyset.open_or_create(uri)
    made.rotate()
    assert Keyset.open_or_create(uri).root(2) == made.root(2)
    assert Keyset.open_or_create("memory:").primary == 1
    (tmp_path / "keys.json").write_text("damaged")
    with pytest.raises(KeysetError, match="damaged"):
        Keyset.open_or_create(uri)
    with pytest.raises(KeysetError, match="cannot write"):
        Keyset.open_or_create(f"file:{tmp_path}/keys.json/other?wrap=none")


def test_open_or_create_where_another_process_is_first(monkeypatch):
    """Both see nothing; the second to create opens what the first has made."""
    real, first = STORAGES["env"].create, []

    def late(self, content):
        if not first:
            first.append(content)
            first.append(Keyset.create(URI))
        real(self, content)

    monkeypatch.setattr(STORAGES["env"], "create", late)
    assert Keyset.open_or_create(URI).root(1) == first[1].root(1)


class Shelf:
    """A storage of somebody else, wrapped by a passphrase unless told otherwise."""

    kept: ClassVar[dict[str, bytes]] = {}
    wrapper = "passphrase"
    lasting = True

    def __init__(self, rest):
        self.uri, self.rest = f"shelf:{rest}", rest

    def exists(self):
        return self.rest in self.kept

    def read(self):
        return self.kept[self.rest]

    def create(self, content):
        self.kept[self.rest] = content

    replace = create


def test_bring_your_own(monkeypatch):
    monkeypatch.setitem(STORAGES, "shelf", Shelf)
    keyset = Keyset.create("shelf:a:b", passphrase="correct horse")
    keyset.rotate()
    assert keyset.uri == "shelf:a:b"
    assert b"encvec-keyset-wrapped/1" in Shelf.kept["a:b"]
    assert Keyset.open("shelf:a:b", passphrase="correct horse").root(2) == keyset.root(2)
    with pytest.raises(KeysetError, match="shelf:a:b holds a keyset already"):
        Keyset.create("shelf:a:b", passphrase="correct horse")
