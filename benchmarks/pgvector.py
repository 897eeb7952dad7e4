"""Measure the `postgresql:` store beside plaintext pgvector, on one server, in one run.

Usage: python -m benchmarks.pgvector [--quick]
       python -m benchmarks.pgvector --scale 1000000 --dim 768 --build-memory 3GB
       python -m benchmarks.pgvector --orm 20000

The baseline is fast code written by hand: psycopg, binary COPY of rows packed by NumPy, binary parameters, prepared
statements, and a table with an id, the vector and the filtered field. Measured in turn on both sides:

    ingest     records per second and processor time, in batches of 5,000, each durable, before there is an index
    search     one query at a time, by kind of index, with several ef_search and numbers of re-ranked candidates
    filter     a value that 1% of the records have: plaintext by btree, then exactly; ours by a blind and a plain field

HNSW and the filter are measured in single and half precision, all others in single.

The server is that of ENCVEC_TEST_DSN (a role that may create databases), or else a temporary one with fsync on.
--scale loads and indexes a larger collection, streamed, by HNSW over half-precision vectors, and reports the memory of
client and server. --orm compares searches of mapped classes: see `benchmarks.orm`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import click
import numpy as np

from benchmarks import orm
from benchmarks.datasets import Dataset, load
from benchmarks.postgres import Memory, Watched, spent
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Collection, Keyset, Store, connect, low_level
from encvec_store.data import metric
from encvec_store.lab.bench.encrypted import BATCH, fill
from encvec_store.lab.bench.postgres import PlainTable, ScratchDatabase, Search, database
from encvec_store.lab.bench.synthetic import clustered
from encvec_store.lab.bench.timing import interleave
from encvec_store.lab.bench.truth import Truth

DATA, QUICK = "synthetic:50000x384", "synthetic:600x384"
BETA, K, RECALL = 2.0, 10, 0.99
KINDS: dict[str, dict[str, Any]] = {
    "hnsw": {"index": "hnsw"},
    "halfvec": {"index": "hnsw", "storage": "float16"},
    "ivfflat": {"index": "ivfflat"},
    "bit": {"index": "bit", "bit_oversample": 8},
}
EFFORTS = {"ivfflat": (3, 6, 12, 25), "bit": (64, 100, 200, 400)}
"""Probes or ef_search for plaintext; for bit also the number of re-ranked candidates."""
EFS = (16, 24, 40, 50, 64, 100)
OVERSAMPLES = (4, 5, 6, 8, 10, 20)
QUERIES, QUICK_QUERIES = 300, 40
GROUPS = 100
FILTER_OVERSAMPLES = (4, 10)
OURS = {"single": "encrypted", "half": "encrypted half"}
"""Names of our side in the rows, by precision."""
SCALED_QUERIES, SCALED_EFS, SCALED_CANDIDATES = 200, (40, 100, 200, 400), (100, 200, 400)


def ours(url: str, keys: Keyset, name: str, **how: Any) -> tuple[Store, Collection]:
    """Open a store with these options, and its collection."""
    oversample = how.pop("oversample", None)
    store = connect(url, keyset=keys, **how)
    return store, store.collection(name, oversample=oversample)


def create(url: str, keys: Keyset, name: str, dim: int, **more: Any) -> tuple[Store, Collection]:
    """Create an empty collection that searches do not index."""
    store = connect(url, keyset=keys, index="none")
    return store, store.collection(name, dim, "cosine", {"name": "sap", "beta": BETA}, **more)


class Contest:
    """One data set in one database, as plaintext and encrypted."""

    def __init__(self, data: Dataset, db: ScratchDatabase, queries: int, show: Show) -> None:
        self.data, self.db, self.show = data, db, show
        self.keys = Keyset.create("memory:")
        self.queries = data.queries[:queries]
        self.truth = Truth(metric("cosine"), data.vectors, self.queries, K)

    def row(self, part: str, what: str, index: str, **more: Any) -> Row:
        """Begin a row of results."""
        n, dim = self.data.vectors.shape
        begun: Row = {"bench": "pgvector", "part": part, "dataset": self.data.name, "n": n, "d": dim}
        return {**begun, "index": index, "what": what, **self.db.versions, **more}

    def kind(self, kind: str, precision: str = "single") -> list[Row]:
        """Load both tables, index them, and search them."""
        dim, name, encrypted = self.data.dim, f"{kind}_{precision}", OURS[precision]
        with ExitStack() as open_now:
            plain = open_now.enter_context(PlainTable(self.db.url, f"plain_{kind}", dim))
            store, collection = create(self.db.url, self.keys, name, dim, precision=precision)
            open_now.callback(store.close)
            rows = self._ingest(kind, plain, collection, encrypted)
            with self.show.stage(f"{kind}: indexes", 2) as done:
                build = {"plaintext": plain.index(kind)}
                done(1)
                indexing, indexed = ours(self.db.url, self.keys, name, **KINDS[kind])
                open_now.callback(indexing.close)
                start = time.perf_counter()
                indexed.flush()
                build[encrypted] = time.perf_counter() - start
                done(1)
            index = {"plaintext": plain.index_size(), encrypted: indexed.stats()["store"]["bytes"]["index"]}
            rows += [self.row("build", what, kind, build_s=build[what], index_mb=index[what] / 1e6) for what in build]
            variants: dict[str, Watched] = {}
            for effort in EFFORTS.get(kind, EFS):
                variants[f"plaintext {effort}"] = self._plainly(plain.searching(kind, effort, K))
            for oversample in OVERSAMPLES:
                opened, found = ours(
                    self.db.url,
                    self.keys,
                    name,
                    oversample=oversample,
                    ef_search=max(40, K * oversample),
                    **KINDS[kind],
                )
                open_now.callback(opened.close)
                variants[f"{encrypted} {oversample * K}"] = self._watched(found)
            return rows + self._searches(kind, "search", variants, self.truth)

    def _ingest(self, kind: str, plain: PlainTable, collection: Collection, encrypted: str) -> list[Row]:
        vectors = self.data.vectors
        writes: dict[str, Callable[[Any, int], object]] = {
            "plaintext": plain.load,
            encrypted: lambda some, first: collection.upsert([str(first + i) for i in range(len(some))], some),
        }
        pids = {"plaintext": None if self.db.pid is None else plain.pid, encrypted: self._pid(collection)}
        took = {what: np.zeros(3) for what in writes}
        with self.show.stage(f"{kind}: ingest", len(vectors)) as done:
            for first in range(0, len(vectors), BATCH):
                some = vectors[first : first + BATCH]
                for what, write in writes.items():
                    before = np.array([time.perf_counter(), time.process_time(), spent(pids[what])])
                    write(some, first)
                    took[what] += np.array([time.perf_counter(), time.process_time(), spent(pids[what])]) - before
                done(len(some))
        size = {"plaintext": plain.size(), encrypted: sum(collection.stats()["store"]["bytes"].values())}
        rows = []
        for what, (clock, client, server) in took.items():
            row = self.row("ingest", what, kind, per_s=len(vectors) / clock, us=1e6 * client / len(vectors))
            row["server_us"] = None if np.isnan(server) else 1e6 * server / len(vectors)
            rows.append({**row, "bytes": size[what]})
        return rows

    def _pid(self, collection: Collection) -> int | None:
        records: Any = low_level.records(collection)
        ask = "SELECT pg_backend_pid()"  # the only connection: the pool opens one for one call at a time
        (pid,) = records.source.read(lambda cursor: cursor.execute(ask).fetchone())
        return None if self.db.pid is None else pid

    def _plainly(self, search: Search) -> Watched:
        return Watched(search, None if self.db.pid is None else search.pid)

    def _watched(self, collection: Collection, where: dict[str, Any] | None = None) -> Watched:
        return Watched(lambda query: collection.search(query, K, where), self._pid(collection))

    def _searches(
        self, kind: str, part: str, variants: dict[str, Watched], truth: Truth, places: Any = None
    ) -> list[Row]:
        """Time searches in turn; `places` turns ids into the positions that `truth` uses."""
        with self.show.stage(f"{kind}: {part}", len(self.queries)) as done:
            timed = interleave(variants, self.queries, progress=done)
        rows = []
        for name, measured in timed.items():
            what, _, effort = name.rpartition(" ")
            found = [np.array([int(getattr(hit, "id", hit)) for hit in hits], np.int64) for hits in measured.answers]
            answers = found if places is None else [places[some] for some in found]
            row = self.row(part, what, kind, **{"ef_search" if what == "plaintext" else "candidates": int(effort)})
            rows.append({**row, **measured.row(), **variants[name].row(), "recall@10": truth.recall(answers, K)})
        good = [row for row in rows if row["recall@10"] >= RECALL]
        base = min((float(row["p50_ms"]) for row in good if row["what"] == "plaintext"), default=None)
        return [{**row, "p50_ratio": row["p50_ms"] / base if base and row in good else None} for row in rows]

    def filtered(self) -> list[Row]:
        """Search among the 1% of a group."""
        n, dim = self.data.vectors.shape
        groups = np.arange(n) * 7919 % GROUPS  # no neighbourhood of theirs
        chosen = np.flatnonzero(groups == 0)
        with ExitStack() as open_now:
            plain = open_now.enter_context(PlainTable(self.db.url, "plain_filter", dim))
            plain.load(self.data.vectors, 0, groups)
            plain.index_groups()
            fields = {"blind": "blind", "plain": "plain"}
            metadata = [{"blind": int(group), "plain": int(group)} for group in groups]
            searched: dict[str, Collection] = {}
            for precision, encrypted in OURS.items():
                name = f"filter_{precision}"
                store, collection = create(self.db.url, self.keys, name, dim, fields=fields, precision=precision)
                open_now.callback(store.close)
                with self.show.stage("filter: ingest", n) as done:
                    fill(collection, self.data.vectors, done, metadata=metadata)
                for oversample in FILTER_OVERSAMPLES:
                    opened, found = ours(self.db.url, self.keys, name, oversample=oversample)
                    open_now.callback(opened.close)
                    found.flush()
                    searched[f"{encrypted}, {{}} field {oversample * K}"] = found
            variants: dict[str, Watched] = {"plaintext 0": self._plainly(plain.filtering(0, K))}
            for what, found in searched.items():
                variants |= {what.format(field): self._watched(found, {field: 0}) for field in fields}
            truth = Truth(metric("cosine"), self.data.vectors[chosen], self.queries, K)
            places = np.zeros(n, np.int64)
            places[chosen] = np.arange(len(chosen))
            return self._searches("btree", "filter 1%", variants, truth, places)


def run(quick: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure every kind of index."""
    data = load(QUICK if quick else DATA)
    rows: list[Row] = []
    with database() as db:
        contest = Contest(data, db, QUICK_QUERIES if quick else QUERIES, show)
        for kind in KINDS:
            rows += contest.kind(kind)
        rows += contest.kind("hnsw", "half")
        rows += contest.filtered()
    for part in dict.fromkeys(row["part"] for row in rows):
        hidden = ("dataset", "n", "d")
        some = [{key: row[key] for key in row if key not in hidden} for row in rows if row["part"] == part]
        show.table(f"{data.name}: {part}", some)
    return rows, targets(rows)


def targets(rows: list[Row]) -> list[Target]:
    """Compare with the targets."""

    def ratio(what: str) -> float:
        loads = [row for row in rows if row["part"] == "ingest"]  # in pairs that were loaded in turn
        pairs = [(plain, mine) for plain, mine in zip(loads[::2], loads[1::2], strict=True) if mine["what"] == what]
        return float(np.median([mine["per_s"] / plain["per_s"] for plain, mine in pairs]))

    def cheapest(part: str, index: str, key: str, what: str) -> float:
        of = [row for row in rows if row["part"] == part and row["index"] == index]
        reached = [row for row in of if row["what"].partition(",")[0] == what and row["p50_ratio"]]
        return float(min(reached, key=lambda row: float(row["p50_ratio"]))[key]) if reached else float("nan")

    at, told = f"at recall@10 >= {RECALL}", list[Target]()
    for precision, what in OURS.items():
        searched, cpu = (cheapest("search", "hnsw", key, what) for key in ("p50_ratio", "cpu_ms"))
        filtered = cheapest("filter 1%", "btree", "p50_ratio", what)
        told += [
            Target(f"{precision}: ingest, records/s over plaintext COPY's", ratio(what), ">=", 0.7),
            Target(f"{precision}: hnsw, cheapest p50 {at} over plaintext's", searched, "<=", 1.5),
            Target(f"{precision}: client CPU of that search, ms", cpu, "<=", 0.5),
            Target(f"{precision}: 1% filter, p50 {at} over plaintext btree's", filtered, "<=", 1.5),
        ]
    return told


def scale(n: int, dim: int, memory: str, show: Show) -> tuple[list[Row], list[Target]]:
    """Load n vectors in pieces, index them, both ways, and watch the memory of client and server."""
    data, keys = clustered(n, dim, queries=SCALED_QUERIES), Keyset.create("memory:")
    with show.stage("exact neighbours", n) as done:
        truth = Truth(metric("cosine"), data.vectors, data.queries, K, done)
    common: Row = {"bench": "pgvector", "dataset": data.name, "n": n, "d": dim}
    common |= {"index": "halfvec", "build_memory": memory}
    with database() as db, ExitStack() as open_now:
        plain = open_now.enter_context(PlainTable(db.url, "plain_scale", dim))
        store, collection = create(db.url, keys, "scale", dim)
        open_now.callback(store.close)
        indexing, indexed = ours(db.url, keys, "scale", build_memory=memory, **KINDS["halfvec"])
        open_now.callback(indexing.close)
        writes: dict[str, tuple[Callable[[Any, int], object], Callable[[], object]]] = {
            "plaintext": (plain.load, lambda: plain.index("halfvec", memory)),
            "encrypted": (
                lambda some, first: collection.upsert([str(first + i) for i in range(len(some))], some),
                indexed.flush,
            ),
        }
        rows: list[Row] = []
        for what, (write, index) in writes.items():
            row: Row = {**common, "part": "scale", "what": what, **db.versions}
            written = 0.0
            with show.stage(f"{what}: ingest", n) as done, Memory(db) as used:
                for first, some in data.vectors.slices(BATCH):
                    begun = time.perf_counter()
                    write(some, first)
                    written += time.perf_counter() - begun
                    done(len(some))
            row |= {"per_s": n / written, **used.row("ingest")}
            with show.stage(f"{what}: index", 1), Memory(db) as used:
                begun = time.perf_counter()
                index()
                row |= {"build_s": time.perf_counter() - begun}
            rows.append({**row, **used.row("build")})
        sizes = indexed.stats()["store"]["bytes"]
        for row, whole, part in zip(
            rows, (plain.size(), sum(sizes.values())), (plain.index_size(), sizes["index"]), strict=True
        ):
            row |= {"bytes": whole, "index_mb": part / 1e6}
        variants = {f"plaintext {ef}": Watched(plain.searching("halfvec", ef, K), None) for ef in SCALED_EFS}
        for candidates in SCALED_CANDIDATES:
            how: dict[str, Any] = {"oversample": candidates // K, "ef_search": candidates, **KINDS["halfvec"]}
            opened, found = ours(db.url, keys, "scale", **how)
            open_now.callback(opened.close)
            variants[f"encrypted {candidates}"] = Watched(partial(found.search, k=K), None)
        with show.stage("search", len(data.queries)) as done, Memory(db) as used:
            timed = interleave(variants, data.queries, progress=done)
        for row in rows:
            row |= used.row("search")
        searches: list[Row] = []
        for name, measured in timed.items():
            what, _, effort = name.partition(" ")
            answers = [np.array([int(getattr(hit, "id", hit)) for hit in hits], np.int64) for hits in measured.answers]
            row = {**common, "part": "scale search", "what": what, **db.versions}
            row["ef_search" if what == "plaintext" else "candidates"] = int(effort)
            searches.append({**row, **measured.row(), f"recall@{K}": truth.recall(answers, K)})
    for title, told in ((f"{n:,} x {dim}, loaded in batches of {BATCH:,}", rows), ("searches, by turns", searches)):
        show.table(title, [{key: value for key, value in row.items() if key not in common} for row in told])
    for row in rows:
        show.table(f"Memory, MiB at most: {row['what']}", used.table(row))
    return rows + searches, []


@click.command()
@click.option("--scale", "n", type=int, help="Load and index N vectors, and report memory.")
@click.option("--dim", type=int, default=768, show_default=True, help="Dimensions of these vectors.")
@click.option("--build-memory", "memory", default="512MB", show_default=True, help="Memory for an index build.")
@click.option("--orm", "mapped", type=int, help="Search mapped classes of N vectors, with objects loaded.")
@options
def main(n: int | None, dim: int, memory: str, mapped: int | None, quick: bool, as_json: bool, out: str | None) -> None:
    """Measure the PostgreSQL store."""
    if mapped is not None:
        publish("pgvector-orm", lambda show: orm.run(mapped, quick, show), quick, as_json, out)
    elif n is not None:
        publish("pgvector-scale", lambda show: scale(n, dim, memory, show), quick, as_json, out)
    else:
        publish("pgvector", lambda show: run(quick, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.pgvector")
    main()
