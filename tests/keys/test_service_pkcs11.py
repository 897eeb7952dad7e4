"""Keys wrapped by a token of SoftHSM 2, which Debian has as `softhsm2`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from encvec_store import errors
from encvec_store.keys import Keyset
from tests.keys.service_contract import ServiceContract
from tests.kits.forking import in_child

pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 (the extra pkcs11) is not installed")
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
MODULE = next((path for path in MODULES if Path(path).exists()), None)
if MODULE is None or shutil.which("softhsm2-util") is None:
    pytest.skip("SoftHSM 2 is not installed: apt-get install softhsm2", allow_module_level=True)


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token with two AES keys. SoftHSM reads its configuration once for a process."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = ["softhsm2-util", "--init-token", "--free", "--label", "vectors", "--so-pin", "123456", "--pin", "4321"]
    subprocess.run(command, check=True, capture_output=True)
    yield pkcs11.lib(MODULE).get_token(token_label="vectors")
    del os.environ["SOFTHSM2_CONF"]


class TestPkcs11(ServiceContract):
    spec, other = "pkcs11:vectors/app", "pkcs11:vectors/other"

    @pytest.fixture
    def service_here(self, token, monkeypatch):
        self.token, self.monkeypatch = token, monkeypatch
        monkeypatch.setenv("PKCS11_MODULE", MODULE)
        monkeypatch.setenv("ENCVEC_PKCS11_PIN", "4321")
        with token.open(rw=True, user_pin="4321") as session:
            for label in ("app", "other"):
                for old in session.get_objects({pkcs11.Attribute.LABEL: label}):
                    old.destroy()
                session.generate_key(pkcs11.KeyType.AES, 256, label=label, store=True)

    def deny(self):
        self.monkeypatch.setenv("ENCVEC_PKCS11_PIN", "9999")

    def delete(self):
        with self.token.open(rw=True, user_pin="4321") as session:
            session.get_key(label="app").destroy()

    def stop(self):
        self.monkeypatch.setenv("PKCS11_MODULE", "/nowhere.so")

    def test_no_such_token(self):
        with pytest.raises(errors.KeyServiceUnreachableError, match="the PKCS#11 token 'nope' is not there"):
            self.wrapper("pkcs11:nope/app").new()

    def test_what_must_be_set(self, monkeypatch):
        monkeypatch.delenv("ENCVEC_PKCS11_PIN")
        with pytest.raises(errors.KeyDeniedError, match="a PIN is needed: set ENCVEC_PKCS11_PIN"):
            self.wrapper().new()
        monkeypatch.delenv("PKCS11_MODULE")
        with pytest.raises(errors.KeysetError, match="set PKCS11_MODULE"):
            self.wrapper().new()

    @pytest.mark.parametrize("name", ["vectors", "vectors/", "/app"])
    def test_half_a_name(self, name):
        with pytest.raises(errors.UriError, match="pkcs11:TOKEN/KEY"):
            self.wrapper(f"pkcs11:{name}")

    def test_a_forked_child_opens_it_too(self, uri):
        root = Keyset.create(uri).root(1)
        assert in_child(lambda: Keyset.open(uri).root(1) == root)
