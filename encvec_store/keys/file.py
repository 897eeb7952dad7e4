"""Keyset files wrapped by a passphrase: Argon2id (RFC 9106) or scrypt (RFC 7914), then AES-256-GCM; imports errors.

The file is canonical JSON. Reading compares it with its own canonical form, so every byte counts: one
flipped anywhere is either a JSON error, a different salt, or a failed authentication.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..errors import KeysetError, UriError

if sys.platform != "win32":
    import fcntl

__all__ = ["FileHome"]

FORMAT = "encvec-keyset-file/1"
PASSPHRASE_VARIABLE = "ENCVEC_PASSPHRASE"  # noqa: S105 - the variable's name
PASSPHRASE_FILE_VARIABLE = "ENCVEC_PASSPHRASE_FILE"  # noqa: S105 - the variable's name
# RFC 9106, section 4, second recommended option; scrypt near the same memory and time
_ARGON2ID = {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 65536}
_SCRYPT = {"name": "scrypt", "n": 1 << 16, "r": 8, "p": 1}
# A file may ask for this much at most: it must not be able to exhaust the machine that opens it. In memory,
# 1 GiB; in work, memory times passes, about twenty times our own Argon2id.
_MAX_MEMORY_KIB = 1 << 20
_MAX_WORK_KIB = 1 << 22
_MAX_LANES = 64


class FileHome:
    """Keyset in a file that only its owner may read.

    The passphrase is the argument, else the variable ENCVEC_PASSPHRASE, else the content of the file
    named by ENCVEC_PASSPHRASE_FILE (without line breaks at its end).
    """

    def __init__(self, rest: str, passphrase: str | bytes | None = None) -> None:
        if not rest:
            raise UriError("file: needs a path, as in file:keys.json")
        self.uri = f"file:{rest}"
        self._path = Path(rest)
        self._passphrase = passphrase
        self._wrapping: tuple[dict[str, Any], bytes, bytes] | None = None  # kdf, salt, key: derived once
        self._seen: bytes | None = None  # the file as last read or written: two writers must not lose a key

    def create(self, document: bytes) -> None:
        """Write a new file. Raises KeysetError where one exists already."""
        if self._path.exists():  # asked before the key derivation, and again, atomically, by the write
            raise KeysetError(f"{self._path} exists already; open it, or choose another path")
        self.save(document)

    def save(self, document: bytes) -> None:
        """Replace the file: written beside it, synced, renamed."""
        if self._wrapping is None:
            salt = os.urandom(16)
            kdf, key = _derive_new(self._secret(), salt)
            self._wrapping = kdf, salt, key
        kdf, salt, key = self._wrapping
        head = {"format": FORMAT, "kdf": {**kdf, "salt": _text(salt)}}
        nonce = os.urandom(12)
        sealed = AESGCM(key).encrypt(nonce, document, _canonical(head))
        content = _canonical({**head, "nonce": _text(nonce), "sealed": _text(sealed)}) + b"\n"
        self._write(content)
        self._seen = content

    def _write(self, content: bytes) -> None:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=folder)  # mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                with _alone_in(folder):
                    if self._seen is None:
                        self._place_new(name)
                    elif self._path.read_bytes() != self._seen:
                        raise KeysetError(f"{self._path} was changed by another process: open it again")
                    else:
                        os.replace(name, self._path)
            finally:
                if os.path.exists(name):
                    os.unlink(name)
        except OSError as error:
            raise KeysetError(f"cannot write {self._path}: {error.strerror}") from None

    def _place_new(self, name: str) -> None:
        try:
            os.link(name, self._path)  # unlike a rename it fails where another process was first
        except FileExistsError:
            raise KeysetError(f"{self._path} exists already; open it, or choose another path") from None

    def load(self) -> bytes:
        """Read and unwrap the file. Raises KeysetError."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            raise KeysetError(f"no keyset at {self._path}; create one with `encvec keys create`") from None
        except OSError as error:
            raise KeysetError(f"cannot read {self._path}: {error.strerror}") from None
        try:
            fields = json.loads(content)
            if fields["format"] != FORMAT or _canonical(fields) + b"\n" != content:
                raise ValueError
            kdf = dict(fields["kdf"])
            salt, nonce, sealed = (_bytes(x) for x in (kdf.pop("salt"), fields["nonce"], fields["sealed"]))
            if set(fields) != {"format", "kdf", "nonce", "sealed"} or len(nonce) != 12 or len(salt) < 8:
                raise ValueError
            derive = _kdf(kdf, salt)
        except UnsupportedAlgorithm:
            raise KeysetError(f"{self._path} asks for a key derivation that this OpenSSL lacks") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise KeysetError(f"{self._path} is no keyset file of this format, or is damaged") from None
        key = derive(self._secret())
        head = {"format": FORMAT, "kdf": fields["kdf"]}
        try:
            document = AESGCM(key).decrypt(nonce, sealed, _canonical(head))
        except InvalidTag:
            raise KeysetError(f"{self._path}: wrong passphrase, or the file was altered") from None
        self._wrapping = kdf, salt, key
        self._seen = content
        return document

    def _secret(self) -> bytes:
        value = self._passphrase
        if value is None:
            value = os.environ.get(PASSPHRASE_VARIABLE) or None  # set but empty is not set
        if value is None and (name := os.environ.get(PASSPHRASE_FILE_VARIABLE)):
            try:
                value = Path(name).read_bytes().rstrip(b"\r\n")
            except OSError as error:
                raise KeysetError(f"cannot read the passphrase file {name}: {error.strerror}") from None
        if not value:
            raise KeysetError(
                f"{self.uri} needs a passphrase: pass passphrase=..., or set {PASSPHRASE_VARIABLE} "
                f"or {PASSPHRASE_FILE_VARIABLE}"
            )
        return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value

    def __repr__(self) -> str:
        return f"FileHome({self.uri!r})"


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other writers waiting, from the look at the old file to the new one's place in a synced folder."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        with contextlib.suppress(OSError):  # the file is in place by now: to report a failure would mislead
            os.fsync(handle)
    finally:
        os.close(handle)


def _derive_new(secret: bytes, salt: bytes) -> tuple[dict[str, Any], bytes]:
    for kdf in (_ARGON2ID, _SCRYPT):
        try:
            return dict(kdf), _kdf(kdf, salt)(secret)
        except UnsupportedAlgorithm:  # an OpenSSL older than 3.2 has no Argon2
            continue
    raise KeysetError("this build of OpenSSL has neither Argon2id nor scrypt")


def _kdf(kdf: dict[str, Any], salt: bytes) -> Any:
    """Return the function passphrase -> key that a header asks for. Raises ValueError on a strange one."""
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


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode()


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _bytes(value: str) -> bytes:
    decoded = base64.b64decode(value, validate=True)
    if _text(decoded) != value:  # base64 has several spellings of one value
        raise ValueError("base64")
    return decoded
