"""Keys wrapped by AWS KMS: `awskms:alias/NAME`, a key id or an ARN, with `&region=` and `&profile=`.

Credentials and region are found by boto3, as by the AWS command line. The role needs kms:Encrypt to create or rewrap a
keyset, and kms:Decrypt to open it. The context is KMS's encryption context, which policies and CloudTrail show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import (
    KeyContextError,
    KeyDeletedError,
    KeyDeniedError,
    KeyDisabledError,
    KeyServiceError,
    KeysetError,
    KeyThrottledError,
)
from .service import TIMEOUT, Context, ServiceWrapper, hushed, need, unreachable

__all__ = ["AwsKmsWrapper"]

_LIBRARIES = ("boto3", "botocore", "urllib3")
_MEANING: dict[str, type[KeyServiceError]] = {
    "AccessDeniedException": KeyDeniedError,
    "ExpiredTokenException": KeyDeniedError,
    "IncompleteSignature": KeyDeniedError,
    "InvalidClientTokenId": KeyDeniedError,
    "InvalidSignatureException": KeyDeniedError,
    "UnrecognizedClientException": KeyDeniedError,
    "DisabledException": KeyDisabledError,
    "KMSInvalidStateException": KeyDisabledError,
    "NotFoundException": KeyDeletedError,
    "IncorrectKeyException": KeyContextError,
    "InvalidCiphertextException": KeyContextError,
    "KeyUnavailableException": KeyThrottledError,
    "KMSInternalException": KeyThrottledError,
    "LimitExceededException": KeyThrottledError,
    "RequestLimitExceeded": KeyThrottledError,
    "ServiceUnavailable": KeyThrottledError,
    "ThrottlingException": KeyThrottledError,
    "TooManyRequestsException": KeyThrottledError,
}


class AwsKmsWrapper(ServiceWrapper):
    """Wraps keys by AWS KMS."""

    name = "awskms"
    key_is = "alias/NAME, a key id or an ARN"
    options = frozenset({"region", "profile"})

    def wrap(self, key: bytes, context: Context) -> tuple[bytes, dict[str, str]]:
        client = self._client()
        with hushed(*_LIBRARIES):
            answer = client.encrypt(KeyId=self.key, Plaintext=key, EncryptionContext=dict(context))
        return answer["CiphertextBlob"], {}

    def unwrap(self, wrapped: bytes, context: Context, more: Mapping[str, str]) -> bytes:
        client = self._client()
        with hushed(*_LIBRARIES):
            # with KeyId, KMS refuses what another key of the account has wrapped
            answer = client.decrypt(KeyId=self.key, CiphertextBlob=wrapped, EncryptionContext=dict(context))
        return bytes(answer["Plaintext"])

    def failure(self, error: Exception) -> KeysetError | None:
        exceptions = need("botocore.exceptions", "aws")
        if isinstance(error, exceptions.ClientError):
            told = error.response.get("Error", {})
            code, message = str(told.get("Code", "")), str(told.get("Message", ""))
            kind = _MEANING.get(code.rpartition(".")[2], KeyServiceError)
            if kind is KeyDisabledError and "deletion" in message:
                kind = KeyDeletedError
            return kind(f"AWS KMS refuses {self.key} ({code}): {message[:300]}")
        if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
            return KeyDeniedError("AWS KMS needs credentials: set them as for the AWS command line")
        if isinstance(error, exceptions.NoRegionError | exceptions.ProfileNotFound):
            return KeysetError(f"AWS KMS: {error}")
        if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
            return unreachable("AWS KMS", error)
        return None

    def _client(self) -> Any:
        boto3, config = need("boto3", "aws"), need("botocore.config", "aws")
        parts = self.key.split(":")
        region = self.given.get("region") or (parts[3] if parts[0] == "arn" and len(parts) > 3 else None)
        # `_ask` tries again, with pauses that have a bound
        limits = config.Config(connect_timeout=TIMEOUT / 2, read_timeout=TIMEOUT, retries={"total_max_attempts": 1})
        session = boto3.session.Session(profile_name=self.given.get("profile"), region_name=region)
        return session.client("kms", config=limits)
