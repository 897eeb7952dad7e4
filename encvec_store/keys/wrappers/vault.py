"""Keys wrapped by the transit engine of OpenBao or HashiCorp Vault: `vault:KEY`, with `&mount=` (default `transit`).

The address is VAULT_ADDR, the token VAULT_TOKEN or the file ~/.vault-token; VAULT_NAMESPACE and VAULT_CACERT count,
and so do the names with BAO_. The key must be of an AEAD type (aes256-gcm96 is the default), whose associated data
binds the context. A policy needs `update` on MOUNT/encrypt/KEY and MOUNT/decrypt/KEY.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

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
from .service import TIMEOUT, Context, ServiceWrapper, encoded, unreachable

__all__ = ["VaultWrapper"]

_NAME = re.compile(r"(?!\.)[A-Za-z0-9_.-]+(?:/(?!\.)[A-Za-z0-9_.-]+)*")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_MOST = 1 << 20


class VaultWrapper(ServiceWrapper):
    """Wraps keys by a transit engine, over its HTTP API."""

    name = "vault"
    key_is = "KEY"
    options = frozenset({"mount"})

    def check(self) -> None:
        self._mount = self.given.get("mount", "transit")
        if not all(map(_NAME.fullmatch, (self.key, self._mount))) or "/" in self.key:
            raise UriError(
                "a transit key and its mount must have names of letters, digits, '.', '_' and '-', with no '.' at first"
            )

    def wrap(self, key: bytes, context: Context) -> tuple[bytes, dict[str, str]]:
        data = self._post("encrypt", plaintext=_text(key), associated_data=_text(encoded(context)))
        return str(data["ciphertext"]).encode(), {}

    def unwrap(self, wrapped: bytes, context: Context, more: Mapping[str, str]) -> bytes:
        text = wrapped.decode("ascii", "replace")
        data = self._post("decrypt", ciphertext=text, associated_data=_text(encoded(context)))
        return base64.b64decode(data["plaintext"])

    def failure(self, error: Exception) -> KeysetError | None:
        if isinstance(error, urllib.error.HTTPError):
            with error:
                return self._refusal(error.code, _errors(error.read(_MOST)))
        if isinstance(error, OSError | http.client.HTTPException):  # a URLError is an OSError
            return unreachable("Vault", error)
        if isinstance(error, ValueError | KeyError | TypeError):
            return KeyServiceError("Vault's answer is not that of a transit engine")
        return None

    def _refusal(self, status: int, told: str) -> KeysetError:
        kind: type[KeysetError] = KeyServiceError
        if status in (401, 403):
            kind = KeyDeniedError
        elif status == 429:
            kind = KeyThrottledError
        elif status >= 500 or status in (307, 472, 473):  # sealed, a standby, a gateway
            kind = KeyServiceUnreachableError
        elif status == 404 or "key not found" in told or "no handler for route" in told:
            kind = KeyDeletedError
        elif "too old" in told or "disallowed by policy" in told or "soft-deleted" in told:
            kind = KeyDisabledError
        elif "authentication failed" in told or "invalid ciphertext" in told or "unable to decrypt" in told:
            kind = KeyContextError
        return kind(f"Vault refuses {self._mount}/{self.key} ({status}): {told[:300] or 'no reason given'}")

    def _post(self, action: str, **fields: str) -> dict[str, Any]:
        address = _setting("ADDR")
        if not address:
            raise KeysetError("the address of Vault is not known: set VAULT_ADDR")
        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise KeysetError("VAULT_ADDR must begin with https://, or with http:// on this machine only")
        path = f"v1/{quote(self._mount)}/{action}/{quote(self.key)}"
        heads = {"X-Vault-Token": _token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        if namespace := _setting("NAMESPACE"):
            heads["X-Vault-Namespace"] = namespace
        url, body = f"{address.rstrip('/')}/{path}", json.dumps(fields).encode()
        request = urllib.request.Request(url, body, heads, method="POST")  # noqa: S310 - the scheme is checked above
        with _opener(parts.scheme).open(request, timeout=TIMEOUT) as answer:
            found: dict[str, Any] = json.loads(answer.read(_MOST))["data"]
            return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would take the token to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(scheme: str) -> urllib.request.OpenerDirector:
    trust = ssl.create_default_context(cafile=_setting("CACERT") or None)
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), urllib.request.HTTPSHandler(context=trust)]
    if scheme == "http":  # to this machine: a proxy would see the token in clear
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _setting(name: str) -> str:
    return os.environ.get(f"VAULT_{name}") or os.environ.get(f"BAO_{name}") or ""


def _token() -> str:
    token = _setting("TOKEN")
    if not token:
        try:
            token = Path("~/.vault-token").expanduser().read_text(encoding="ascii").strip()
        except (OSError, ValueError, RuntimeError):
            token = ""
    if not token or not token.isprintable():
        raise KeyDeniedError("Vault needs a token: set VAULT_TOKEN, or log in so that there is ~/.vault-token")
    return token


def _errors(body: bytes) -> str:
    try:
        return " ".join("; ".join(map(str, json.loads(body)["errors"])).split())
    except (ValueError, KeyError, TypeError):
        return ""


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
