"""Keys stay in memory for their lifetime, and a service is asked again only when it ends, or in its second half."""

import gc
import logging
import math
import time
import weakref

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.keys import WRAPPERS, Keyset, lifetime
from encvec_store.sealing import Keyring
from tests.kits.forking import in_child


class Service:
    """A key service that counts, and fails on demand."""

    service = True
    keys = b"k" * 32
    asked = 0
    failing: type[Exception] | None = None

    def __init__(self, rest, passphrase):
        pass

    def new(self):
        return self.keys, {}

    def recover(self, header):
        Service.asked += 1
        if Service.failing is not None:
            raise Service.failing("told to")
        return self.keys


@pytest.fixture
def uri(path, monkeypatch):
    monkeypatch.setitem(WRAPPERS, "counted", Service)
    monkeypatch.setattr(Service, "asked", 0)
    monkeypatch.setattr(Service, "failing", None)
    return f"file:{path}?wrap=counted"


def test_no_request_while_they_live(uri, clock):
    keyset = Keyset.create(uri)
    root = keyset.root(1)
    clock(lifetime.DEFAULT / 2 - 1)
    assert keyset.root(1) == root
    assert Service.asked == 0
    clock(2)
    for _ in range(5):
        assert keyset.root(1) == root
    assert Service.asked == 1, "renewed once, in the second half"
    clock(lifetime.DEFAULT / 2 - 1)
    keyset.root(1)
    assert Service.asked == 1, "and the new lifetime began then"


def test_at_the_end_they_are_unwrapped_again(uri, clock):
    Keyset.create(uri)
    keyset = Keyset.open(uri, lifetime=60)
    root = keyset.root(1)
    clock(61)
    assert keyset.root(1) == root
    assert Service.asked == 2
    for use in (keyset.rotate, lambda: keyset.disable(1), lambda: keyset.export(unsafe_cleartext=True)):
        clock(61)
        use()
    assert Service.asked == 5
    assert Keyset.open(uri).root(2) == keyset.root(2)


@pytest.mark.parametrize("kind", [errors.KeyDeniedError, errors.KeyDisabledError, errors.KeyDeletedError])
def test_a_key_that_is_revoked_ends_them_early(uri, clock, kind):
    keyset = Keyset.create(uri, lifetime=60)
    keyset.root(1)
    Service.failing = kind
    keyset.root(1)
    clock(31)
    for _ in range(2):
        with pytest.raises(kind):
            keyset.root(1)
    Service.failing = None
    keyset.root(1)


@pytest.mark.parametrize("kind", [errors.KeyThrottledError, errors.KeyServiceUnreachableError, errors.KeysetError])
def test_a_service_may_be_away_until_the_end(uri, clock, kind, caplog):
    caplog.set_level(logging.WARNING, "encvec_store")
    keyset = Keyset.create(uri, lifetime=64)
    root = keyset.root(1)
    Service.failing = kind
    clock(33)
    for _ in range(5):
        assert keyset.root(1) == root
    assert Service.asked == 1, "not at every use"
    assert "not renewed yet" in caplog.text
    clock(5)
    keyset.root(1)
    assert Service.asked == 2
    clock(30)
    with pytest.raises(kind):
        keyset.root(1)
    assert keyset._held.document is None
    assert keyset._held.stored._key is None


def test_what_others_changed_is_seen(uri, clock):
    one = Keyset.create(uri)
    two = Keyset.open(uri, lifetime=60)
    one.rotate()
    one.destroy(1)
    assert two.root(1), "until its lifetime is over"
    clock(61)
    with pytest.raises(errors.KeyUnavailableError, match="key version 1 is destroyed"):
        two.root(1)
    assert (two.primary, two.root(2)) == (2, one.root(2))


@pytest.mark.parametrize("put_back", ["before rotate", "before destroy", "another"])
def test_an_older_keyset_put_back_is_refused(uri, clock, path, put_back):
    keyset = Keyset.create(uri, lifetime=60)
    old = {"before rotate": path.read_bytes()}
    keyset.rotate()
    old["before destroy"] = path.read_bytes()
    keyset.destroy(1)
    path.unlink()
    Keyset.create(uri)
    old["another"] = path.read_bytes()
    path.write_bytes(old[put_back])
    clock(61)
    with pytest.raises(errors.KeysetError, match="was put back to an older state"):
        keyset.root(2)


def test_a_timer_drops_them_from_an_idle_process(uri):
    keyset = Keyset.create(uri, lifetime=0.5)
    keyring = Keyring(keyset, "", "things", bytes(16))
    keyring.tokens(["a"])
    cipher = weakref.ref(keyring._ciphers[1])
    deadline = time.monotonic() + 20
    while (keyset._held.document is not None or keyring._ciphers) and time.monotonic() < deadline:
        time.sleep(0.005)
    gc.collect()
    assert (keyset._held.document, keyset._held.stored._key, keyring._ciphers, cipher()) == (None, None, {}, None)
    keyring.tokens(["a"])
    assert Service.asked >= 1


def test_a_timer_runs_in_a_forked_child(uri):
    keyset = Keyset.create(uri, lifetime=0.3)

    def forgotten():
        deadline = time.monotonic() + 20
        while keyset._held.document is not None and time.monotonic() < deadline:
            time.sleep(0.005)
        return keyset._held.document is None

    assert in_child(forgotten)


def test_a_keyset_that_is_not_used_any_more_is_freed(uri):
    made = Keyset.create(uri)
    keyset, timer = weakref.ref(made), made._held.lifetime._timer
    del made
    gc.collect()
    assert keyset() is None
    timer.join(20)
    assert not timer.is_alive(), "its thread waits no more"


def test_a_store_goes_on_and_stops(uri, clock):
    """Over the public API: work goes on after each end, and stops when the service says no."""
    keyset = Keyset.create(uri, lifetime=60)
    with ev.connect("memory:", keyset=keyset, maintenance="manual") as store:
        things = store.collection("things", dim=2, scheme="sealed")
        things.upsert(["a", "b"], np.eye(2))
        clock(61)
        assert things.search([1, 0], k=1)[0].id == "a"
        things.upsert(["c"], [[1, 1]])
        Service.failing = errors.KeyDisabledError
        clock(61)
        for use in (lambda: things.get(["a"]), lambda: things.search([1, 0]), lambda: things.upsert(["d"], [[1, 1]])):
            with pytest.raises(errors.KeyDisabledError):
                use()
        Service.failing = None
        assert things.count() == len(things.get(["a", "b", "c"])) == 3


def test_a_bare_keyset_has_no_limit_unless_it_is_given_one(uri, clock, path):
    bare = Keyset.create("memory:")
    for keyset in (bare, Keyset.create(uri, lifetime=math.inf)):
        keyset.root(1)
        clock(1e9)
        assert keyset._held.lifetime is None
        assert keyset.root(1)
    path.unlink()
    limited = Keyset.create(f"file:{path}", passphrase="secret", lifetime=60)
    root = limited.root(1)
    clock(61)
    assert limited.root(1) == root
    bare.forget()
    assert bare.root(1)


@pytest.mark.parametrize("seconds", [0, -1, True, "60", math.nan, 1e9])
def test_bad_lifetimes(uri, path, seconds):
    with pytest.raises(errors.InputError, match="lifetime must be a number of seconds > 0"):
        Keyset.create(uri, lifetime=seconds)
    assert not path.exists()
