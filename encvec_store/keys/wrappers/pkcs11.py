"""Keys wrapped by an AES key in a hardware security module, over PKCS#11: `pkcs11:TOKEN/KEY`, both by their labels.

PKCS11_MODULE is the path of the module's library. The PIN comes from ENCVEC_PKCS11_PIN, or from the file that
ENCVEC_PKCS11_PIN_FILE names. The key never leaves the token: it encrypts by AES-GCM, with the context as associated
data (CKM_AES_GCM).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

from ...errors import (
    KeyContextError,
    KeyDeletedError,
    KeyDeniedError,
    KeyDisabledError,
    KeyServiceUnreachableError,
    KeysetError,
    UriError,
)
from ...runtime.forks import generation
from .passphrase_source import given
from .service import Context, ServiceWrapper, encoded, need

__all__ = ["MODULE_VARIABLE", "PIN_VARIABLE", "Pkcs11Wrapper"]

MODULE_VARIABLE = "PKCS11_MODULE"
PIN_VARIABLE = "ENCVEC_PKCS11_PIN"
_NONCE = 12
_TAG_BITS = 128
_in_use = Lock()
"""A process logs in to a token once for all its sessions, so that two of ours must not overlap."""
_begun = {"generation": generation()}

_DENIED = ("PinIncorrect", "PinExpired", "PinLenRange", "PinInvalid", "KeyFunctionNotPermitted", "UserNotLoggedIn")
_DISABLED = ("PinLocked", "UserPinNotInitialized", "TokenNotRecognised")
_GONE = ("TokenNotPresent", "DeviceRemoved", "DeviceError", "DeviceMemory", "NoSuchToken", "SlotIDInvalid")
_REFUSED = ("EncryptedDataInvalid", "EncryptedDataLenRange", "GeneralError", "FunctionFailed")


class Pkcs11Wrapper(ServiceWrapper):
    """Wraps keys by a key in a token."""

    name = "pkcs11"
    key_is = "TOKEN/KEY"

    def check(self) -> None:
        self._token, _, self._label = self.key.partition("/")
        if not self._token or not self._label:
            raise UriError("the wrapper must be pkcs11:TOKEN/KEY, by the labels of the token and of its AES key")

    def wrap(self, key: bytes, context: Context) -> tuple[bytes, dict[str, str]]:
        nonce = os.urandom(_NONCE)
        with self._key() as (held, pkcs11):
            return nonce + held.encrypt(key, **_how(pkcs11, nonce, context)), {}

    def unwrap(self, wrapped: bytes, context: Context, more: Mapping[str, str]) -> bytes:
        with self._key() as (held, pkcs11):
            return bytes(held.decrypt(wrapped[_NONCE:], **_how(pkcs11, wrapped[:_NONCE], context)))

    def failure(self, error: Exception) -> KeysetError | None:
        name = type(error).__name__
        where = f"the PKCS#11 token {self._token!r}"
        if name in _DENIED:
            return KeyDeniedError(f"{where} refuses ({name}): check {PIN_VARIABLE}, and what the key may do")
        if name in _DISABLED:
            return KeyDisabledError(f"{where} is locked or not set up ({name})")
        if name in _GONE:
            return KeyServiceUnreachableError(f"{where} is not there ({name})")
        if name == "NoSuchKey":
            return KeyDeletedError(f"{where} has no AES key {self._label!r}")
        if name == "MultipleObjectsReturned":
            return KeysetError(f"{where} has several AES keys {self._label!r}: give each a label of its own")
        if name in _REFUSED:
            return KeyContextError(f"{where} cannot decrypt it: another key wrapped it, or it was altered ({name})")
        return None

    @contextmanager
    def _key(self) -> Iterator[tuple[Any, Any]]:
        """Log in, and give the key and the library."""
        pkcs11, path = need("pkcs11", "pkcs11"), os.environ.get(MODULE_VARIABLE)
        if not path:
            raise KeysetError(f"set {MODULE_VARIABLE} to the path of the PKCS#11 module's library")
        if not os.path.exists(path):
            raise KeyServiceUnreachableError(f"there is no PKCS#11 module at {path}")
        pin = given(PIN_VARIABLE, f"{PIN_VARIABLE}_FILE")
        if pin is None:
            raise KeyDeniedError(f"a PIN is needed: set {PIN_VARIABLE} or {PIN_VARIABLE}_FILE")
        with _in_use:
            library = pkcs11.lib(path)
            if _begun["generation"] != generation():  # a child must not use what its parent initialised
                library.reinitialize()
                _begun["generation"] = generation()
            with library.get_token(token_label=self._token).open(user_pin=pin.decode()) as session:
                secret = pkcs11.ObjectClass.SECRET_KEY
                yield session.get_key(label=self._label, object_class=secret), pkcs11


def _how(pkcs11: Any, nonce: bytes, context: Context) -> dict[str, Any]:
    parameters = pkcs11.GCMParams(nonce, encoded(context), _TAG_BITS)
    return {"mechanism": pkcs11.Mechanism.AES_GCM, "mechanism_param": parameters}
