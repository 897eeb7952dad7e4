"""Measure `postgresql:` with the scheme "sealed" beside plaintext pgvector, both with documents, on one server.

Usage: python -m benchmarks.pgsealed [--n 50000] [--dim 384] [--updated] [--other-writer] [--shared-buffers 1GB]

The parts are those of `benchmarks.embedded`, each store in its own client process and database. Besides, it counts
the statements of a search (by pg_stat_statements, BEGIN, COMMIT and SET apart), and adds up memory: the client's
process without libraries, the private memory of the server's processes for it, and its pages in shared buffers.

pgvector is used by hand: psycopg, binary COPY, prepared statements, HNSW built by one process in --build-memory. The
server is a temporary one with fsync on, or that of ENCVEC_TEST_DSN (then its own settings count, and statements are
only counted if pg_stat_statements is loaded there).
"""

from __future__ import annotations

import math
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import psycopg

from benchmarks.datasets import DatasetError
from benchmarks.embedded.__main__ import keyset, measured, pairs, tables, value
from benchmarks.embedded.contest import RECALL, Contest, prepared
from benchmarks.embedded.during import during_ingest
from benchmarks.embedded.worker import TIMEOUT, System, Worker
from benchmarks.report import Row, Show, Target, one_thread, options, publish
from encvec_store.errors import InputError
from encvec_store.lab.bench.postgres import database
from encvec_store.storage.postgres import parse_url

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "pgvector": ("pgvector", {"storage": "single"}),
    "pgvector-half": ("pgvector", {"storage": "half"}),
    "encvec": ("encvec", {"scheme": {"name": "sealed"}}),
    "encvec-sap": ("encvec", {"scheme": {"name": "sap", "beta": 2.0}}),
}
DEFAULT = ("pgvector", "encvec")
COUNTED = 100
LOADED = {"shared_preload_libraries": "pg_stat_statements"}
QUICK = (600, 32, 40)
COLUMNS = {
    "ingest": ["what", "per_s", "write_s", "build_s", "bytes", "peak_rss_mb", "library_mb"],
    "opening": ["what", "state", "open_s", "import_s"],
    "search": ["what", "setting", "p50_ms", "p99_ms", "cpu_ms", "batch_ms", "recall@10", "p50_over_pgvector"],
    "server": ["what", "statements", "transactions", "client_mb", "server_mb", "both_mb"],
    "updated": ["what", "setting", "p50_ms", "p99_ms", "recall@10", "p50_over_fresh", "bytes"],
    "other writer": ["what", "p50_ms", "next_ms", "extra_ms", "seen"],
    "during ingest": ["what", "per_s", "searches", "p50_ms", "idle_p50_ms", "p99_ms", "idle_p99_ms", "p99_over_idle"],
}
COLUMNS["update"] = COLUMNS["ingest"]
_STATEMENTS = """SELECT coalesce(sum(calls), 0), coalesce(sum(calls) FILTER (
WHERE query ~* '^ *(begin|start|commit|rollback|set|deallocate|discard)'), 0)
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = %s"""
_BUFFERS = """SELECT count(*) * current_setting('block_size')::bigint FROM pg_buffercache b
JOIN pg_database d ON d.oid = b.reldatabase WHERE d.datname = %s"""


def renamed(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    head, question, query = url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}{question}{query}"


@dataclass
class Databases:
    """A database for each store, and one that creates and watches them."""

    url: str
    names: list[str]

    def run(self, sql: str, *values: str) -> tuple[Any, ...]:
        """Run a statement and return its first row, if it has any."""
        with psycopg.connect(parse_url(self.url, {})[0], autocommit=True) as connection:
            cursor = connection.execute(sql.encode(), values or None)
            return tuple((cursor.fetchone() or ()) if cursor.description else ())

    def create(self, name: str, template: str | None = None) -> str:
        """Create a database, or copy one; returns its URL."""
        self.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        self.names.append(name)
        return renamed(self.url, name)

    def copied(self, system: System) -> System:
        """Copy a store's database."""
        name = self.of(system)
        return replace(system, place=self.create(f"{name}_fresh", name))

    def of(self, system: System) -> str:
        """Return the name of a store's database."""
        return system.place.partition("?")[0].rpartition("/")[2]

    def close(self) -> None:
        """Drop them."""
        for name in self.names:
            self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def watched(contest: Contest, databases: Databases, system: System, local: bool) -> Row:
    """Count the statements of a search, and the memory of client and server after them."""
    name, rows = databases.of(system), list(range(min(COUNTED, contest.job.queries)))
    row = contest.row("server", system, "warm")
    with Worker(system, contest.job.files[2], contest.timeout) as worker:
        libraries = worker.ask("tell")["own_mb"]
        worker.open(contest.job.data.vectors.dim)
        worker.ask("set", setting=contest.settings[system.name])
        worker.ask("search", rows=rows, k=contest.job.k, together=False)
        with suppress(psycopg.Error):  # not loaded there
            before = databases.run(_STATEMENTS, name)
            worker.ask("search", rows=rows, k=contest.job.k, together=False)
            after = databases.run(_STATEMENTS, name)
            row["statements"], row["transactions"] = (
                float(last - first) / len(rows) for first, last in zip(before, after, strict=True)
            )
        mine = worker.ask("tell")["own_mb"]
        row["client_mb"] = None if mine is None else mine - libraries
        server = None
        if local:
            with suppress(psycopg.Error):
                (buffers,) = databases.run(_BUFFERS, name)
                server = (buffers + _private(databases, name)) / (1 << 20)
        row["server_mb"] = server
        row["both_mb"] = None if server is None or row["client_mb"] is None else server + row["client_mb"]
        worker.ask("close")
    return row


def _private(databases: Databases, name: str) -> int:
    """Return the bytes that the server's processes for a database hold for themselves."""
    (pids,) = databases.run("SELECT array_agg(pid) FROM pg_stat_activity WHERE datname = %s", name)
    held = 0
    for pid in pids or []:
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
            held += int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) << 10
    return held


def targets(rows: list[Row], updated: bool, other_writer: bool) -> list[Target]:
    """Judge each size."""
    told = []
    for n, dim in dict.fromkeys((row["n"], row["d"]) for row in rows):
        here, size = [row for row in rows if (row["n"], row["d"]) == (n, dim)], f"{n:,} x {dim}: "
        large = n >= 1_000_000

        def over(part: str, key: str, here: list[Row] = here) -> float:
            return value(here, part, key) / value(here, part, key, "pgvector")

        told += [
            Target(f"{size}recall@10", value(here, "search", "recall@10"), ">=", RECALL),
            Target(f"{size}p50 over pgvector", over("search", "p50_ms"), "<=", 1.0 if large else 1.3),
            Target(f"{size}statements a search, without BEGIN, COMMIT, SET",
                   value(here, "server", "statements") - value(here, "server", "transactions"), "<=", 2),
            Target(f"{size}seconds from records to searchable over pgvector's", 1 / over("ingest", "per_s"), "<=", 0.5),
            Target(f"{size}disk over pgvector's", over("ingest", "bytes"), "<=", 0.6 if dim >= 768 else 0.8),
            Target(f"{size}opening to the first answer, s", value(here, "opening", "open_s"), "<=", 6.0),
        ]  # fmt: skip
        if updated:
            fresh = value(here, "updated", "p50_over_fresh")
            told.append(Target(f"{size}p50 after every record was updated, over fresh", fresh, "<=", 1.5))
        if other_writer:
            more = value(here, "other writer", "extra_ms")
            told.append(Target(f"{size}search after another process wrote, ms more", more, "<=", 5.0))
            busy = value(here, "during ingest", "p99_over_idle")
            told.append(Target(f"{size}p99 while another process writes, over idle", busy, "<=", 5.0))
    return [target for target in told if not math.isnan(target.measured)]  # of stores that were not asked for


@click.command()
@click.option("--n", "sizes", type=click.IntRange(20), multiple=True, help="Records; repeatable.  [default: 10000]")
@click.option("--dim", type=click.IntRange(2), default=384, show_default=True)
@click.option("--k", type=click.IntRange(1), default=10, show_default=True)
@click.option("--queries", type=click.IntRange(10), default=300, show_default=True)
@click.option("--systems", default=",".join(DEFAULT), show_default=True, help=f"Of {', '.join(SYSTEMS)}, with commas.")
@click.option("--data", "name", default="clustered", show_default=True,
              help="clustered, synthetic or iid; or a name of benchmarks.corpora, such as banking77.")  # fmt: skip
@click.option("--document-bytes", type=click.IntRange(1), default=300, show_default=True, help="Least length of each.")
@click.option("--updated", is_flag=True, help="Also search after every record was replaced once.")
@click.option("--other-writer", is_flag=True, help="Also search after another process wrote a record.")
@click.option("--shared-buffers", default="1GB", show_default=True, help="Of the temporary server.")
@click.option("--build-memory", default="512MB", show_default=True, help="For pgvector's index.")
@click.option("--openings", type=click.IntRange(1), default=3, show_default=True, help="Times each store is opened.")
@click.option("--option", "given", multiple=True, metavar="NAME=VALUE", help="An option of our connect; repeatable.")
@click.option("--timeout", type=float, default=TIMEOUT, show_default=True, help="Most seconds of one step of a store.")
@options
def main(
    sizes: tuple[int, ...],
    dim: int,
    k: int,
    queries: int,
    systems: str,
    name: str,
    document_bytes: int,
    updated: bool,
    other_writer: bool,
    shared_buffers: str,
    build_memory: str,
    openings: int,
    given: tuple[str, ...],
    timeout: float,
    quick: bool,
    as_json: bool,
    out: str | None,
) -> None:
    """Measure the sealed PostgreSQL store."""
    names = [one.strip() for one in systems.split(",") if one.strip()]
    unknown = [one for one in names if one not in SYSTEMS]
    if unknown or not names:
        raise click.BadParameter(
            f"unknown store {', '.join(unknown) or 'name'}: there are {', '.join(SYSTEMS)}", param_hint="--systems"
        )
    connect = pairs(given)
    if quick:
        sizes, (_, dim, queries) = QUICK[:1], QUICK

    def one(n: int, show: Show) -> list[Row]:
        with (
            tempfile.TemporaryDirectory(prefix="encvec-bench-") as place,
            keyset(),
            database(shared_buffers=shared_buffers, **LOADED) as db,
        ):
            try:
                job = prepared(name, n, dim, Path(place), queries, k, document_bytes)
            except (DatasetError, InputError) as error:
                raise click.BadParameter(str(error), param_hint="--data") from None
            databases = Databases(db.url, [])
            for extension in ("pg_stat_statements", "pg_buffercache"):
                with suppress(psycopg.Error):
                    databases.run(f"CREATE EXTENSION IF NOT EXISTS {extension}")
            own = databases.of(System("", "", Path(), db.url))
            try:
                found = []
                for wanted in names:
                    store, how = SYSTEMS[wanted]
                    more = {"connect": connect} if store == "encvec" else {"build_memory": build_memory}
                    where = databases.create(f"{own}_{wanted.replace('-', '_')}")
                    found.append(System(wanted, store, Path(sys.executable), where, {**how, **more}))
                contest = Contest(job, found, show, "pgsealed", timeout)
                contest.repeats = 1 if quick else openings

                def copied(system: System) -> System:
                    return databases.copied(system)

                first = {"p50_over_pgvector": "pgvector"}
                rows = measured(contest, copied, first, updated=False, other_writer=False)
                rows += contest.each(lambda system: watched(contest, databases, system, db.pid is not None))
                if updated:
                    rows += contest.updated(copied)
                if other_writer:
                    rows += contest.other_writer() + during_ingest(contest, contest.systems)
                (buffers,) = databases.run("SELECT current_setting('shared_buffers')")
                return [{**row, **db.versions, "shared_buffers": buffers} for row in rows]
            finally:
                databases.close()

    def measure(show: Show) -> tuple[list[Row], list[Target]]:
        rows = [row for n in sizes or (10_000,) for row in one(n, show)]
        tables(show, rows, COLUMNS)
        return rows, targets(rows, updated, other_writer)

    publish("pgsealed", measure, quick, as_json, out)


if __name__ == "__main__":
    one_thread("benchmarks.pgsealed")
    main()
