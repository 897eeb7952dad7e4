"""Try to learn from which rows, and which blocks, of a `sealed` collection are read together.

Usage: python -m benchmarks.watching [--n 4000] [--searches 10000] [--known 500] [--dial NAME ...] [--full] [--quick]

A server logs the rows that each search reads, under every dial. Texts are Banking77's, with 77 labels; searches are
for texts of the same kind that are not stored, drawn again and again. The server learns topics of records and of
queries from some known labels, finds topics without labels, finds pairs of neighbours, and names records with the very
same texts, without known rows, with 50, and from 10,000 searches on also with 500. Luck is the same attack with the
known labels shuffled, or on a log in which the same rows are read as often, but not together. `ceiling` is the true
graph of ten neighbours in the place of a log: attacks must break it. Logs are cut to 100, 1,000 and 10,000 searches;
with --full there are 100,000, and only the whole log is attacked: the results file is both runs', one after the other,
those with --full one dial at a time. Under `buckets` and `prefetched` a row is read at most once: after a thousand
searches that read nothing, all texts are searched for in batches. As these read nothing either, the rest of the log is
empty.

`hits` remembers what it read: in so small a collection, all of it. In `hits, little memory` it remembers about a row in
fifteen, as in a large collection. `lists on demand` are 10,003 texts whose codes lie in the store, with memory for
about a block in nine. There the server sees blocks only, and knows the topics of 500 texts that it asks for itself,
once each. The other searches are for 2,580 other texts, first each once, then drawn again and again: 30,000 at most,
for each takes long.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from benchmarks.datasets import load
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store import Collection, Keyset, connect, low_level
from encvec_store.data import Matrix
from encvec_store.lab.bench.job import throwaway_keys
from encvec_store.lab.leakage import graphs
from encvec_store.lab.leakage import watching as lab
from encvec_store.lab.leakage.algebra import unit

K, QUICK = 10, (600, 300, 100)
FULL, LEAST, LONG = 100_000, 100, 10_000
BY_BLOCKS, QUIET = 30_000, 1_000
HITS = {"reads": "hits"}
WATCHED = {"threat": "watching-server"}
DIALS: dict[str, dict[str, Any]] = {
    "candidates": {"reads": "candidates"},
    "hits": HITS,
    "hits, little memory": HITS,
    "buckets": WATCHED,
    "prefetched": WATCHED,
}
CEILING, LISTS = "ceiling", "lists on demand"
Ints = npt.NDArray[np.integer]
KNOWN_ROWS = (0, 50)
MANY_ROWS = 500
MARGIN, BROKEN = 0.02, 0.5
PLENTY, LITTLE = 1 << 30, 3 << 19
COLUMNS = ["what", "searches", "rows_read", "ami", "labels", "query", "pairs", "named", "named_50"]


class Texts:
    """What is stored, n texts, and what is asked."""

    def __init__(self, n: int, searches: int) -> None:
        data = load("banking77")
        assert data.labels is not None
        assert data.query_labels is not None
        rng = np.random.default_rng(0)
        pool, labels = np.concatenate([data.vectors, data.queries]), np.concatenate([data.labels, data.query_labels])
        order = rng.permutation(len(pool))
        drawn = rng.choice(order[n:], searches)
        self.n = n
        self.vectors, self.labels = unit(pool[order[:n]]), labels[order[:n]]
        self.asked, self.topics = unit(pool[drawn]), labels[drawn]
        self.near = lab.neighbours(self.vectors, K)
        self.own = lab.neighbour_log(self.vectors, K).graph

    def learned(self, log: lab.ReadLog, topics: Ints, known: int, whole: bool) -> Row:
        """Say what each attack learns of a log of searches for `topics`, with luck beside it."""
        rng = np.random.default_rng(1)
        told = rng.choice(self.n, known, replace=False)
        mixed = self.labels.copy()
        mixed[told] = rng.permutation(self.labels[told])
        loose = log.shuffled(rng)
        found: Row = {
            "rows_read": log.each,
            "ami": lab.topics(log, self.labels, rng),
            "ami_luck": lab.topics(loose, self.labels, rng),
            "labels": max(lab.record_topics(log, self.labels, told, steps) for steps in (1, 2)),
            "labels_luck": max(lab.record_topics(log, mixed, told, steps) for steps in (1, 2)),
            "query": lab.query_topics(log, self.labels, told, topics),
            "query_luck": lab.query_topics(log, mixed, told, topics),
        }
        for name, one in (("pairs", log), ("pairs_luck", loose)):
            both = lab.neighbour_pairs(one, self.near)
            found |= {name: both["recall"], f"{name}_precision": both["precision"]}
        for rows in (*KNOWN_ROWS, *([MANY_ROWS] if whole and self.n > 2 * MANY_ROWS else [])):
            name = f"named_{rows}" if rows else "named"
            found |= {name: self.named(log, rows), f"{name}_luck": self.named(loose, rows)}
        return found

    def named(self, log: lab.ReadLog, known: int) -> float:
        """Return the share of records that are named by the very same texts, besides `known` ones."""
        rng = np.random.default_rng([2, known])
        order = rng.permutation(self.n)  # text i of the server's is record order[i]
        text = np.argsort(order)
        rows = rng.choice(self.n, known, replace=False)
        pairs = (rows, text[rows]) if known else None
        if not log.graph.nnz:
            return 0.0
        found = graphs.matched(log.graph, self.own[order][:, order], rng, pairs) == text
        return float(np.delete(found, rows).mean())


def filled(url: str, keys: Keyset, vectors: Matrix) -> tuple[dict[int, int], int]:
    """Store vectors and build the index. Returns the place of each row, and the bytes of the index."""
    names = [str(i) for i in range(len(vectors))]
    with connect(url, keyset=keys, maintenance="manual") as store:
        things = store.collection("bench", vectors.shape[1], "cosine", "sealed")
        things.upsert(names, vectors)
        things.maintain()
        things.search(vectors[0], K)
        size = int(things.stats()["sealed_index"]["memory_bytes"])
        return {int(row): place for place, row in enumerate(low_level.places(things, names))}, size


def searched(things: Collection, queries: Matrix, show: Show, name: str, once: bool = False) -> lab.ReadsSeen:
    """Search, one by one, and log what the store is asked.

    With `once` no row is read twice. After a thousand searches that read nothing the rest is tried in batches: a batch
    that reads nothing shows that none of its searches would. The log is then shorter than the queries.
    """
    things.search(queries[0], K)
    with lab.watched(things) as seen, show.stage(name, len(queries)) as done:
        for query in queries:
            things.search(query, K)
            seen.next()
            done(1)
            if once and seen.quiet == QUIET:
                for rest in np.array_split(np.unique(queries, axis=0), 10):
                    things.search(rest, K)
                seen.next()
                if seen.quiet > QUIET:
                    break
    return seen


def dials(texts: Texts, names: list[str], show: Show) -> Iterator[tuple[str, str, lab.ReadLog]]:
    """Log searches under each dial. Yields its name, what the store says that a server sees, and the log."""
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        url = f"faiss:{folder}/store?index=hnsw"
        places, index = filled(url, keys, texts.vectors)
        memory = {
            "buckets": index + 4 * texts.vectors.nbytes // 5,
            "hits, little memory": index + texts.vectors.nbytes + LITTLE,
        }
        for name in names:
            how = DIALS[name] | ({"cache": Path(folder) / "cache"} if name == "buckets" else {})
            room = memory.get(name, PLENTY)
            with connect(url, keyset=keys, maintenance="manual", index_memory=room, **how) as store:
                things = store.collection("bench")
                once = DIALS[name] is WATCHED
                log = searched(things, texts.asked, show, name, once).rows(places)
                silent = [np.zeros(0, np.intp)] * (len(texts.asked) - len(log.reads))
                yield name, things.stats()["server_sees"], lab.ReadLog([*log.reads, *silent], log.count)


def by_blocks(searches: int, quick: bool, show: Show) -> Iterator[Row]:
    """Guess the topics of queries from the blocks that they read of lists on demand."""
    data = load("banking77")
    assert data.query_labels is not None
    rng = np.random.default_rng(3)
    texts = rng.permutation(len(data.queries))[: 300 if quick else None]
    known = np.arange(len(texts) // 6 if quick else MANY_ROWS)
    others = texts[len(known) :]
    chosen = np.concatenate([texts, rng.choice(others, max(0, searches - len(texts)))])
    asked, topics = unit(data.queries[chosen]), data.query_labels[chosen]
    with throwaway_keys() as keys, tempfile.TemporaryDirectory(prefix="encvec-bench-") as folder:
        url = f"faiss:{folder}/store?index=lists"
        _, index = filled(url, keys, data.vectors)
        with connect(url, keyset=keys, maintenance="manual", index_memory=index) as store:
            things = store.collection("bench")
            whole = searched(things, asked, show, LISTS).blocks()
            about = things.stats()["sealed_index"]["blocks"]
    mixed = topics.copy()
    mixed[known] = rng.permutation(topics[known])
    for length in sorted({min(length, len(asked)) for length in (10 * LEAST, len(texts), BY_BLOCKS)}):
        log = whole.first(length)
        yield {
            **{"what": LISTS, "n": len(data.vectors), "searches": length, "known_queries": len(known)},
            **{"blocks": log.count, "blocks_read": log.each, "about": about},
            "query": lab.topics_by_queries(log, topics[:length], known),
            "query_luck": lab.topics_by_queries(log, mixed[:length], known),
        }


def measured(n: int, searches: int, known: int, names: list[str], quick: bool, show: Show) -> Iterator[Row]:
    """Attack the logs of every dial, cut to several lengths."""
    texts = Texts(n, searches)
    if CEILING in names:
        log = lab.neighbour_log(texts.vectors, K)
        yield {"what": CEILING, "n": n, "searches": n, **texts.learned(log, texts.labels, known, True)}
    shorter = () if searches == FULL else (LEAST, 10 * LEAST, LONG)
    lengths = [length for length in shorter if length < searches] + [searches]
    for name, sees, log in dials(texts, [name for name in names if name in DIALS], show):
        for length in lengths:
            whole = length in (LONG, searches)
            found = texts.learned(log.first(length), texts.topics[:length], known, whole)
            yield {"what": name, "n": n, "searches": length, **found, "sees": sees}
    if LISTS in names:
        yield from by_blocks(min(searches, BY_BLOCKS), quick, show)


def run(n: int, searches: int, known: int, names: list[str], quick: bool, show: Show) -> tuple[list[Row], list[Target]]:
    """Measure what a server that watches learns."""
    head = {"bench": "watching", "dataset": "banking77", "scheme": "sealed", "known": known}
    rows = [{**head, **row} for row in measured(n, searches, known, names, quick, show)]
    shown = [{**row, **{name: _beside(row, name) for name in COLUMNS[3:]}} for row in rows]
    show.table(f"{n:,} texts; luck in brackets", shown, COLUMNS)
    targets = [
        Target(f"{row['what']}, {row['searches']}: {what} beyond luck", row[what] - row[f"{what}_luck"], "<=", MARGIN)
        for row in rows
        if row["what"] in ("buckets", "prefetched")
        for what in ("labels", "query", "ami", "named", "named_50")
    ]
    control = [row for row in rows if row["what"] == CEILING]
    targets += [
        Target(f"control, the true graph: {what}", row[what], ">=", BROKEN)
        for row in control
        for what in ("ami", "labels", "query", "pairs", "named_50")
    ]
    return rows, targets


def _beside(row: Row, name: str) -> str:
    return f"{row[name]:.4f} ({row[f'{name}_luck']:.4f})" if name in row else ""


@click.command()
@click.option("--n", type=click.IntRange(100), default=4_000, show_default=True, help="Texts that are stored.")
@click.option("--searches", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--known", type=click.IntRange(1), default=500, show_default=True, help="Rows whose labels are known.")
@click.option("--dial", "names", multiple=True, type=click.Choice([CEILING, *DIALS, LISTS]), help="[default: all]")
@click.option("--full", is_flag=True, help="100,000 searches.")
@options
def main(
    n: int, searches: int, known: int, names: tuple[str, ...], full: bool, quick: bool, as_json: bool, out: str | None
) -> None:
    """Measure what a server that watches learns of a sealed collection."""
    size = QUICK if quick else (n, FULL if full else searches, known)
    chosen = list(names or (CEILING, *DIALS, LISTS))
    publish("watching", lambda show: run(*size, chosen, quick, show), quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.watching")
    main()
