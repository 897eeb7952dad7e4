"""Facts about the machine that readers of results need, without anything that identifies it."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from typing import Any

from ... import __version__
from ...runtime import gpus

__all__ = ["load", "machine"]

_LIBRARIES = (
    "numpy",
    "cryptography",
    "faiss-cpu",
    "faiss-gpu",
    "faiss-gpu-cuvs",
    "cupy-cuda13x",
    "sqlalchemy",
    "psycopg",
)


def load() -> float | None:
    """Return the load average of the last minute, None if the system does not say. It includes the work of others."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine() -> dict[str, Any]:
    """Return date, system, processor, memory, load and versions."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    versions = {"encvec-store": __version__}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    except (AttributeError, ValueError, OSError):
        memory = None
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": model,
        "cpus": os.cpu_count(),
        "gpus": gpus.names(),
        "memory_gib": memory and round(memory, 1),
        "load_1min": load(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "python": platform.python_version(),
        "versions": versions,
    }
