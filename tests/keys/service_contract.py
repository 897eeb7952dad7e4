"""What every wrapper by a key service must do. Subclass it, and say how the service is brought into each state."""

import base64
import copy
import json
import logging
import pickle
import traceback

import pytest

from encvec_store import errors
from encvec_store.keys import Keyset, StoredKeyset
from encvec_store.keys.registry import make_wrapper
from encvec_store.keys.wrappers import service


class ServiceContract:
    """A wrapper, over a service that a test can break."""

    binds = True
    """Whether the service itself refuses another context."""
    spec: str
    other: str
    """Names of two keys of the service, as they stand after `?wrap=`."""

    @pytest.fixture(autouse=True)
    def _no_pauses(self, monkeypatch):
        monkeypatch.setattr(service, "_PAUSES", (0, 0, 0))

    @pytest.fixture
    def uri(self, path):
        return f"file:{path}?wrap={self.spec}"

    def wrapper(self, spec=None):
        return make_wrapper(spec or self.spec, None)

    def refused(self, kind, *, spec=None, create=True):
        """A key that was wrapped before cannot be unwrapped now, nor a new one wrapped; the error is of one class."""
        wrapper = self.wrapper(spec)
        calls = [lambda: wrapper.recover(self.header), *([wrapper.new] if create else [])]
        for call in calls:
            with pytest.raises(kind) as caught:
                call()
            assert type(caught.value) is kind
            self.tells_nothing(caught.value)

    def tells_nothing(self, error):
        """Neither a message nor what hangs on an error holds the key."""
        shown = "".join(traceback.TracebackException.from_exception(error).format())
        for secret in (self.key, base64.b64encode(self.key), self.key.hex().encode()):
            assert secret.decode("latin-1") not in shown
            assert repr(secret)[2:-1] not in shown
        assert error.__cause__ is None
        assert error.__context__ is None, "an error of a client library hangs on ours, with all its frames"

    @pytest.fixture(autouse=True)
    def _wrapped(self, service_here):
        self.key, self.header = self.wrapper().new()

    # what works

    def test_a_key_comes_back(self):
        assert len(self.key) == 32
        assert self.wrapper().recover(self.header) == self.key
        assert self.wrapper().new()[0] != self.key
        assert json.loads(json.dumps(self.header)) == self.header
        assert self.key not in base64.b64decode(self.header["wrapped"])

    def test_a_keyset(self, uri, path):
        keyset = Keyset.create(uri)
        keyset.rotate()
        keyset.disable(1)
        again = Keyset.open(uri)
        assert (again.root(2), again.primary, again.uri) == (keyset.root(2), 2, uri)
        assert base64.b64encode(keyset.root(2)) not in path.read_bytes()
        with pytest.raises(errors.KeysetError, match="if you chose that, pass wrap="):
            Keyset.open(f"file:{path}")

    def test_one_request_to_open_and_none_to_use(self, uri, monkeypatch):
        Keyset.create(uri)
        asked = []
        kind = type(self.wrapper())
        for name in ("wrap", "unwrap"):
            true = getattr(kind, name)
            monkeypatch.setattr(kind, name, lambda *a, t=true, n=name: asked.append(n) or t(*a))
        keyset = Keyset.open(uri)
        for _ in range(20):
            keyset.root(1)
        keyset.rotate()
        assert asked == ["unwrap"]

    def test_nothing_shows_the_key(self, uri, caplog):
        caplog.set_level(logging.DEBUG)
        keyset = Keyset.create(uri)
        stored = StoredKeyset(uri)
        stored.load()
        for thing in (keyset, stored, self.wrapper()):
            assert repr(keyset.root(1))[2:-1] not in repr(thing)
        for secret in (keyset.root(1), stored._key[1]):
            for form in (repr(secret)[2:-1], base64.b64encode(secret).decode(), secret.hex()):
                assert form not in caplog.text
        for what in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                what(keyset)

    # context

    def test_the_context_is_the_callers(self):
        named = self.wrapper(f"{self.spec}&context=production")
        key, header = named.new()
        assert named.recover(header) == key
        with pytest.raises(errors.KeyContextError, match="in the context '', but has the context 'production'"):
            self.wrapper().recover(header)
        with pytest.raises(errors.KeyContextError, match="in the context 'staging', but has"):
            self.wrapper(f"{self.spec}&context=staging").recover(header)
        with pytest.raises(errors.KeyContextError, match="but has none"):
            named.recover(self.header)

    @pytest.mark.parametrize("change", [{"context": "production"}, {"keyset": "00"}, {"more": "x"}])
    def test_another_context_does_not_unwrap(self, change):
        """Whoever can write the header cannot make a key of one context pass for another's."""
        named = self.wrapper(f"{self.spec}&context=production") if "context" in change else self.wrapper()
        forged = {**self.header, "context": {**self.header["context"], **change}}
        with pytest.raises(errors.KeyContextError) as caught:
            named.recover(forged)
        self.tells_nothing(caught.value)

    def test_an_altered_key(self):
        wrapped = bytearray(base64.b64decode(self.header["wrapped"]))
        wrapped[-1] ^= 1
        with pytest.raises(errors.KeyContextError):
            self.wrapper().recover({**self.header, "wrapped": base64.b64encode(wrapped).decode()})

    def test_another_key_does_not_unwrap(self):
        with pytest.raises((errors.KeyContextError, errors.KeyDeniedError)):
            self.wrapper(self.other).recover(self.header)

    @pytest.mark.parametrize(
        "change",
        [
            {"wrapped": None},
            {"wrapped": "?"},
            {"wrapped": 5},
            {"context": "x"},
            {"context": {"purpose": 1}},
            {"more": "x"},
            {"context": {}},
        ],
    )
    def test_malformed_headers(self, change):
        with pytest.raises(errors.KeysetError):
            self.wrapper().recover({**self.header, **change})
        with pytest.raises(errors.KeysetError, match="malformed"):
            self.wrapper().recover({})

    # names

    @pytest.mark.parametrize("more", ["&nope=1", "&context", "&", "&context=" + "x" * 200, "&context=a\nb"])
    def test_bad_options(self, more):
        with pytest.raises(errors.UriError):
            self.wrapper(self.spec + more)

    def test_no_key_named(self):
        with pytest.raises(errors.UriError, match=f"the wrapper must be {self.spec.partition(':')[0]}:"):
            self.wrapper(self.spec.partition(":")[0])

    def test_no_passphrase(self):
        with pytest.raises(errors.UriError, match="takes no passphrase"):
            make_wrapper(self.spec, "secret")

    # failures: each subclass says how the service gets there, or skips what it does not have

    def deny(self):
        pytest.skip("this service cannot deny")

    def disable(self):
        pytest.skip("this service cannot disable a key")

    def delete(self):
        pytest.skip("this service cannot delete a key")

    def stop(self):
        pytest.skip("this service is always there")

    def throttle(self, times):
        pytest.skip("this service does not throttle")

    def test_denied(self):
        self.deny()
        self.refused(errors.KeyDeniedError, create=not getattr(self, "public", False))

    def test_disabled(self):
        self.disable()
        self.refused(errors.KeyDisabledError, create=False)

    def test_deleted(self):
        self.delete()
        self.refused(errors.KeyDeletedError)

    def test_unreachable(self):
        self.stop()
        self.refused(errors.KeyServiceUnreachableError)

    def test_throttled_for_a_while(self):
        self.throttle(2)
        assert self.wrapper().recover(self.header) == self.key

    def test_throttled_for_good(self):
        self.throttle(1000)
        self.refused(errors.KeyThrottledError)

    def test_an_error_of_a_keyset_says_which(self, uri):
        Keyset.create(uri)
        self.delete()
        with pytest.raises(errors.KeyDeletedError, match=r"^file:.*keys\.json"):
            Keyset.open(uri)
