"""Keys wrapped by Google Cloud KMS: Google's client, and a server of ours that checks what it sends."""

import base64
import os

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from encvec_store import errors
from encvec_store.keys.wrappers import gcp
from tests.keys.service_contract import ServiceContract
from tests.kits.http_service import serving

kms = pytest.importorskip("google.cloud.kms", reason="google-cloud-kms (the extra gcp) is not installed")
NAME = "projects/p/locations/l/keyRings/r/cryptoKeys/"


class TestGcp(ServiceContract):
    spec, other = f"gcpkms:{NAME}app", f"gcpkms:{NAME}other"

    @pytest.fixture
    def service_here(self, monkeypatch):
        from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceRestTransport
        from google.oauth2.credentials import Credentials

        self.keys = {name: AESGCM(os.urandom(32)) for name in ("app", "other")}
        self.monkeypatch, self.damage = monkeypatch, {}
        with serving(self.answer) as self.service:
            port = [self.service.port]

            def made(wrapper):
                how = {"host": f"127.0.0.1:{port[0]}", "url_scheme": "http", "credentials": Credentials("a-token")}
                return kms.KeyManagementServiceClient(transport=KeyManagementServiceRestTransport(**how))

            monkeypatch.setattr(gcp.GcpKmsWrapper, "_client", made)
            self.port = port
            yield

    def answer(self, request):
        path, _, action = request.path.partition("?")[0].rpartition(":")
        assert path.startswith(f"/v1/{NAME}")
        assert request.headers["authorization"] == "Bearer a-token"
        body, bound = request.body, base64.b64decode(request.body["additionalAuthenticatedData"])
        assert int(body["additionalAuthenticatedDataCrc32c"]) == gcp._crc(bound)
        key = self.keys.get(path.rpartition("/")[2])
        if key is None:
            return 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "no such key"}}
        if action == "encrypt":
            plain = base64.b64decode(body["plaintext"])
            assert int(body["plaintextCrc32c"]) == gcp._crc(plain)
            nonce = os.urandom(12)
            sealed = nonce + key.encrypt(nonce, plain, bound)
            told = {"name": f"{path[4:]}/cryptoKeyVersions/1", "ciphertext": base64.b64encode(sealed).decode()}
            told |= {"ciphertextCrc32c": str(gcp._crc(sealed)), "verifiedPlaintextCrc32c": True}
            return 200, {**told, "verifiedAdditionalAuthenticatedDataCrc32c": True, **self.damage}
        assert action == "decrypt"
        sealed = base64.b64decode(body["ciphertext"])
        assert int(body["ciphertextCrc32c"]) == gcp._crc(sealed)
        try:
            plain = key.decrypt(sealed[:12], sealed[12:], bound)
        except InvalidTag:
            return 400, {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Decryption failed"}}
        told = {"plaintext": base64.b64encode(plain).decode(), "plaintextCrc32c": str(gcp._crc(plain))}
        return 200, {**told, **self.damage}

    def failing(self, status, name, message="no", times=1000):
        self.service.fail = status, {"error": {"code": status, "status": name, "message": message}}
        self.service.times = times

    def deny(self):
        self.failing(403, "PERMISSION_DENIED")

    def disable(self):
        self.failing(400, "FAILED_PRECONDITION", "the version is not enabled, current state: DISABLED")

    def delete(self):
        self.keys.clear()

    def throttle(self, times):
        self.failing(429, "RESOURCE_EXHAUSTED", "Quota exceeded", times)

    def stop(self):
        self.port[0] = 1

    def test_a_destroyed_version(self):
        self.failing(400, "FAILED_PRECONDITION", "the version is not enabled, current state: DESTROY_SCHEDULED")
        self.refused(errors.KeyDeletedError)

    def test_a_server_that_is_down(self):
        self.failing(503, "UNAVAILABLE")
        self.refused(errors.KeyServiceUnreachableError)

    def test_the_checksum_is_crc32c(self):
        assert gcp._crc(b"123456789") == 0xE3069283

    @pytest.mark.parametrize("field", ["plaintextCrc32c", "ciphertextCrc32c", "verifiedPlaintextCrc32c"])
    def test_damage_on_the_way(self, field):
        self.damage = {field: "1" if field.endswith("Crc32c") and not field.startswith("verified") else False}
        with pytest.raises(errors.KeyServiceError, match="was damaged on its way"):
            self.wrapper().recover(self.header) if field == "plaintextCrc32c" else self.wrapper().new()

    @pytest.mark.parametrize("name", ["app", NAME, f"{NAME}app/cryptoKeyVersions/1", "projects/p"])
    def test_names(self, name):
        with pytest.raises(errors.UriError, match="the wrapper must be gcpkms:projects/"):
            self.wrapper(f"gcpkms:{name}")

    def test_no_credentials(self, monkeypatch, tmp_path):
        from google.auth.exceptions import DefaultCredentialsError

        def none(wrapper):
            raise DefaultCredentialsError("none")

        monkeypatch.setattr(gcp.GcpKmsWrapper, "_client", none)
        self.refused(errors.KeyDeniedError)
