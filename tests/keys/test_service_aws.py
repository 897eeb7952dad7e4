"""Keys wrapped by AWS KMS, as moto plays it."""

import os

import pytest

from encvec_store import errors
from encvec_store.keys import Keyset
from tests.keys.service_contract import ServiceContract

boto3 = pytest.importorskip("boto3", reason="boto3 (the extra aws) is not installed")
moto = pytest.importorskip("moto", reason="moto is not installed")
client = pytest.importorskip("botocore.client")
ClientError = pytest.importorskip("botocore.exceptions").ClientError
REGION = "eu-central-1"


class TestAws(ServiceContract):
    spec, other = "awskms:alias/app", "awskms:alias/other"

    @pytest.fixture
    def service_here(self, monkeypatch):
        self.monkeypatch = monkeypatch
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        self.mock = moto.mock_aws()
        with self.mock:
            self.kms = boto3.client("kms")
            for name in ("app", "other"):
                key = self.kms.create_key()["KeyMetadata"]
                self.kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
                if name == "app":
                    self.arn = key["Arn"]
            yield

    def answering(self, code, message="no", times=1000):
        """KMS refuses so many requests: moto itself knows no policies, and does not look at a key's state."""
        true, left = client.BaseClient._make_api_call, [times]

        def limited(self, operation, parameters):
            if left[0] > 0:
                left[0] -= 1
                raise ClientError({"Error": {"Code": code, "Message": message}}, operation)
            return true(self, operation, parameters)

        self.monkeypatch.setattr(client.BaseClient, "_make_api_call", limited)

    def deny(self):
        self.answering("AccessDeniedException")

    def disable(self):
        self.answering("DisabledException")

    def delete(self):
        self.answering("KMSInvalidStateException", f"{self.arn} is pending deletion.")

    def throttle(self, times):
        self.answering("ThrottlingException", "Rate exceeded", times)

    def stop(self):
        self.mock.stop()
        self.monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1")
        self.monkeypatch.setattr(self.mock, "stop", lambda: None)

    def test_what_is_sent(self, monkeypatch):
        sent = []
        true = client.BaseClient._make_api_call
        monkeypatch.setattr(client.BaseClient, "_make_api_call", lambda *a: sent.append(a[1:]) or true(*a))
        wrapper = self.wrapper(f"{self.spec}&context=production")
        key, header = wrapper.new()
        wrapper.recover(header)
        context = {"purpose": "encvec-keyset", "keyset": header["context"]["keyset"], "context": "production"}
        (one, encrypt), (two, decrypt) = sent
        assert (one, encrypt) == ("Encrypt", {"KeyId": "alias/app", "Plaintext": key, "EncryptionContext": context})
        assert two == "Decrypt"
        assert (decrypt["KeyId"], decrypt["EncryptionContext"]) == ("alias/app", context)

    def test_by_arn_and_region(self, path, monkeypatch):
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(errors.KeysetError, match="specify a region"):
            self.wrapper().new()
        uri = f"file:{path}?wrap=awskms:{self.arn}"
        assert Keyset.create(uri).root(1) == Keyset.open(uri).root(1)
        assert self.wrapper(f"{self.spec}&region={REGION}").recover(self.header) == self.key

    def test_an_alias_that_names_another_key_now(self):
        other = self.kms.describe_key(KeyId="alias/other")["KeyMetadata"]["KeyId"]
        self.kms.update_alias(AliasName="alias/app", TargetKeyId=other)
        with pytest.raises(errors.KeyServiceError):
            self.wrapper().recover(self.header)

    def test_a_key_that_never_was(self):
        with pytest.raises(errors.KeyDeletedError, match=r"AWS KMS refuses alias/nope \(NotFoundException\)"):
            self.wrapper("awskms:alias/nope").new()

    def test_no_credentials(self, monkeypatch, tmp_path):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        self.refused(errors.KeyDeniedError)

    def test_an_error_that_nobody_knows(self):
        self.answering("SomethingNewException")
        self.refused(errors.KeyServiceError)

    def test_a_missing_library_is_named(self, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "boto3", None)
        with pytest.raises(errors.KeysetError, match=r"boto3 is not installed: pip install 'encvec-store\[aws\]'"):
            self.wrapper().new()
