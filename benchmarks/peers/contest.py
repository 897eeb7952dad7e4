"""Measure peers beside us on the same data, query by query, and write results/peers.

Usage: python -m benchmarks.peers.contest [--data banking77] [--queries 300] [--out FOLDER] [--json]

One run measures raw FAISS, the `faiss:` store under `sap` and `sketch`, and each peer. A peer runs in its own process
and environment and times itself, so that sending queries and answers does not count. With --pgvector, a second run
measures raw pgvector and the `postgresql:` store on a temporary server. A peer that cannot be installed is left out,
with a note. Each runs at its own settings; the page draws recall against speed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.corpora import find
from benchmarks.peers import PEERS, missing, python
from benchmarks.report import RESULTS, Show, one_thread
from encvec_store.data import Matrix
from encvec_store.lab.bench import BenchJob, Data, measure
from encvec_store.lab.bench.results import Results, key_of
from encvec_store.lab.bench.sides import Side, Variant

EFFORTS = (20, 50, 100, 200)
PROBES = (8, 32, 64, 128, 256)
OVERSAMPLES = (5, 10, 20, 50)
BETA = 2.0
SCHEMES: tuple[Mapping[str, Any], ...] = ({"name": "sap", "beta": BETA}, {"name": "sketch"})


class Answer(list[int]):
    """Ids, nearest first, and the seconds by the peer's own clock."""

    took: float = 0.0
    cpu: float = 0.0


class Peer:
    """A peer in its own process, as a side of a job."""

    build_cpu_s = 0.0
    peer: str | None
    scheme: Mapping[str, Any]

    def __init__(self, name: str, data: Data, folder: Path, stack: ExitStack) -> None:
        place = folder / name
        place.mkdir()
        vectors, queries = data.vectors.whole(), data.queries
        for file, array in (("vectors", vectors), ("queries", queries)):
            unit = array / np.linalg.norm(array, axis=1, keepdims=True)
            np.save(place / f"{file}.npy", unit.astype(np.float32))
        script = Path(__file__).with_name("serve.py")
        files = (place / "vectors.npy", place / "queries.npy", place)
        self._process = subprocess.Popen(
            [*map(str, (python(name), script, name, *files))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        stack.callback(self._stop)
        self._rows = {query.tobytes(): row for row, query in enumerate(queries)}
        built = self._read()
        self.peer, self.store, self.scheme = name, name, {"name": name}
        self.kind, self.storage = str(built["index"]), "float32"
        self.build_s = self.write_s = float(built["build_s"])
        self.bytes = self.index_bytes = int(built["bytes"])

    def variants(self, k: int, efforts: Sequence[int], oversamples: Sequence[int]) -> Iterator[Variant]:
        """Yield a variant for each effort."""
        for effort in PROBES if self.kind == "ivf" else efforts:
            yield Variant(
                self,
                reranked=self.kind == "ivf",
                effort=effort,
                oversample=None,
                search=self._searching(effort, k),
                search_all=lambda queries: [],
                places=lambda answers: [np.array(answer, np.int64) for answer in answers],
            )

    def _searching(self, effort: int, k: int) -> Callable[[Matrix], Answer]:
        def search(query: Matrix) -> Answer:
            assert self._process.stdin is not None
            told = {"query": self._rows[query.tobytes()], "effort": effort, "k": k}
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            found = self._read()
            answer = Answer(found["ids"])
            answer.took, answer.cpu = float(found["seconds"]), float(found["cpu"])
            return answer

        return search

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the peer's process ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def job(data: Data, names: Sequence[str], folder: Path, store: str = "faiss:") -> BenchJob:
    """Describe the contest; `names` are the available peers."""

    def make(name: str) -> Callable[[ExitStack], Side]:
        return lambda stack: Peer(name, data, folder, stack)

    return BenchJob(
        data,
        store=store,
        options={"index": "hnsw"},
        schemes=SCHEMES,
        efforts=EFFORTS,
        oversamples=OVERSAMPLES,
        rounds=0,
        others={name: make(name) for name in names},
    )


@click.command()
@click.option("--data", "name", default="banking77", show_default=True, help="A name that benchmarks.corpora knows.")
@click.option("--queries", default=300, show_default=True)
@click.option("--limit", type=int, help="Most vectors.")
@click.option("--peer", "names", multiple=True, type=click.Choice(list(PEERS)), help="Only these; repeat for more.")
@click.option("--pgvector", is_flag=True, help="Add raw pgvector and the postgresql: store.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS / "peers", show_default="results/peers")
@click.option("--json", "as_json", is_flag=True)
def main(
    name: str, queries: int, limit: int | None, names: tuple[str, ...], pgvector: bool, out: Path, as_json: bool
) -> None:
    """Measure peers."""
    show, there = Show(quiet=as_json), []
    for peer in names or tuple(PEERS):
        reason = missing(peer)
        if reason:
            show.note(f"{peer} is left out: {reason}")
        else:
            there.append(peer)
    data = find(name, limit=limit).first(queries)
    results = Results(out, hdf5=False)
    with tempfile.TemporaryDirectory(prefix="encvec-peers-") as folder:
        jobs = [job(data, there, Path(folder))]
        if pgvector:
            jobs.append(job(data, [], Path(folder), "postgresql:"))
        for wanted in jobs:
            key = key_of(wanted)
            rows = results.of(key) if results.done(key) else results.add(key, measure(wanted, show.stage))
            if as_json:
                click.echo("".join(json.dumps(row) + "\n" for row in rows), nl=False)
            else:
                show.table(f"{data.name}, {len(data.vectors):,} x {data.vectors.dim}", rows, COLUMNS)


COLUMNS = ["store", "scheme", "index", "reranked", "effort", "oversample", "recall@1", "recall@10", "p50_ms", "p95_ms",
           "qps", "build_s", "bytes"]  # fmt: skip

if __name__ == "__main__":
    one_thread("benchmarks.peers.contest")
    main()
