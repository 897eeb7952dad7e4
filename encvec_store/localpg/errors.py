"""The error of a local server."""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError

__all__ = ["LocalServerError", "with_log"]


class LocalServerError(StoreError):
    """A local PostgreSQL could not be found, started or stopped."""


def with_log(message: str, log: Path, begin: int = 0, lines: int = 12) -> LocalServerError:
    """Return an error with the message and the last lines of the server's log, from byte `begin` on."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 16_384))
            tail = file.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        tail = []
    said = "\n".join(f"  {line}" for line in tail) or "  (nothing)"
    return LocalServerError(f"{message}\nThe end of {log}:\n{said}")
