"""Keys of tenants in a keyset: random, wrapped or not, seen by other processes, and gone for good once erased."""

import base64
import json
import os
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encvec_store import errors
from encvec_store.crypto import tenant_root
from encvec_store.keys import STORAGES, WRAPPERS, Keyset, document, lifetime
from encvec_store.keys.document import Document, TenantKey, parse
from encvec_store.keys.storage.memory import MemoryStorage
from encvec_store.sealing import Keyring, TenantRoots


class Service:
    """A key service with a key for each name, which counts, and fails on demand."""

    service = True
    asked = 0
    failing: type[Exception] | None = None

    def __init__(self, rest, passphrase):
        self.mask = rest.encode().ljust(32, b".")

    def new(self):
        key = os.urandom(32)
        return key, {"wrapped": base64.b64encode(bytes(a ^ b for a, b in zip(key, self.mask, strict=True))).decode()}

    def recover(self, header):
        Service.asked += 1
        if Service.failing is not None:
            raise Service.failing("told to")
        return bytes(a ^ b for a, b in zip(base64.b64decode(header["wrapped"]), self.mask, strict=True))


@pytest.fixture
def uri(path, monkeypatch):
    monkeypatch.setitem(WRAPPERS, "counted", Service)
    monkeypatch.setattr(Service, "asked", 0)
    monkeypatch.setattr(Service, "failing", None)
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "secret")
    return f"file:{path}"


def keyring(keyset, tenant="acme"):
    return Keyring(TenantRoots(keyset, tenant), tenant, "things", bytes(16))


def names(keyset, tenant="acme"):
    return keyring(keyset, tenant).tokens(["a"])[keyset.primary].tobytes()


def test_all_keys_depend_on_the_secret(uri):
    keyset = Keyset.create(uri)
    plain, other = names(keyset), names(keyset, "other")
    keyset.tenants.add("acme", rotate=False)
    own = names(keyset)
    assert own == names(Keyset.open(uri)) != plain
    assert (names(keyset, "other"), names(keyset, "")) == (
        other,
        Keyring(keyset, "", "things", bytes(16)).tokens(["a"])[1].tobytes(),
    )
    secret = keyset._held.document.tenants["acme"].secret
    assert TenantRoots(keyset, "acme").root(1) == tenant_root(keyset.root(1), secret, "acme")
    keyset.rotate()
    assert keyset._held.document.tenants["acme"].secret == secret, "rotation leaves it alone"
    assert (
        len({TenantRoots(keyset, "acme").root(version) for version in (1, 2)} | {keyset.root(1), keyset.root(2)}) == 4
    )
    assert secret.hex() not in repr(keyset.tenants.get("acme")) + repr(list(keyset.tenants))
    assert not any(item.secret or item.header for item in keyset.tenants)


def test_erased_for_good(uri, path):
    keyset = Keyset.create(uri)
    keyset.tenants.add("acme", rotate=False)
    secret, old, ring = keyset._held.document.tenants["acme"].secret, names(keyset), keyring(keyset)
    ring.tokens(["a"])
    cipher = weakref.ref(ring._ciphers[1])
    gone = keyset.tenants.erase("acme")
    assert gone.erased
    assert keyset.tenants.erase("acme") == gone, "again: nothing happens"
    assert (ring._ciphers, cipher()) == ({}, None)
    exported = base64.b64decode(keyset.export(unsafe_cleartext=True))
    assert base64.b64encode(secret) not in exported
    for again in (keyset, Keyset.open(uri), Keyset.restore("memory:", base64.b64encode(exported).decode())):
        for use in (lambda r: r.live, lambda r: r.primary, lambda r: r.tokens(["a"]), lambda r: r.tag(b"x")):
            with pytest.raises(errors.TenantErasedError, match="tenant 'acme' was erased at 2"):
                use(keyring(again))
    keyset.tenants.add("acme", rotate=False)
    assert names(keyset) != old, "a new tenant of the same name has another key"
    assert keyset.tenants.get("acme").life == 2
    assert ring.tokens(["a"])[1].tobytes() == names(keyset)


def test_only_for_data_to_come(uri):
    """A tenant that may have data gets a new version, from which on its key counts."""
    keyset = Keyset.create(uri)
    before = TenantRoots(keyset, "acme").root(1)
    assert keyset.tenants.add("acme").since == keyset.primary == 2
    roots = TenantRoots(keyset, "acme")
    assert (roots.root(1), roots.root(2) == keyset.root(2)) == (before, False)
    keyset.rotate()
    assert roots.root(3) != keyset.root(3)


def test_refusals(uri, monkeypatch, tmp_path):
    keyset = Keyset.create(uri)
    keyset.tenants.add("acme", rotate=False)
    with pytest.raises(errors.InputError, match="'acme' has a key of its own already"):
        keyset.tenants.add("acme")
    with pytest.raises(errors.InputError, match="no key of its own that could be destroyed"):
        keyset.tenants.erase("other")
    with pytest.raises(errors.InputError, match="tenant must have 1 to 255 bytes"):
        keyset.tenants.add("")
    for wrap in ("none", "passphrase", "nothing:x"):
        with pytest.raises(errors.UriError, match="must be"):
            keyset.tenants.add("more", wrap=wrap)
    monkeypatch.setenv("ENCVEC_TEST_KEYSET", "")
    with pytest.raises(errors.KeysetError, match="cannot be written for good"):
        Keyset.create("env:ENCVEC_TEST_KEYSET").tenants.add("acme")
    beside = Keyset.create(f"store:faiss:{tmp_path}/store?wrap=passphrase")
    with pytest.raises(errors.KeysetError, match="lies beside the data: every backup"):
        beside.tenants.add("acme")
    beside.tenants.add("acme", wrap="counted:acme")
    assert names(beside) != names(keyset)


def test_another_process_learns_of_it(uri, clock):
    one = Keyset.create(uri)
    one.tenants.add("acme", rotate=False)
    two = Keyset.open(uri)
    ring, told = keyring(two), []

    class Opened:
        def forget(self):
            told.append("content")

    opened = Opened()
    ring.until_erased(opened)
    ring.tokens(["a"])
    one.tenants.erase("acme")
    clock(two.tenants.seconds / 2 - 1)
    assert ring.tokens(["a"]), "until it looks"
    clock(2)
    with pytest.raises(errors.TenantErasedError):
        ring.tokens(["a"])
    assert (told, ring._ciphers) == (["content"], {})
    assert two.tenants.seconds == lifetime.TOLD
    assert Keyset.open(uri, lifetime=10).tenants.seconds == 10


def test_a_keyset_that_cannot_be_read(uri, clock, path, caplog):
    """Nobody knows then whether a tenant was erased: at the second look its keys are dropped."""
    Keyset.create(uri).tenants.add("acme", rotate=False)
    keyset = Keyset.open(uri)
    ring = keyring(keyset)
    ring.tokens(["a"])
    content = path.read_bytes()
    path.unlink()
    clock(keyset.tenants.seconds / 2 + 1)
    assert ring.tokens(["a"])
    clock(keyset.tenants.seconds / 2 + 1)
    with pytest.raises(errors.KeysetError, match="no keyset at"):
        ring.tokens(["a"])
    assert "not known whether tenants were erased" in caplog.text
    path.write_bytes(content)
    assert ring.tokens(["a"])


def test_writers_lose_no_tenant(uri):
    """Tenants are added by many processes: the second one takes over what the first has written."""
    one, two = Keyset.create(uri), Keyset.open(uri)
    one.tenants.add("a", rotate=False)
    two.tenants.add("b", rotate=False)
    one.rotate()
    two.tenants.erase("a")
    one.tenants.look()
    assert [(item.name, bool(item.erased)) for item in one.tenants] == [("a", True), ("b", False)]
    assert (one.primary, len(two.tenants)) == (2, 2)
    assert names(one, "b") == names(Keyset.open(uri), "b")


@pytest.mark.parametrize("put_back", ["before it was added", "before it was erased"])
def test_an_older_keyset_put_back_is_refused(uri, path, put_back):
    keyset = Keyset.create(uri)
    old = {"before it was added": path.read_bytes()}
    keyset.tenants.add("acme", rotate=False)
    old["before it was erased"] = path.read_bytes()
    keyset.tenants.erase("acme")
    path.write_bytes(old[put_back])
    with pytest.raises(errors.KeysetError, match="was put back to an older state"):
        keyset.tenants.look()
    with pytest.raises(errors.KeysetError, match="changed by another process"):
        keyset._held.stored.save(b"")
    with pytest.raises(errors.TenantErasedError):
        names(keyset)


def test_a_key_of_the_tenants_own(uri, path, clock):
    """It is unwrapped once, again after an hour, and never when the service says no."""
    keyset = Keyset.create(uri)
    keyset.tenants.add("acme", wrap="counted:acme", rotate=False)
    keyset.tenants.add("other", wrap="counted:other", rotate=False)
    assert keyset.tenants.get("acme").wrap == "counted:acme"
    assert keyset._held.document.tenants["acme"].secret == b""
    again = Keyset.open(uri)
    assert Service.asked == 0, "not before it is used"
    ring = keyring(again)
    first = names(again)
    for _ in range(5):
        assert ring.tokens(["a"])[1].tobytes() == first
    assert Service.asked == 1
    assert names(again, "other") != first
    clock(lifetime.DEFAULT)
    assert names(again) == first
    assert Service.asked == 3
    Service.failing = errors.KeyDisabledError
    clock(lifetime.DEFAULT)
    with pytest.raises(errors.KeyDisabledError, match="the key of tenant 'acme': told to"):
        ring.tokens(["a"])
    assert names(again, "") != first, "others go on"
    Service.failing = None
    assert names(again) == first
    again.tenants.erase("acme")
    assert b"counted:acme" not in base64.b64decode(again.export(unsafe_cleartext=True))


def test_formats(uri, path):
    """Without tenants a keyset is written as it always was; with tenants, an old reader refuses it."""
    keyset = Keyset.create(uri, wrap="none")
    assert json.loads(path.read_bytes())["format"] == "encvec-keyset/1"
    keyset.tenants.add("acme", rotate=False)
    keyset.tenants.erase("acme")
    fields = json.loads(path.read_bytes())
    assert fields["format"] == "encvec-keyset/2"
    (item,) = fields["tenants"]
    for damage in (
        {"secret": "AA=="}, {"life": 0}, {"since": 0}, {"since": 2.0}, {"name": ""}, {"name": 1}, {"wrap": "counted:a"},
        {"erased": ""}, {"header": []}, {"more": 1},
    ):  # fmt: skip
        with pytest.raises(errors.KeysetError, match="unknown format, or is damaged"):
            parse(json.dumps({**fields, "tenants": [{**item, **damage}]}).encode())
    with pytest.raises(errors.KeysetError, match="unknown format, or is damaged"):
        parse(json.dumps({**fields, "tenants": [item, item]}).encode())


TENANTS = st.builds(
    TenantKey,
    st.text(min_size=1, max_size=5),
    st.just("2026-11-30"),
    st.integers(1, 9),
    st.integers(1, 9),
    secret=st.binary(min_size=32, max_size=32),
)


@given(st.dictionaries(st.text(max_size=3), TENANTS))
def test_documents_come_back(tenants):
    whole = Document({1: document.fresh(1)}, 1, {item.name: item for item in tenants.values()})
    assert parse(whole.serialised()) == whole
    assert whole.serialised() == parse(whole.serialised()).serialised()
    assert not whole.goes_back(whole.bare())


class Shared(MemoryStorage):
    """One content for all keysets of a URI, as a file is."""

    content: bytes | None = None
    lasting = True

    def __init__(self, rest):
        super().__init__(rest)
        self._seen = None

    @property
    def _content(self):
        return Shared.content

    @_content.setter
    def _content(self, value):
        if value is not None:
            Shared.content = self._seen = value

    def read(self):
        self._seen = Shared.content
        return Shared.content

    def replace(self, content):
        if self._seen != Shared.content:
            raise errors.KeysetError("changed")
        self._content = content


STEPS = st.tuples(st.sampled_from("ab"), st.sampled_from(["add", "erase", "rotate", "look"]), st.sampled_from("xyz"))


@given(st.lists(STEPS, max_size=25))
def test_histories_of_two_processes(steps):
    """Whatever two processes do: each life has one secret, and a new process sees what was done last."""
    Shared.content = None
    STORAGES["shared"] = Shared
    try:
        keysets = {"a": Keyset.create("shared:x")}
        keysets["b"] = Keyset.open("shared:x")
        lives, living = {}, {}
        for who, what, name in steps:
            tenants = keysets[who].tenants
            if what == "rotate":
                tenants.look()
                keysets[who].rotate()
            elif what == "look":
                tenants.look()
            elif what == "add":
                if living.get(name):
                    with pytest.raises(errors.InputError):
                        tenants.add(name)
                else:
                    living[name] = True
                    lives[name] = lives.get(name, 0) + 1
                    assert tenants.add(name).life == lives[name]
            elif name in living:
                living[name] = False
                assert tenants.erase(name).erased
            else:
                with pytest.raises(errors.InputError):
                    tenants.erase(name)
        told = {item.name: (item.life, not item.erased) for item in Keyset.open("shared:x").tenants}
        assert told == {name: (lives[name], alive) for name, alive in living.items()}
        for keyset in keysets.values():
            keyset.tenants.look()
            for name, alive in living.items():
                if alive:
                    assert names(keyset, name) == names(Keyset.open("shared:x"), name)
                else:
                    with pytest.raises(errors.TenantErasedError):
                        names(keyset, name)
    finally:
        del STORAGES["shared"]
