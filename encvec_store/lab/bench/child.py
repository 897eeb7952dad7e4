"""A process that loads one index, answers queries and prints how much memory it used.

Run by its path, with a job as JSON on standard input (see `memory`), so that the baseline's process holds Python,
NumPy and FAISS and nothing of this package.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np


def resident() -> tuple[float | None, float | None]:
    """Return (peak resident memory, private memory now) of this process in MiB; None if the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            lines = dict(line.split(":", 1) for line in status)
        # VmHWM, not getrusage: its maximum is inherited from the process that started this one
        peak, private = (int(lines[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon"))
        return peak, private
    except (OSError, KeyError):
        pass
    try:
        import resource

        unit = 1 << (20 if sys.platform == "darwin" else 10)  # bytes there, KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, None
    except ImportError:
        return None, None


def plain(job: dict[str, Any]) -> Callable[[Any], Any]:
    """Load a plaintext index."""
    index = faiss.read_index(job["index"])
    effort = job.get("effort") or job.get("ef_search")
    if effort and hasattr(index, "hnsw"):
        index.hnsw.efSearch = effort
    elif effort and hasattr(index, "nprobe"):
        index.nprobe = effort
    return lambda query: index.search(query[None], job["k"])


def store(job: dict[str, Any]) -> Callable[[Any], Any]:
    """Open a collection."""
    from encvec_store.lab.bench.encrypted import Encrypted

    connected = _connect(job)
    held = Encrypted(connected, connected.collection(job["name"]))
    held.setting(job["oversample"])()
    if job["reranked"]:
        return lambda query: held.search(query, job["k"])
    return lambda query: held.candidates(query, job["k"])


def _connect(job: dict[str, Any]) -> Any:
    from encvec_store import Keyset, connect

    return connect(job["url"], keyset=Keyset.open(job["keys"]), maintenance="inline", **job["options"])


def main() -> None:
    """Do the job on standard input."""
    job = json.load(sys.stdin)
    faiss.omp_set_num_threads(1)
    if job["kind"] == "store":
        import encvec_store.lab.bench  # noqa: F401
    library, library_private = resident()
    queries = np.load(job["queries"])
    start = time.perf_counter()
    search = {"plain": plain, "store": store}[job["kind"]](job)
    search(queries[0])
    opened = time.perf_counter() - start
    for query in queries:
        search(query)
    peak, private = resident()
    print(
        json.dumps(
            {
                "peak_mb": peak,
                "private_mb": private,
                "library_mb": library,
                "library_private_mb": library_private,
                "open_s": opened,
            }
        )
    )


if __name__ == "__main__":
    main()
