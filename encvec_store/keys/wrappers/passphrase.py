"""Keys from a passphrase: Argon2id (RFC 9106) or scrypt (RFC 7914)."""

from __future__ import annotations

import base64
import os
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ...errors import KeysetError, UriError
from ..protocol import Header
from .passphrase_source import PASSPHRASE_FILE_VARIABLE, PASSPHRASE_VARIABLE, given, secret_bytes

__all__ = ["PASSPHRASE_FILE_VARIABLE", "PASSPHRASE_VARIABLE", "PassphraseWrapper"]

# RFC 9106, section 4, second recommended option; scrypt with about the same memory and time
_ARGON2ID = {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 65536}
_SCRYPT = {"name": "scrypt", "n": 1 << 16, "r": 8, "p": 1}
# The most that a header may ask for, so that it cannot exhaust the machine that opens it: 1 GiB of memory, and as
# work (memory times passes) about twenty times our own Argon2id.
_MAX_MEMORY_KIB = 1 << 20
_MAX_WORK_KIB = 1 << 22
_MAX_LANES = 64


class PassphraseWrapper:
    """Derives the key from a passphrase and a random salt.

    The passphrase is the argument, or it is read when it is needed: from the variable ENCVEC_PASSPHRASE, or from the
    file that ENCVEC_PASSPHRASE_FILE names.
    """

    def __init__(self, rest: str = "", passphrase: str | bytes | None = None) -> None:
        if rest:
            raise UriError(f"the wrapper 'passphrase' takes nothing after its name, got {rest!r}")
        self._passphrase = passphrase

    def new(self) -> tuple[bytes, Header]:
        """Derive a key by the strongest function this machine has."""
        secret, salt = self._secret(), os.urandom(16)
        for cost in (_ARGON2ID, _SCRYPT):
            try:
                return _kdf(cost, salt)(secret), {**cost, "salt": base64.b64encode(salt).decode()}
            except UnsupportedAlgorithm:  # an OpenSSL older than 3.2 has no Argon2
                continue
        raise KeysetError("this build of OpenSSL has neither Argon2id nor scrypt")

    def recover(self, header: Header) -> bytes:
        """Derive the key of a header."""
        try:
            cost = dict(header)
            salt = base64.b64decode(cost.pop("salt"), validate=True)
            if len(salt) < 8 or base64.b64encode(salt).decode() != header["salt"]:
                raise ValueError("salt")
            derive = _kdf(cost, salt)
        except UnsupportedAlgorithm:
            raise KeysetError("it needs a key derivation function that this OpenSSL lacks") from None
        except (ValueError, KeyError, TypeError):
            raise KeysetError("its key derivation is malformed, or costs more than is allowed") from None
        key: bytes = derive(self._secret())
        return key

    def outdated(self, header: Header) -> bool:
        """Return True if a header that was recovered costs an attacker less than a new one would."""
        today = {cost["name"]: cost for cost in (_ARGON2ID, _SCRYPT)}[header["name"]]
        return any(header[name] < today[name] for name in ("memory_kib", "iterations", "n", "r") if name in today)

    def _secret(self) -> bytes:
        value = given() if self._passphrase is None else self._passphrase
        if not value:
            raise KeysetError(
                f"a passphrase is needed: pass passphrase=..., or set {PASSPHRASE_VARIABLE} "
                f"or {PASSPHRASE_FILE_VARIABLE}"
            )
        return secret_bytes(value)


def _kdf(kdf: dict[str, Any], salt: bytes) -> Any:
    """Return the function passphrase -> key of a header. Raises ValueError if the header is malformed."""
    cost = {name: value for name, value in kdf.items() if name != "name"}
    if not all(type(value) is int and value > 0 for value in cost.values()):
        raise ValueError("kdf")
    if kdf["name"] == "argon2id" and set(kdf) == set(_ARGON2ID):
        _check_cost(cost["memory_kib"], cost["iterations"], cost["lanes"])
        algorithm: Any = Argon2id(
            salt=salt, length=32, iterations=cost["iterations"], lanes=cost["lanes"], memory_cost=cost["memory_kib"]
        )
    elif kdf["name"] == "scrypt" and set(kdf) == set(_SCRYPT):
        _check_cost(-(-cost["n"] * cost["r"] // 8), cost["p"], cost["p"])
        algorithm = Scrypt(salt=salt, length=32, **cost)
    else:
        raise ValueError("kdf")
    return algorithm.derive


def _check_cost(memory_kib: int, passes: int, lanes: int) -> None:
    if memory_kib > _MAX_MEMORY_KIB or memory_kib * passes > _MAX_WORK_KIB or lanes > _MAX_LANES:
        raise ValueError("kdf")
