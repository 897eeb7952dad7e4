"""Keys wrapped by Google Cloud KMS: `gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K`.

Credentials are found by Google's library (application default credentials). The account needs the roles
cloudkms.cryptoKeyEncrypter to create or rewrap a keyset, and cloudkms.cryptoKeyDecrypter to open it. The context is the
additional authenticated data. Checksums (CRC32C) guard what is sent and received.
"""

from __future__ import annotations

import re
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
    UriError,
)
from .service import TIMEOUT, Context, ServiceWrapper, encoded, hushed, need, unreachable

__all__ = ["GcpKmsWrapper"]

_LIBRARIES = ("google", "requests", "urllib3")
_KEY = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+")


class GcpKmsWrapper(ServiceWrapper):
    """Wraps keys by Google Cloud KMS."""

    name = "gcpkms"
    key_is = "projects/P/locations/L/keyRings/R/cryptoKeys/K"

    def check(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise UriError(f"the wrapper must be {self.name}:{self.key_is}, got {self.name}:{self.key}")

    def wrap(self, key: bytes, context: Context) -> tuple[bytes, dict[str, str]]:
        request = self._request("plaintext", key, context)
        client = self._client()
        with hushed(*_LIBRARIES):
            answer = client.encrypt(request=request, retry=None, timeout=TIMEOUT)
        received = answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c
        if not received or answer.ciphertext_crc32c != _crc(answer.ciphertext):
            raise KeyServiceError("Google Cloud KMS: what was sent or received was damaged on its way: try again")
        return answer.ciphertext, {}

    def unwrap(self, wrapped: bytes, context: Context, more: Mapping[str, str]) -> bytes:
        request = self._request("ciphertext", wrapped, context)
        client = self._client()
        with hushed(*_LIBRARIES):
            answer = client.decrypt(request=request, retry=None, timeout=TIMEOUT)
        if answer.plaintext_crc32c != _crc(answer.plaintext):
            raise KeyServiceError("Google Cloud KMS: its answer was damaged on its way: try again")
        return bytes(answer.plaintext)

    def _request(self, what: str, content: bytes, context: Context) -> dict[str, Any]:
        """Return a request with its content, the context, and a checksum of each."""
        bound = encoded(context)
        return {
            "name": self.key,
            what: content,
            f"{what}_crc32c": _crc(content),
            "additional_authenticated_data": bound,
            "additional_authenticated_data_crc32c": _crc(bound),
        }

    def failure(self, error: Exception) -> KeysetError | None:
        core, auth = need("google.api_core.exceptions", "gcp"), need("google.auth.exceptions", "gcp")
        told = f"Google Cloud KMS refuses {self.key}: {str(error)[:300]}"
        if _status(error) == "FAILED_PRECONDITION":  # it has the same number as a bad argument
            return (KeyDeletedError if "DESTROY" in told.upper() else KeyDisabledError)(told)
        kinds: list[tuple[tuple[type, ...], type[KeyServiceError]]] = [
            ((core.Unauthorized, core.Forbidden), KeyDeniedError),
            ((core.TooManyRequests,), KeyThrottledError),
            ((core.NotFound,), KeyDeletedError),
            ((core.BadRequest,), KeyContextError),
        ]
        for classes, kind in kinds:
            if isinstance(error, classes):
                return kind(told)
        if isinstance(error, auth.DefaultCredentialsError | auth.RefreshError):
            return KeyDeniedError("Google Cloud KMS needs credentials: set up application default credentials")
        # requests' errors are OSErrors
        if isinstance(error, core.ServerError | core.RetryError | auth.TransportError | OSError):
            return unreachable("Google Cloud KMS", error)
        return KeyServiceError(told) if isinstance(error, core.GoogleAPICallError) else None

    def _client(self) -> Any:
        # over HTTP: gRPC's threads do not outlive a fork
        return need("google.cloud.kms", "gcp").KeyManagementServiceClient(transport="rest")


def _status(error: Exception) -> str:
    """Return Google's word for the state of an answer over HTTP, or nothing."""
    try:
        return str(error.response.json()["error"]["status"])  # type: ignore[attr-defined]
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""


def _crc(content: bytes) -> int:
    """Return the CRC32C (RFC 3720, B.4) of a few hundred bytes."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF
