"""Keys wrapped by age for one or several people: `age:RECIPIENT`, or `age:RECIPIENT,RECIPIENT,...` (age1..., ssh-...).

Whoever has the identity (the private key) of one recipient can open the keyset. ENCVEC_AGE_IDENTITY is the path of the
identity file, as `age-keygen` writes it. The format is that of age-encryption.org/v1.

Anyone can wrap a key for a recipient, whose name is public. So age keeps a keyset secret, and does not prove who wrote
it: keep it where only those who may change it can write. The other wrappers prove it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import KeyContextError, KeyDeniedError, KeysetError, UriError
from .service import Context, ServiceWrapper, digest_of, need

__all__ = ["IDENTITY_VARIABLE", "AgeWrapper"]

IDENTITY_VARIABLE = "ENCVEC_AGE_IDENTITY"
_SECRET = "AGE-SECRET-KEY-1"  # noqa: S105 - how an identity begins
_MOST = 1 << 16


class AgeWrapper(ServiceWrapper):
    """Wraps keys for recipients of age. The context's digest is encrypted with the key."""

    name = "age"
    key_is = "RECIPIENT[,RECIPIENT...]"

    def check(self) -> None:
        if _SECRET in self.key.upper():
            raise UriError("age: must be followed by recipients (age1...), never by an identity, which is secret")

    def wrap(self, key: bytes, context: Context) -> tuple[bytes, dict[str, str]]:
        pyrage = need("pyrage", "age")
        return pyrage.encrypt(key + digest_of(context), [_recipient(pyrage, text) for text in self.key.split(",")]), {}

    def unwrap(self, wrapped: bytes, context: Context, more: Mapping[str, str]) -> bytes:
        pyrage = need("pyrage", "age")
        content = bytes(pyrage.decrypt(wrapped, _identities(pyrage)))
        if content[32:] != digest_of(context):
            raise KeyContextError("age: it was wrapped in another context, or altered")
        return content[:32]

    def failure(self, error: Exception) -> KeysetError | None:
        pyrage = need("pyrage", "age")
        if isinstance(error, pyrage.DecryptError):
            if "No matching keys" in str(error):
                return KeyDeniedError(f"age: no identity in {IDENTITY_VARIABLE} is that of a recipient of the keyset")
            return KeyContextError("age: the wrapped key was altered")
        return None


def _recipient(pyrage: Any, text: str) -> Any:
    kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
    try:
        return kind.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise KeysetError(f"age: {text!r} is no recipient: it must begin with age1 or ssh-") from None


def _identities(pyrage: Any) -> list[Any]:
    path = os.environ.get(IDENTITY_VARIABLE)
    if not path:
        raise KeyDeniedError(f"age needs an identity: set {IDENTITY_VARIABLE} to the path of the identity file")
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(_MOST)
    except OSError as error:
        raise KeyDeniedError(f"cannot read the identity file {path}: {error.strerror}") from None
    try:
        if content.startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(content)]
        lines = [line.strip() for line in content.decode().splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (pyrage.IdentityError, ValueError):
        found = []
    if not found:
        raise KeyDeniedError(f"{path} holds no identity of age")
    return found
