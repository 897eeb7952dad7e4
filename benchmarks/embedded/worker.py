"""Starts a store's process, and asks it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["System", "Worker", "WorkerError"]

ROOT = Path(__file__).resolve().parents[2]
ALONE = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"),
    # LANCE_IO_THREADS=1 as well would let LanceDB wait for itself for ever
    **dict.fromkeys(("RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS", "LANCE_CPU_THREADS"), "1"),
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "1",
}
"""One thread each, and nobody is told."""
TIMEOUT = 3600.0


class WorkerError(RuntimeError):
    """A store failed, or its process ended."""


@dataclass(frozen=True)
class System:
    """A store to measure."""

    name: str
    store: str
    """A name that `serve` knows."""
    python: Path
    place: str
    """A folder, or the URL of a database."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """The folder, if it is one."""
        return None if "://" in self.place else Path(self.place)


class Worker:
    """A store in its own process; use it in a `with` block."""

    def __init__(self, system: System, queries: Path, timeout: float = TIMEOUT) -> None:
        self.system, self._timeout = system, timeout
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._process = subprocess.Popen(
            [system.python, "-m", "benchmarks.embedded.serve", system.store, queries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=ROOT,
            env={**os.environ, **ALONE, "PYTHONPATH": str(ROOT)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def open(self, dim: int, *, create: bool = False, shared: bool = False) -> dict[str, Any]:
        """Create or open the store."""
        of = self.system
        return self.ask("open", place=of.place, dim=dim, create=create, shared=shared, options=of.options)

    def ask(self, do: str, progress: Callable[[int], None] | None = None, **told: Any) -> dict[str, Any]:
        """Tell the process what to do, and wait for its answer. Raises WorkerError."""
        assert self._process.stdin is not None
        late = threading.Timer(self._timeout, self._process.kill)
        late.daemon = True
        late.start()
        try:
            with contextlib.suppress(BrokenPipeError):  # the answer says so
                self._process.stdin.write(json.dumps({"do": do, **told}) + "\n")
                self._process.stdin.flush()
            while True:
                answer = self._read(do)
                if "progress" not in answer:
                    break
                if progress is not None:
                    progress(int(answer["progress"]))
        finally:
            late.cancel()
        if "error" in answer:
            raise WorkerError(f"{self.system.name}: {do} failed: {answer['error']}")
        return answer

    def _read(self, do: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(10)
            self._said.seek(0)
            words = self._said.read().decode(errors="replace").strip().splitlines()
            killed = f", possibly because {do} took over {self._timeout:,.0f} s" if self._process.returncode < 0 else ""
            reason = f": {words[-1]}" if words else ""
            raise WorkerError(f"{self.system.name}: its process ended during {do}{killed}{reason}")
        found: dict[str, Any] = json.loads(line)
        return found
