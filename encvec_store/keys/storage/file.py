"""Keysets in a file that only its owner can read."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...errors import KeysetError, UriError

if sys.platform != "win32":
    import fcntl

__all__ = ["FileStorage"]

_MOST = 1 << 24
"""Bytes of a keyset file, at most: one that never ends, such as a device, is not read."""


class FileStorage:
    """Keyset in a file. A write goes to a temporary file, is synced, and then replaces the old file atomically."""

    wrapper = "passphrase"
    lasting = True

    def __init__(self, rest: str) -> None:
        if not rest:
            raise UriError("file: must be followed by a path, as in file:keys.json")
        if re.match("//[^/.]", rest):
            raise UriError("a name after file:// would be a host: write file:///absolute/path or file:relative/path")
        self.uri = f"file:{rest}"
        try:
            self._path = Path(rest).expanduser()
        except RuntimeError:
            raise UriError(f"file:{rest}: the home directory of {rest.partition('/')[0]!r} is not known") from None
        self._seen: bytes | None = None  # the file as last read or written, so that two writers lose no key

    def exists(self) -> bool:
        """Return True if there is a file."""
        return self._path.exists()

    def read(self) -> bytes:
        """Read the file."""
        try:
            with self._path.open("rb") as file:
                content = file.read(_MOST + 1)
        except FileNotFoundError:
            raise KeysetError(
                f"no keyset at {self._path}: if a store was written with it, bring the file back from a backup, since "
                "no other keyset opens that store; for a new store, create one with `encvec keys create`"
            ) from None
        except OSError as error:
            raise KeysetError(f"cannot read {self._path}: {error.strerror}") from None
        if len(content) > _MOST:
            raise KeysetError(f"{self._path} must have at most {_MOST} bytes to be a keyset")
        self._seen = content
        return content

    def create(self, content: bytes) -> None:
        """Write a new file. Raises KeysetError if there is one already."""
        self._write(content, new=True)

    def replace(self, content: bytes) -> None:
        """Replace the file."""
        self._write(content, new=False)

    def _write(self, content: bytes, *, new: bool) -> None:
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
                    if new:
                        self._place_new(name)
                    elif self._seen is None or self._path.read_bytes() != self._seen:
                        raise KeysetError(f"{self._path} was changed by another process: open it again")
                    else:
                        os.replace(name, self._path)
            finally:
                if os.path.exists(name):
                    os.unlink(name)
        except OSError as error:
            raise KeysetError(f"cannot write {self._path}: {error.strerror}") from None
        self._seen = content

    def _place_new(self, name: str) -> None:
        try:
            os.link(name, self._path)  # unlike a rename, it fails if another process was first
        except FileExistsError:
            raise KeysetError(f"{self._path} holds a keyset already: open it, or choose another path") from None


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make other writers wait while the old file is compared and replaced, and the folder is synced."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        with contextlib.suppress(OSError):  # the file is replaced by now: reporting a failure would mislead
            os.fsync(handle)
    finally:
        os.close(handle)
