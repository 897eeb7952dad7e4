"""A change of scheme beside a writer: how long it takes, and how long a write waits for it.

    python -m benchmarks.changing [--records 100000] [--dim 128] [--postgres] [--schemes sap sealed sketch sealed]

Another thread writes a record every 20 ms, on a store of its own, from before the change until after it. Vectors are
clustered: 200 centres and noise of half their spread.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from contextlib import ExitStack
from functools import partial

import numpy as np

import encvec_store as ev
from encvec_store.localpg import LocalServer

HEADS = ["from", "to", "seconds", "writes meanwhile", "ms a write: p50", "p99", "longest"]


class Writer:
    """Writes a record every 20 ms, until the block ends."""

    def __init__(self, things: ev.Collection, vectors: np.ndarray) -> None:
        self._things, self._vectors = things, vectors
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.waited: list[float] = []
        """Seconds of each write."""

    def _run(self) -> None:
        while not self._end.wait(0.02):
            n, begun = len(self.waited), time.perf_counter()
            self._things.upsert([f"writer-{n}"], self._vectors[n : n + 1])
            self.waited.append(time.perf_counter() - begun)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def measure(url: str, records: int, dim: int, schemes: list[str]) -> None:
    """Print a row for each change from one scheme to the next."""
    rng, keyset = np.random.default_rng(0), ev.Keyset.create("memory:")
    centres = rng.standard_normal((200, dim), np.float32)
    vectors = centres[rng.integers(200, size=records)] + 0.5 * rng.standard_normal((records, dim), np.float32)
    opened = partial(ev.connect, url, keyset=keyset, maintenance="manual", lock_timeout=600)
    with opened() as store, opened() as other:
        things = store.collection("things", dim, scheme=schemes[0])
        for start in range(0, records, 10_000):
            part = range(start, min(start + 10_000, records))
            things.upsert([f"id-{n}" for n in part], vectors[part.start : part.stop], [{"n": n} for n in part])
        things.maintain()
        theirs = other.collection("things")
        print("| " + " | ".join(HEADS) + " |\n" + "|---" * len(HEADS) + "|", flush=True)
        for scheme in schemes[1:]:
            with Writer(theirs, vectors) as writer:
                time.sleep(0.5)
                before, begun = len(writer.waited), time.perf_counter()
                report = things.change(scheme=scheme)
                took = time.perf_counter() - begun
            waits = 1e3 * np.array(writer.waited[before:])
            figures = [f"{took:.1f}", f"{len(waits):,}", *(f"{n:,.0f}" for n in np.quantile(waits, [0.5, 0.99, 1]))]
            print("| " + " | ".join([report.before, report.scheme, *figures]) + " |", flush=True)


def main() -> None:
    """Measure, in files or in a PostgreSQL of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--schemes", nargs="+", default=["sap", "sealed", "sap"])
    given = parser.parse_args()
    with ExitStack() as stack:
        url = f"faiss:{stack.enter_context(tempfile.TemporaryDirectory())}"
        if given.postgres:
            server = stack.enter_context(LocalServer())
            server.ensure_database("changing")
            url = server.dsn("changing")
        measure(url, given.records, given.dim, given.schemes)


if __name__ == "__main__":
    main()
