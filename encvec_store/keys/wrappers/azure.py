"""Keys wrapped by an RSA key in Azure Key Vault or a managed HSM: `azurekv:VAULT.vault.azure.net/keys/NAME`.

Credentials are found by azure-identity (DefaultAzureCredential). The account needs the permissions keys/wrapKey and
keys/get to create or rewrap a keyset, and keys/unwrapKey to open it. The algorithm is RSA-OAEP-256, which takes no
associated data: a digest of the context is wrapped with the key. The header holds the version of the key, so that a
rotation in the vault harms nothing.

Whoever knows the public key can wrap, as with `age`: keep the keyset where only those who may change it can write.
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
    KeyServiceUnreachableError,
    KeysetError,
    KeyThrottledError,
    UriError,
)
from .service import TIMEOUT, Context, ServiceWrapper, digest_of, hushed, need, unreachable

__all__ = ["AzureWrapper"]

_LIBRARIES = ("azure", "msal", "requests", "urllib3")
_KEY = re.compile(r"[A-Za-z0-9.-]+/keys/[A-Za-z0-9-]+")
_VERSION = re.compile(r"[0-9a-f]{32}")
_MEANING: dict[int, type[KeyServiceError]] = {
    401: KeyDeniedError,
    403: KeyDeniedError,
    404: KeyDeletedError,
    409: KeyDeletedError,
    400: KeyContextError,
    429: KeyThrottledError,
}


class AzureWrapper(ServiceWrapper):
    """Wraps keys by Azure Key Vault."""

    name = "azurekv"
    key_is = "VAULT.vault.azure.net/keys/NAME"
    extra = ("version",)

    def check(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise UriError(f"the wrapper must be {self.name}:{self.key_is}, got {self.name}:{self.key}")

    def wrap(self, key: bytes, context: Context) -> tuple[bytes, dict[str, str]]:
        with self._client("") as client, hushed(*_LIBRARIES):
            answer = client.wrap_key(_algorithm(), key + digest_of(context))
        return answer.encrypted_key, {"version": str(answer.key_id).rpartition("/")[2]}

    def unwrap(self, wrapped: bytes, context: Context, more: Mapping[str, str]) -> bytes:
        if not _VERSION.fullmatch(more["version"]):
            raise KeysetError("its header is malformed")
        with self._client(more["version"]) as client, hushed(*_LIBRARIES):
            content = bytes(client.unwrap_key(_algorithm(), wrapped).key)
        if content[32:] != digest_of(context):
            raise KeyContextError("Azure Key Vault: it was wrapped in another context, or altered")
        return content[:32]

    def failure(self, error: Exception) -> KeysetError | None:
        core = need("azure.core.exceptions", "azure")
        if isinstance(error, core.HttpResponseError) and error.status_code:
            told, kind = str(error.message)[:300], _MEANING.get(error.status_code, KeyServiceError)
            if kind is KeyDeniedError and "disabled" in told.lower():
                kind = KeyDisabledError
            if error.status_code >= 500:
                kind = KeyServiceUnreachableError
            return kind(f"Azure Key Vault refuses {self.key} ({error.status_code}): {told}")
        if isinstance(error, core.ClientAuthenticationError):
            return KeyDeniedError("Azure Key Vault needs credentials: log in, or set them for azure-identity")
        if isinstance(error, core.AzureError):
            return unreachable("Azure Key Vault", error)
        return None

    def _client(self, version: str) -> Any:
        crypto, identity = need("azure.keyvault.keys.crypto", "azure"), need("azure.identity", "azure")
        limits = {"retry_total": 0, "connection_timeout": TIMEOUT / 2, "read_timeout": TIMEOUT}
        place = f"https://{self.key}/{version}".rstrip("/")
        return crypto.CryptographyClient(place, identity.DefaultAzureCredential(), **limits)


def _algorithm() -> Any:
    return need("azure.keyvault.keys.crypto", "azure").KeyWrapAlgorithm.rsa_oaep_256
