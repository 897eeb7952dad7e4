"""Files that are the owner's alone, written durably and known again by their hash; standard library only."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["private", "read_hashed", "replace_durably", "sync", "write_hashed"]

Write = Callable[[bytes], object]


def private(path: str, flags: int) -> int:
    """Open as `open(..., opener=private)`: a file that is made is the owner's alone."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():  # where folders cannot be synced, nor need be
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_hashed(folder: Path, name: str, produce: Callable[[Write], object]) -> dict[str, Any]:
    """Write a new file, not yet durably, and return name, hash and size.

    The hash is of what was written, not of what may lie there afterwards.
    """
    digest, size = hashlib.sha256(), 0
    with open(folder / name, "xb", opener=private) as file:

        def write(data: bytes) -> None:
            nonlocal size
            digest.update(data)
            size += file.write(data)

        produce(write)
    return {"name": name, "sha256": digest.hexdigest(), "bytes": size}


def read_hashed(folder: Path, entry: dict[str, Any]) -> bytes:
    """Read a file that `write_hashed` wrote; ValueError if it is not what it was."""
    data: bytes = (folder / entry["name"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError(f"{entry['name']} was altered")
    return data


def replace_durably(path: Path, content: bytes) -> None:
    """Put a file in the place of another at one stroke, after everything else in its folder."""
    sync(path.parent)  # the names of the other files, before the one that points at them
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with open(new, "xb", opener=private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync(path.parent)
