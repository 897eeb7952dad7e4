"""Measure processor time and memory of searches, on the client and on the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from encvec_store.lab.bench.postgres import ScratchDatabase

__all__ = ["Memory", "Watched", "spent"]

Floats = NDArray[np.float32]
_MIB = 1 << 20


def spent(pid: int | None) -> float:
    """Return the seconds that a process has run; NaN if unknown (only Linux tells)."""
    schedule = Path(f"/proc/{pid}/schedstat")
    return int(schedule.read_bytes().split()[0]) / 1e9 if pid and schedule.exists() else float("nan")


class Watched:
    """A search that measures its processor time on the client and on the server.

    On a shared machine, time on the clock depends on the load; processor time depends on it much less.
    """

    def __init__(self, search: Callable[[Floats], Sequence[Any]], pid: int | None) -> None:
        self._search = search
        self._pid = pid
        self._client = self._server = 0.0
        self._asked = 0

    def __call__(self, query: Floats) -> Sequence[Any]:
        """Search."""
        server, client = spent(self._pid), time.thread_time()
        answer = self._search(query)
        self._client += time.thread_time() - client
        self._server += spent(self._pid) - server
        self._asked += 1
        return answer

    def row(self) -> dict[str, float | None]:
        """Return milliseconds per query."""
        client, server = (1e3 * part / self._asked for part in (self._client, self._server))
        return {"cpu_ms": client, "server_cpu_ms": None if np.isnan(server) else server}


class Memory:
    """The peak memory of client and server while a `with` block runs, read five times a second."""

    def __init__(self, db: ScratchDatabase) -> None:
        self._pid = db.pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.client = self.server = 0
        """Bytes: resident memory of the client; of the server all processes, with shared memory counted once."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        mine = psutil.Process()
        while True:
            self.client = max(self.client, mine.memory_info().rss)
            self.server = max(self.server, self._held())
            if self._over.wait(0.2):
                return

    def _held(self) -> int:
        if self._pid is None:
            return 0
        held = 0
        try:
            postmaster = psutil.Process(self._pid)
            for process in (postmaster, *postmaster.children(recursive=True)):
                try:
                    held += process.memory_full_info().pss
                except (psutil.Error, AttributeError):  # the process ended, or the system does not tell
                    continue
        except psutil.Error:
            return 0
        return held

    def row(self, part: str) -> dict[str, float | None]:
        """Return columns of results, in MiB."""
        server = self.server / _MIB if self.server else None
        return {f"{part}_client_mb": self.client / _MIB, f"{part}_server_mb": server}

    @staticmethod
    def table(row: dict[str, Any]) -> list[dict[str, Any]]:
        """Turn these columns of one row into lines for a table."""
        parts = [key.removesuffix("_client_mb") for key in row if key.endswith("_client_mb")]
        return [
            {"what": part, "client_mb": row[f"{part}_client_mb"], "server_mb": row[f"{part}_server_mb"]}
            for part in parts
        ]
