"""Keys wrapped by Azure Key Vault: Azure's client, and a server of ours that checks what it sends."""

import base64
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from encvec_store import errors
from encvec_store.keys.wrappers import azure
from tests.keys.service_contract import ServiceContract
from tests.kits.http_service import serving

crypto = pytest.importorskip("azure.keyvault.keys.crypto", reason="azure-keyvault-keys (the extra azure) is missing")
HOST = "v.vault.azure.net"
OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
RSA = {name: rsa.generate_private_key(65537, 2048) for name in ("app", "other")}
VERSION = "0123456789abcdef" * 2


class Credential:
    def get_token(self, *scopes, **_):
        from azure.core.credentials import AccessToken

        assert scopes == ("https://vault.azure.net/.default",)
        return AccessToken("a-token", int(time.time()) + 3600)


def text(number):
    raw = number if isinstance(number, bytes) else number.to_bytes((number.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class TestAzure(ServiceContract):
    spec, other = f"azurekv:{HOST}/keys/app", f"azurekv:{HOST}/keys/other"
    public = True

    @pytest.fixture
    def service_here(self, monkeypatch):
        from azure.core.pipeline.transport import RequestsTransport

        with serving(self.answer) as service:
            port = [service.port]

            class Local(RequestsTransport):
                def send(self, request, **kwargs):
                    true = request.url
                    assert true.startswith(f"https://{HOST}/keys/")
                    request.url = true.replace(f"https://{HOST}", f"http://127.0.0.1:{port[0]}")
                    try:
                        return super().send(request, **kwargs)
                    finally:
                        request.url = true

            def made(wrapper, version):
                place = f"https://{wrapper.key}/{version}".rstrip("/")
                return crypto.CryptographyClient(place, Credential(), transport=Local(), retry_total=0)

            monkeypatch.setattr(azure.AzureWrapper, "_client", made)
            self.service, self.port, self.keys = service, port, dict(RSA)
            yield

    def answer(self, request):
        if "authorization" not in request.headers:
            where = 'Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"'
            return 401, {}, {"WWW-Authenticate": where}
        assert request.headers["authorization"] == "Bearer a-token"
        _, keys, name, version, *action = request.path.partition("?")[0].split("/")
        assert keys == "keys"
        key, kid = self.keys.get(name), f"https://{HOST}/keys/{name}/{VERSION}"
        if key is None:
            return 404, {"error": {"code": "KeyNotFound", "message": "not found"}}
        if request.method == "GET":
            numbers = key.public_key().public_numbers()
            told = {"kid": kid, "kty": "RSA", "key_ops": ["wrapKey", "unwrapKey"]}
            told |= {"n": text(numbers.n), "e": text(numbers.e)}
            return 200, {"key": told, "attributes": {"enabled": True}}
        assert (action, version, request.body["alg"]) == (["unwrapkey"], VERSION, "RSA-OAEP-256")
        value = request.body["value"]
        try:
            plain = key.decrypt(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)), OAEP)
        except ValueError:
            return 400, {"error": {"code": "BadParameter", "message": "The parameter is incorrect."}}
        return 200, {"kid": kid, "value": text(plain)}

    def failing(self, status, message="no", times=1000):
        self.service.fail, self.service.times = (status, {"error": {"code": "Some", "message": message}}), times

    def deny(self):
        self.failing(403, "The caller is not authorized to perform this action")

    def disable(self):
        self.failing(403, "Operation unwrapKey is not allowed on a disabled key.")

    def delete(self):
        self.keys.clear()

    def throttle(self, times):
        self.failing(429, "too many", times)

    def stop(self):
        self.port[0] = 1

    def test_the_header_names_the_version(self):
        assert self.header["version"] == VERSION
        for version in ("", "x", "../other", VERSION + "/"):
            with pytest.raises(errors.KeysetError, match="malformed"):
                self.wrapper().recover({**self.header, "version": version})

    @pytest.mark.parametrize("name", ["app", HOST, f"{HOST}/keys/", f"{HOST}/secrets/app", f"https://{HOST}/keys/app"])
    def test_names(self, name):
        with pytest.raises(errors.UriError, match="the wrapper must be azurekv:VAULT"):
            self.wrapper(f"azurekv:{name}")
