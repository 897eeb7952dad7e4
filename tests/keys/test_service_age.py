"""Keys wrapped by age."""

import pytest

from encvec_store import errors
from encvec_store.keys import Keyset
from tests.keys.service_contract import ServiceContract

pyrage = pytest.importorskip("pyrage", reason="pyrage (the extra age) is not installed")
ONE, TWO = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()


class TestAge(ServiceContract):
    spec, other, public = f"age:{ONE.to_public()}", f"age:{TWO.to_public()}", True

    @pytest.fixture
    def service_here(self, tmp_path, monkeypatch):
        self.file = tmp_path / "identity"
        self.file.write_text(f"# created: 2026-11-29\n# public key: {ONE.to_public()}\n{ONE}\n")
        monkeypatch.setenv("ENCVEC_AGE_IDENTITY", str(self.file))

    def deny(self):
        self.file.write_text(f"{TWO}\n")

    def test_another_key_does_not_unwrap(self):
        """It is the identity that opens, not the recipient that is named."""
        self.deny()
        with pytest.raises(errors.KeyDeniedError, match="no identity in ENCVEC_AGE_IDENTITY is that of a recipient"):
            self.wrapper().recover(self.header)

    @pytest.mark.parametrize("content", ["", "# nothing\n", "junk", "AGE-SECRET-KEY-1JUNK"])
    def test_bad_identity_files(self, monkeypatch, content):
        self.file.write_text(content)
        self.refused(errors.KeyDeniedError, create=False)
        self.file.unlink()
        self.refused(errors.KeyDeniedError, create=False)
        monkeypatch.delenv("ENCVEC_AGE_IDENTITY")
        self.refused(errors.KeyDeniedError, create=False)

    def test_several_people(self, path):
        uri = f"file:{path}?wrap=age:{ONE.to_public()},{TWO.to_public()}"
        keyset = Keyset.create(uri)
        for identity in (ONE, TWO):
            self.file.write_text(str(identity))
            assert Keyset.open(uri).root(1) == keyset.root(1)

    def test_what_is_no_recipient(self):
        with pytest.raises(errors.KeysetError, match="'age1junk' is no recipient"):
            self.wrapper("age:age1junk").new()
        with pytest.raises(errors.UriError, match="never by an identity") as caught:
            self.wrapper(f"age:{ONE}")
        assert str(ONE) not in str(caught.value)

    def test_an_error_of_a_keyset_says_which(self, uri):
        Keyset.create(uri)
        self.deny()
        with pytest.raises(errors.KeyDeniedError, match=r"^file:.*keys\.json"):
            Keyset.open(uri)
