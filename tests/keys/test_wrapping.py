"""What wraps a keyset: named or by default, found again by itself, and never weaker than the caller expects."""

import base64
import json
import os
import stat

import pytest

from encvec_store.errors import InputError, KeysetError, UriError
from encvec_store.keys import WRAPPERS, StoredKeyset
from encvec_store.keys.keyset import Keyset
from tests.kits.key_files import PASSPHRASE, create, reopen

ENV = "env:ENCVEC_TEST_KEYSET"


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", "")


class Service:
    """A key service of another package: one key a name, a header that holds what is not secret."""

    keys: dict[str, bytes] = {"app": b"k" * 32, "thief": b"t" * 32}  # noqa: RUF012 - never changed
    asked: list[str] = []  # noqa: RUF012

    def __init__(self, rest, passphrase):
        self.name = rest

    def new(self):
        return self.keys[self.name], {"of": [self.name], "tuple": (1, 2)}

    def recover(self, header):
        if header["of"] != [self.name]:
            raise KeysetError(f"it is wrapped by another key than {self.name!r}")
        self.asked.append(self.name)
        return self.keys[self.name]


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setitem(WRAPPERS, "service", Service)
    Service.asked.clear()
    return Service


def content(uri):
    return StoredKeyset(uri)._storage.read()


# ---------------------------------------------------------------------------- defaults, and wrappers by name


def test_defaults(path):
    create(path)
    Keyset.create(ENV)
    assert json.loads(path.read_bytes())["wrapper"] == "passphrase"
    assert json.loads(content(ENV))["format"] == "encvec-keyset/1"


@pytest.mark.parametrize(
    ("place", "in_uri"),
    [
        *[(place, in_uri) for place in (ENV, "file:keys.json", "file:what?.json") for in_uri in (True, False)],
        ("file:a?wrap=b.json", True),  # such a name needs its wrapper in the URI
    ],
)
@pytest.mark.parametrize("wrap", ["none", "passphrase"])
def test_a_wrapper_by_name(monkeypatch, tmp_path, wrap, place, in_uri):
    """And the URI that the keyset shows opens it again."""
    monkeypatch.chdir(tmp_path)
    secret = {"passphrase": PASSPHRASE} if wrap == "passphrase" else {}
    how = {"uri": f"{place}?wrap={wrap}"} if in_uri else {"uri": place, "wrap": wrap}
    keyset = Keyset.create(**how, **secret)
    keyset.rotate()
    assert keyset.uri == f"{place}?wrap={wrap}"
    for again in (how, {"uri": keyset.uri}, {"uri": keyset.uri, "wrap": wrap}):
        assert Keyset.open(**again, **secret).root(2) == keyset.root(2)
    if place.startswith("file:"):
        assert (tmp_path / place.removeprefix("file:")).is_file()
    clear = base64.b64encode(keyset.root(2)) in content(keyset.uri)
    assert clear is (wrap == "none")


def test_a_question_mark_is_part_of_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    keyset = Keyset.create("file:a?wrapped=1?b", passphrase=PASSPHRASE)
    assert (keyset.uri, [item.name for item in tmp_path.iterdir()]) == ("file:a?wrapped=1?b", ["a?wrapped=1?b"])


def test_a_wrapped_keyset_opens_without_a_hint():
    keyset = Keyset.create(ENV, wrap="passphrase", passphrase=PASSPHRASE)
    again = Keyset.open(ENV, passphrase=PASSPHRASE)
    again.rotate()
    assert json.loads(content(ENV))["wrapper"] == "passphrase"  # and stays wrapped
    assert Keyset.open(ENV, passphrase=PASSPHRASE).root(1) == keyset.root(1)
    with pytest.raises(KeysetError, match="env:ENCVEC_TEST_KEYSET: wrong passphrase"):
        Keyset.open(ENV, passphrase="another")
    with pytest.raises(KeysetError, match="env:ENCVEC_TEST_KEYSET: a passphrase is needed"):
        Keyset.open(ENV)


def test_a_passphrase_comes_from_the_environment_for_any_storage(monkeypatch):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", PASSPHRASE)
    keyset = Keyset.create(f"{ENV}?wrap=passphrase")
    assert Keyset.open(ENV).root(1) == keyset.root(1)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_file_in_clear_is_private_too(path):
    keyset = Keyset.create(f"file:{path}", wrap="none")
    keyset.rotate()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ------------------------------------------------------------------------------------------- no downgrade


def in_clear(path):
    path.write_bytes(base64.b64decode(Keyset.create("memory:").export(unsafe_cleartext=True)))


@pytest.mark.parametrize("named", [{}, {"wrap": "passphrase"}])
@pytest.mark.parametrize("secret", [{}, {"passphrase": PASSPHRASE}])
def test_a_file_in_clear_takes_no_wrapped_one_s_place(path, named, secret):
    """Whoever can write there puts a keyset of his own: nothing must be encrypted under it."""
    create(path)
    in_clear(path)
    with pytest.raises(KeysetError, match=r"must (be wrapped|have the wrapper 'passphrase').*but is in clear"):
        Keyset.open(f"file:{path}", **named, **secret)
    with pytest.raises(KeysetError, match="but is in clear"):
        Keyset.open_or_create(f"file:{path}", **named, **secret)
    assert Keyset.open(f"file:{path}", wrap="none").primary == 1


def test_the_error_says_what_to_do(path):
    in_clear(path)
    with pytest.raises(KeysetError, match='If you created it in clear, pass wrap="none"'):
        Keyset.open(f"file:{path}")


def test_a_passphrase_given_is_a_wrapper_expected(path):
    Keyset.create(ENV)
    in_clear(path)
    for uri in (ENV, f"{ENV}?wrap=none", f"file:{path}?wrap=none"):
        with pytest.raises(KeysetError, match="must be wrapped by the given passphrase"):
            Keyset.open(uri, passphrase=PASSPHRASE)


def test_a_wrapper_that_is_named_is_the_one_that_is_taken(path, service):
    create(path)
    for wrap in ("none", "service:app"):
        with pytest.raises(KeysetError, match=f"must have the wrapper '{wrap.partition(':')[0]}', but is wrapped by"):
            Keyset.open(f"file:{path}", wrap=wrap)
    assert service.asked == []


def test_nobody_creates_in_clear_with_a_passphrase(path):
    for uri in (ENV, "memory:", f"file:{path}?wrap=none"):
        with pytest.raises(InputError, match=r"and not use the passphrase: leave passphrase= out, or pass wrap="):
            Keyset.create(uri, passphrase=PASSPHRASE)
    assert not path.exists()


@pytest.mark.parametrize("change", ["wrapper", "header", "sealed", "nonce"])
def test_what_is_stored_in_clear_is_authenticated(path, tmp_path, change):
    """No part of one file, however well formed, goes with the rest of another under the same passphrase."""
    create(path)
    create(tmp_path / "other.json")
    fields, other = (json.loads(item.read_bytes()) for item in (path, tmp_path / "other.json"))
    fields[change] = "service" if change == "wrapper" else other[change]
    path.write_bytes(json.dumps(fields, sort_keys=True, indent=1).encode() + b"\n")
    with pytest.raises(KeysetError):
        reopen(path)


def test_a_failed_open_does_not_save_in_clear(path):
    create(path)
    before = path.read_bytes()
    stored = StoredKeyset(f"file:{path}", passphrase="wrong")
    with pytest.raises(KeysetError):
        stored.load()
    with pytest.raises(KeysetError, match="must be opened or created before it is changed"):
        stored.save(b"{}")
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------- wrappers of other packages


def test_a_wrapper_of_another_package(path, service):
    uri = f"file:{path}"
    keyset = Keyset.create(uri, wrap="service:app")
    keyset.rotate()
    assert json.loads(path.read_bytes())["header"] == {"of": ["app"], "tuple": [1, 2]}
    assert keyset.uri == f"{uri}?wrap=service:app"
    again = Keyset.open(keyset.uri)
    again.rotate()
    assert Keyset.open(uri, wrap="service:app").root(3) == again.root(3)
    with pytest.raises(KeysetError, match=r"keys\.json.*: it is wrapped by another key than 'thief'"):
        Keyset.open(uri, wrap="service:thief")


def test_a_wrong_key_says_so(monkeypatch, path, service):
    uri = Keyset.create(f"file:{path}", wrap="service:app").uri
    monkeypatch.setitem(service.keys, "app", b"x" * 32)
    with pytest.raises(KeysetError, match="wrong key, or the keyset was altered"):
        Keyset.open(uri)


@pytest.mark.parametrize("changes", [{}, {"wrapper": "again"}, {"header": {"of": ["app"], "tuple": [2, 1]}}])
def test_name_and_header_are_authenticated(monkeypatch, path, service, changes):
    """Also where they make no difference to the key."""
    monkeypatch.setitem(WRAPPERS, "again", Service)
    keyset = Keyset.create(f"file:{path}", wrap="service:app")
    fields = {**json.loads(path.read_bytes()), **changes}
    path.write_bytes(json.dumps(fields, sort_keys=True, indent=1).encode() + b"\n")
    uri = f"file:{path}?wrap={fields['wrapper']}:app"
    if changes:
        with pytest.raises(KeysetError, match="wrong key, or the keyset was altered"):
            Keyset.open(uri)
    else:
        assert Keyset.open(uri).root(1) == keyset.root(1)


def test_a_service_must_be_named(path, service):
    """A thief has a key in the same service: a file that says so must not be taken unasked."""
    Keyset.create(f"file:{path}", wrap="service:thief")
    with pytest.raises(KeysetError, match="is wrapped by 'service': if you chose that, pass wrap='service'"):
        Keyset.open(f"file:{path}")
    assert service.asked == []


@pytest.mark.parametrize("key", [b"short", bytearray(32), "k" * 32, None])
def test_a_key_must_have_its_size(monkeypatch, path, service, key):
    monkeypatch.setitem(service.keys, "app", key)
    with pytest.raises(KeysetError, match="must return a key of 32 bytes"):
        Keyset.create(f"file:{path}", wrap="service:app")
    assert not path.exists()


# ------------------------------------------------------------------------------------------- bad names


@pytest.mark.parametrize("wrap", ["", "nope", "PASSPHRASE", "none:x", "passphrase:x", "x:y", 5])
def test_bad_wrappers(path, wrap):
    for call in (Keyset.create, Keyset.open):
        with pytest.raises(UriError, match=r"must be one of none, passphrase|takes nothing after its name"):
            call(f"file:{path}", wrap=wrap)
    assert not path.exists()


def test_two_wrappers_named(path):
    with pytest.raises(UriError, match="names the wrapper 'none', but wrap= is 'passphrase': give one"):
        Keyset.create(f"file:{path}?wrap=none", wrap="passphrase")


@pytest.mark.parametrize(
    ("uri", "new", "there"),
    [
        ("file:{path}", "passphrase", "passphrase"),
        ("file:{path}?wrap=none", "none", "none"),
        ("env:X?wrap=passphrase", "passphrase", "passphrase"),
        ("env:ENCVEC_TEST_KEYSET", "none", "passphrase"),
        ("memory:", "none", None),
    ],
)
def test_what_the_wrapper_is(path, uri, new, there):
    """What the command line asks before it prompts: of a new keyset, and of the one that is there."""
    create(path)
    Keyset.create(ENV, wrap="passphrase", passphrase=PASSPHRASE)
    stored = StoredKeyset(uri.format(path=path))
    assert stored.wrapper(new=True) == new
    if there is None:
        with pytest.raises(KeysetError, match="cannot be opened again"):
            stored.wrapper()
    else:
        assert stored.wrapper() == there
