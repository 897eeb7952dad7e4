"""Where a passphrase comes from, and the bytes that it stands for."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from ...errors import KeysetError

__all__ = ["PASSPHRASE_FILE_VARIABLE", "PASSPHRASE_VARIABLE", "given", "secret_bytes"]

PASSPHRASE_VARIABLE = "ENCVEC_PASSPHRASE"  # noqa: S105 - the variable's name
PASSPHRASE_FILE_VARIABLE = "ENCVEC_PASSPHRASE_FILE"  # noqa: S105 - the variable's name
_MOST = 1 << 16
"""Bytes of a passphrase file, at most: one that never ends, such as a device, is not read."""
_BOM = "\ufeff"


def given(variable: str = PASSPHRASE_VARIABLE, file_variable: str = PASSPHRASE_FILE_VARIABLE) -> bytes | None:
    """Return the passphrase that the environment holds, or None. An empty variable counts as not set.

    One line end behind it is no part of it, nor is a byte order mark before it: editors and `echo` write them.

    Raises:
        KeysetError: both variables are set, or the file cannot be read.
    """
    text, name = os.environ.get(variable), os.environ.get(file_variable)
    if text and name:
        raise KeysetError(f"both {variable} and {file_variable} are set: unset one, so that it is clear which counts")
    if text:
        return _clean(os.fsencode(text))
    if not name:
        return None
    try:
        with Path(name).expanduser().open("rb") as file:
            content = file.read(_MOST + 1)
    except OSError as error:
        raise KeysetError(f"cannot read the passphrase file {name}: {error.strerror}") from None
    if len(content) > _MOST:
        raise KeysetError(f"the passphrase file {name} must have at most {_MOST} bytes")
    return _clean(content)


def secret_bytes(passphrase: str | bytes) -> bytes:
    """Return the bytes of a passphrase: UTF-8 of its normal form NFC, so that every keyboard gives the same ones.

    Bytes that are not UTF-8 stay as they are.
    """
    content = passphrase.encode("utf-8", "surrogateescape") if isinstance(passphrase, str) else passphrase
    try:
        return unicodedata.normalize("NFC", content.decode()).encode()
    except UnicodeDecodeError:
        return content


def _clean(content: bytes) -> bytes:
    content = content.removeprefix(_BOM.encode())
    return content.removesuffix(b"\n").removesuffix(b"\r")
