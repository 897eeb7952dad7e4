"""Measure what encryption costs a search in latency, recall and memory, HNSW against HNSW in one run.

Usage: python -m benchmarks.search [--quick]

It uses real text (banking77) and 100,000 synthetic vectors like it, `sap` at beta 2, and four indexes with the same M
and efConstruction: plaintext FAISS and our `faiss:` store, each as float32 and as SQ8 (a byte per coordinate, our
default).

    same ef      all four at efSearch 100, ten results: our first stage encrypts the query and returns the first ten of
                 the index, unopened; the whole search re-ranks 100 candidates. Ratios are to plaintext float32
    same recall  whole searches at recall@10 >= .99, at the cheapest efSearch that reaches it; ours re-rank 40 to 100
                 candidates exactly, and open the payloads
    memory       each index alone in a fresh process that opens it and answers queries

Each query goes to all variants in turn, on one thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import faiss
import numpy as np

from benchmarks.datasets import Dataset, Floats, load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import connect
from encvec_store.data import metric
from encvec_store.indexes.faiss import FaissOptions
from encvec_store.lab.bench.encrypted import Encrypted, fill
from encvec_store.lab.bench.job import throwaway_keys
from encvec_store.lab.bench.memory import QUERIES, serve
from encvec_store.lab.bench.plain import Plain
from encvec_store.lab.bench.timing import interleave
from encvec_store.lab.bench.truth import Truth

DATA = ("banking77", "synthetic:100000x384")
QUICK = ("banking77", "synthetic:600x384")
BETA, K, CANDIDATES, EF, RECALL = 2.0, 10, 100, 100, 0.99
EFS = (10, 16, 24, 32, 48, 64, 100, 128, 192, 256, 384, 512, 768)
FEWER = (40, 60, 80, 100)
"""Candidates at the same recall."""
STORAGES = ("float32", "sq8")
COUNTED = 200
QUICK_QUERIES = 40
LABELS = {
    "plaintext": "plaintext FAISS",
    "encrypted": "first stage, encrypted",
    "reranked": f"search, re-rank of {CANDIDATES}",
}
RERANKED = "search, re-ranked"


@dataclass
class Contest:
    """The four indexes of one data set."""

    data: Dataset
    truth: Truth
    plain: dict[str, Plain]
    ours: dict[str, Encrypted]

    def row(self, part: str, what: str, storage: str, **more: Any) -> Row:
        """Begin a row of results."""
        n, dim = self.data.vectors.shape
        begun = {"bench": "search", "part": part, "dataset": self.data.name, "n": n, "d": dim, "index": "hnsw"}
        return {**begun, "what": what, "storage": storage, **more}


def same_ef(contest: Contest, show: Show) -> list[Row]:
    """Measure the index alone, ours and theirs, at the same efSearch."""
    variants: dict[str, Callable[[Floats], Any]] = {}
    for storage in STORAGES:
        plain, ours = contest.plain[storage], contest.ours[storage]
        plain.set_ef(EF)
        ours.set_ef(EF)
        variants[f"plaintext {storage}"] = lambda query, plain=plain: plain.search(query, K)  # type: ignore[misc]
        variants[f"encrypted {storage}"] = lambda query, ours=ours: ours.candidates(query, K)  # type: ignore[misc]
        variants[f"reranked {storage}"] = lambda query, ours=ours: ours.search(query, K)  # type: ignore[misc]
    queries = contest.data.queries
    with show.stage("same ef", len(queries)) as done:
        timed = interleave(variants, queries, progress=done)
    rows = []
    for name, measured in timed.items():
        what, storage = name.split()
        answers = measured.answers if what == "plaintext" else contest.ours[storage].places(measured.answers)
        label = LABELS[what]
        row = contest.row("same ef", label, storage, ef_search=EF, **measured.row())
        row["distances"] = distances(variants[name], queries[:COUNTED]) or None  # None means that it scanned
        rows.append({**row, "recall@10": contest.truth.recall(answers, K)})
    return _with_ratio(rows)


def distances(search: Callable[[Floats], Any], queries: Floats) -> float:
    """Return how many vectors HNSW compares with a query, on average: the cost of noise, apart from our code."""
    library: Any = faiss
    counts = library.cvar.hnsw_stats
    counts.reset()
    for query in queries:
        search(query)
    return float(counts.ndis) / len(queries)


def same_recall(contest: Contest, show: Show) -> list[Row]:
    """Find the cheapest efSearch of each that reaches the recall, and measure whole searches with it.

    Ours are measured with every number of candidates that suffices: more of them cost more opening and scoring.
    """
    queries = contest.data.queries
    variants: dict[str, Callable[[Floats], Any]] = {}
    settings: dict[str, Callable[[], None]] = {}
    told: dict[str, dict[str, Any]] = {}
    with show.stage("choosing efSearch", len(STORAGES) * (1 + len(FEWER))) as done:
        for storage in STORAGES:
            plain, ours = contest.plain[storage], contest.ours[storage]
            for candidates in (0, *FEWER):
                name = f"{storage} {candidates}"
                for ef in EFS:
                    if ef < candidates:  # efSearch in the store is at least the number of candidates
                        continue
                    use: Callable[[], None] = partial(plain.set_ef, ef)
                    if candidates:
                        use = ours.setting(candidates // K, ef_search=ef)
                    use()
                    search: Callable[[Floats], Any] = partial(ours.search if candidates else plain.search, k=K)
                    answers: list[Any] = [search(query) for query in queries]
                    if contest.truth.recall(ours.places(answers) if candidates else answers, K) >= RECALL:
                        variants[name], settings[name] = search, use
                        told[name] = {"storage": storage, "ef_search": ef, "candidates": candidates or None}
                        break
                done(1)
    with show.stage("same recall", len(queries)) as done:
        timed = interleave(variants, queries, progress=done, prepare=settings)
    for ours in contest.ours.values():
        ours.setting(CANDIDATES // K)()
    rows = []
    for name, how in told.items():
        measured, wide = timed[name], how["candidates"] is not None
        places = contest.ours[how["storage"]].places(measured.answers) if wide else measured.answers
        more: Row = {**how, **measured.row(), **{f"recall@{k}": contest.truth.recall(places, k) for k in (1, 10)}}
        rows.append(contest.row("same recall", RERANKED if wide else LABELS["plaintext"], **more))
    for name in (f"{storage} {candidates}" for storage in STORAGES for candidates in (0, *FEWER)):
        if name not in told:
            missed = name.replace(" 0", ", plaintext")
            show.note(f"{contest.data.name}: {missed}: recall {RECALL} is out of reach up to ef {EFS[-1]}")
    return _with_ratio(rows)


def _with_ratio(rows: list[Row]) -> list[Row]:
    base = next((row["p50_ms"] for row in rows if "plaintext" in row["what"] and row["storage"] == "float32"), None)
    return [{**row, "p50_ratio": base and row["p50_ms"] / base} for row in rows]


def memory(contest: Contest, urls: dict[str, str], keys: str, folder: Path, show: Show) -> list[Row]:
    """Open each in a separate process, and run queries."""
    queries = folder / "queries.npy"
    np.save(queries, contest.data.queries[:QUERIES])
    common = {"queries": str(queries), "k": K}
    rows = []
    with show.stage("memory", 2 * len(STORAGES)) as done:
        for storage in STORAGES:
            index = folder / f"{storage}.faiss"
            contest.plain[storage].save(index)
            jobs = {
                "plaintext FAISS": {"kind": "plain", "index": str(index), "ef_search": EF},
                "open collection": {
                    "kind": "store",
                    "url": urls[storage],
                    "options": {"index": "hnsw", "storage": storage},
                    "keys": keys,
                    "name": "bench",
                    "oversample": CANDIDATES // K,
                    "reranked": True,
                },
            }
            for what, job in jobs.items():
                report = serve({**common, **job})
                row = contest.row("memory", what, storage, **report)
                if report["private_mb"] is not None and report["library_private_mb"] is not None:
                    row["index_private_mb"] = report["private_mb"] - report["library_private_mb"]
                rows.append(row)
                done(1)
    base = next((row.get("index_private_mb") for row in rows), None)
    for row in rows:
        row["memory_ratio"] = row["index_private_mb"] / base if base and "index_private_mb" in row else None
    return rows


def contest(data: Dataset, folder: Path, show: Show) -> list[Row]:
    """Build the four indexes of a data set and measure all three parts."""
    urls = {storage: f"faiss:{folder / storage}" for storage in STORAGES}
    dim, n = data.dim, len(data.vectors)
    plain: dict[str, Plain] = {}
    ours: dict[str, Encrypted] = {}
    built: list[Row] = []
    with throwaway_keys() as keys:
        with ExitStack() as open_stores:
            with show.stage("exact neighbours", 1):
                truth = Truth(metric(data.metric), data.vectors, data.queries, K)
            arena = Contest(data, truth, plain, ours)
            for storage in STORAGES:
                with show.stage(f"plaintext HNSW {storage}", 1):
                    plain[storage] = Plain(
                        metric(data.metric), data.vectors, FaissOptions(index="hnsw", storage=storage)
                    )
                size = {"index_mb": plain[storage].size() / 1e6}
                built.append(arena.row("build", "plaintext FAISS", storage, build_s=plain[storage].build_s, **size))
                store = open_stores.enter_context(
                    connect(urls[storage], keyset=keys, index="hnsw", storage=storage, flat_limit=0)
                )
                scheme = {"name": "sap", "beta": BETA}
                collection = store.collection("bench", dim, data.metric, scheme, oversample=CANDIDATES // K)
                with show.stage(f"encrypted records {storage}", n) as done:
                    written = fill(collection, data.vectors, done)
                ours[storage] = Encrypted(store, collection)
                with show.stage(f"encrypted HNSW {storage}", 1):
                    indexed = ours[storage].build()
                size = {"index_mb": ours[storage].stats()["store"]["bytes"].get("index", 0) / 1e6}
                build = {"build_s": written + indexed, "per_s": n / written, **size}
                built.append(arena.row("build", "faiss: store", storage, **build))
            rows = built + same_ef(arena, show) + same_recall(arena, show)
        return rows + memory(arena, urls, keys.uri, folder, show)


def run(quick: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure every data set."""
    rows: list[Row] = []
    for name in QUICK if quick else DATA:
        data = load(name, limit=600 if quick else None)
        if quick:
            data = replace(data, queries=data.queries[:QUICK_QUERIES])
        with tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
            found = contest(data, Path(folder), show)
        for part in ("build", "same ef", "same recall", "memory"):
            show.table(f"{data.name}, {len(data.vectors):,} x {data.dim}: {part}", _of(found, part))
        rows += found
    return rows, targets([row for row in rows if row["dataset"] == rows[-1]["dataset"]])


def _of(rows: list[Row], part: str) -> list[Row]:
    hidden = ("dataset", "n", "d", "index")
    return [{key: row[key] for key in row if key not in hidden} for row in rows if row["part"] == part]


def targets(rows: list[Row]) -> list[Target]:
    """Compare the rows of the larger data set with the targets."""

    def one(part: str, what: str, storage: str, key: str) -> float:
        found = [row for row in rows if (row["part"], row["storage"]) == (part, storage) and what in row["what"]]
        values = [float(row[key]) for row in found if row.get(key) is not None]
        return min(values, default=float("nan"))

    kept = []
    for storage in STORAGES:
        kept += [
            Target(f"first stage at ef {EF}, {storage}: p50 over plaintext float32's",
                   one("same ef", "encrypted", storage, "p50_ratio"), "<=", 1.15),
            Target(f"cheapest search at recall@10 >= {RECALL}, {storage}: p50 over plaintext float32's",
                   one("same recall", "re-rank", storage, "p50_ratio"), "<=", 2.0),
            Target(f"memory of an open collection, {storage}, over a plaintext float32 index's",
                   one("memory", "open", storage, "memory_ratio"), "<=", 1.2),
            Target(f"opening, {storage}, seconds to the first answer",
                   one("memory", "open", storage, "open_s"), "<=", 2.0),
        ]  # fmt: skip
    return kept


@click.command()
@options
def main(quick: bool, as_json: bool, out: str | None) -> None:
    """Measure searches."""
    publish("search", lambda show: run(quick, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.search")
    main()
