"""A keyset is wrapped in another way, all or nothing, and its keys stay."""

import json

import pytest

from encvec_store.errors import InputError, KeysetError, KeyUnavailableError, UriError
from encvec_store.keys import WRAPPERS, Keyset
from tests.keys.test_wrapping import Service
from tests.kits.key_files import PASSPHRASE, create, reopen


@pytest.fixture(autouse=True)
def _service(monkeypatch):
    monkeypatch.setitem(WRAPPERS, "service", Service)


def test_to_a_service_and_back(path):
    keyset = create(path)
    keyset.rotate()
    keyset.disable(1)
    roots = keyset.root(2)
    for wrap, given in (
        ("service:app", {}),
        ("service:thief", {}),
        ("passphrase", {"passphrase": "new"}),
        ("none", {}),
    ):
        keyset.rewrap(wrap, **given)
        assert keyset.uri == f"file:{path}?wrap={wrap}"
        again = Keyset.open(keyset.uri, **given)
        assert (again.root(2), again.live) == (roots, (2,))
        with pytest.raises(KeyUnavailableError):
            again.root(1)
        with pytest.raises(KeysetError):
            reopen(path)
    keyset.rewrap("passphrase", passphrase=PASSPHRASE)
    keyset.rotate()
    assert reopen(path).root(3) == keyset.root(3)


def test_the_same_wrapper_gives_a_new_key(path):
    keyset = create(path)
    before = json.loads(path.read_bytes())
    keyset.rewrap("passphrase", passphrase=PASSPHRASE)
    after = json.loads(path.read_bytes())
    assert all(before[name] != after[name] for name in ("header", "nonce", "sealed"))
    assert reopen(path).root(1) == keyset.root(1)


@pytest.mark.parametrize(
    ("wrap", "given", "kind"),
    [
        ("nope", {}, UriError),
        ("service:nobody", {}, KeyError),
        ("passphrase", {}, KeysetError),
        ("none", {"passphrase": "x"}, InputError),
    ],
)
def test_what_fails_changes_nothing(path, wrap, given, kind):
    keyset = create(path)
    before = path.read_bytes()
    with pytest.raises(kind):
        keyset.rewrap(wrap, **given)
    assert path.read_bytes() == before
    keyset.rotate()
    assert reopen(path).root(2) == keyset.root(2)


def test_a_disk_that_fails(path, monkeypatch):
    keyset = create(path)
    before = path.read_bytes()

    def full(content):
        raise KeysetError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(keyset._held.stored._storage, "replace", full)
        for wrap in ("service:app", "none"):
            with pytest.raises(KeysetError, match="no space"):
                keyset.rewrap(wrap)
    assert path.read_bytes() == before
    keyset.rotate()
    assert reopen(path).root(2) == keyset.root(2)


def test_the_uri_of_the_environment(path, monkeypatch):
    create(path)
    monkeypatch.setenv("ENCVEC_KEYSET", f"file:{path}")
    monkeypatch.setenv("ENCVEC_PASSPHRASE", PASSPHRASE)
    assert Keyset.open().root(1) == reopen(path).root(1)
    assert Keyset.open_or_create().uri == f"file:{path}"
    monkeypatch.delenv("ENCVEC_KEYSET")
    with pytest.raises(UriError, match=r"give the URI of the keyset, which begins .* or set ENCVEC_KEYSET"):
        Keyset.open()
