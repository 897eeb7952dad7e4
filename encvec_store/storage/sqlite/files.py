"""Files that only their owner can read, written durably and checked by their hashes."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = [
    "Read",
    "check_hashed",
    "create",
    "private",
    "read_hashed",
    "reading",
    "replace_durably",
    "sync",
    "write_hashed",
]

Read = Callable[[int], bytes]
Write = Callable[[bytes], object]
PIECE = 1 << 20
"""Bytes under one hash. Files are read piece by piece, and each piece is checked before it is used."""


def private(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=private)`: a new file can be read by its owner only."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)


def create(path: Path) -> None:
    """Make an empty file that only its owner can read, if there is none.

    A file that exists is never opened here: to close it again would drop every lock that SQLite holds on it in this
    process (https://www.sqlite.org/howtocorrupt.html, section 2.2).
    """
    if not path.exists():
        with suppress(FileExistsError):  # another process was quicker
            os.close(private(str(path), os.O_RDWR | os.O_CREAT | os.O_EXCL))


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot sync folders, and does not need to
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_hashed(folder: Path, name: str, produce: Callable[[Write], object]) -> dict[str, Any]:
    """Write a new file, not yet durably, and return its name, its size and the hash of every `PIECE` bytes.

    The hashes are those of the bytes given, not of what the disk holds afterwards.
    """
    hashes, digest, size = list[str](), hashlib.sha256(), 0
    with open(folder / name, "xb", opener=private) as file:

        def write(data: bytes) -> None:
            nonlocal digest, size
            file.write(data)
            rest = memoryview(data)
            while rest:
                some = rest[: PIECE - size % PIECE]
                digest.update(some)
                size, rest = size + len(some), rest[len(some) :]
                if size % PIECE == 0:
                    hashes.append(digest.hexdigest())
                    digest = hashlib.sha256()

        produce(write)
    if size % PIECE:
        hashes.append(digest.hexdigest())
    return {"name": name, "sha256": hashes, "bytes": size}


@contextmanager
def reading(folder: Path, entry: dict[str, Any]) -> Iterator[Read]:
    """Open a file that `write_hashed` wrote, and give a function that reads up to `size` bytes, b"" at the end.

    The function holds one piece in memory, and raises ValueError if the piece was altered.
    """
    hashes, held = iter(entry["sha256"]), memoryview(b"")
    with open(folder / entry["name"], "rb") as file:
        if os.fstat(file.fileno()).st_size != entry["bytes"]:
            raise ValueError(f"{entry['name']} was altered")

        def read(size: int) -> bytes:
            nonlocal held
            if not held:
                piece = file.read(PIECE)
                if piece and hashlib.sha256(piece).hexdigest() != next(hashes, None):
                    raise ValueError(f"{entry['name']} was altered")
                held = memoryview(piece)
            some, held = held[:size], held[size:]
            return bytes(some)

        yield read


def read_hashed(folder: Path, entry: dict[str, Any]) -> bytes:
    """Read a whole file that `write_hashed` wrote. Raises ValueError if it was altered."""
    with reading(folder, entry) as read:
        return b"".join(iter(lambda: read(PIECE), b""))


def check_hashed(folder: Path, entry: dict[str, Any]) -> None:
    """Check a file that `write_hashed` wrote. Raises ValueError if it was altered."""
    with reading(folder, entry) as read:
        while read(PIECE):
            pass


def replace_durably(path: Path, content: bytes) -> None:
    """Replace a file atomically, after everything else in its folder is on the disk."""
    sync(path.parent)  # the names of the other files come first, because this file points at them
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(new, "xb", opener=private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync(path.parent)
