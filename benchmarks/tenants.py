"""Tenants in PostgreSQL: compare one table per tenant with LIST partitions, and measure row-level security.

    python -m benchmarks.tenants [--tenants 1000 5000] [--records 20000]

The first table compares layouts on the same server, with the same columns and index, and a few rows per tenant. The
second measures the store in turn without and with row-level security, as a role that is subject to it. Decision 0012
quotes the output.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import psycopg

import encvec_store as ev
from encvec_store.localpg import LocalServer

Connection = psycopg.Connection[tuple[object, ...]]
COLUMNS = "row bigint NOT NULL, token bytea NOT NULL, v vector(8) NOT NULL"
FILL = "INSERT INTO {} SELECT {} i, int8send(i), array_fill(i, ARRAY[8])::vector FROM generate_series(1, 5) i"
NEAREST = "ORDER BY v <#> array_fill(1, ARRAY[8])::vector LIMIT 3"
ROUNDS = 41


class Inherited:
    """What the store does: parents stay empty, and each tenant has a child table, which statements name."""

    name = "a table each, inherited"

    def prepare(self, connection: Connection) -> None:
        connection.execute(f"CREATE TABLE one ({COLUMNS}, PRIMARY KEY (row))")

    def add(self, connection: Connection, n: int) -> None:
        connection.execute(f"CREATE TABLE one_{n} (LIKE one INCLUDING ALL)")
        connection.execute(FILL.format(f"one_{n}", ""))
        connection.execute(f"ALTER TABLE one_{n} INHERIT one")

    def drop(self, connection: Connection, n: int) -> None:
        connection.execute(f"DROP TABLE one_{n}")

    def search(self, n: int) -> str:
        return f"SELECT row FROM one_{n} {NEAREST}"  # noqa: S608 - a number and a constant


class Partitioned:
    """Declarative partitions by tenant; statements name the parent."""

    name = "LIST partitions"
    how = "PARTITION OF"

    def prepare(self, connection: Connection) -> None:
        connection.execute(
            f"CREATE TABLE two (tenant text NOT NULL, {COLUMNS}, PRIMARY KEY (tenant, row)) PARTITION BY LIST (tenant)"
        )

    def add(self, connection: Connection, n: int) -> None:
        if self.how == "PARTITION OF":
            connection.execute(f"CREATE TABLE two_{n} PARTITION OF two FOR VALUES IN ('{n}')")
        else:
            connection.execute(f"CREATE TABLE two_{n} (LIKE two INCLUDING ALL, CHECK (tenant = '{n}'))")
            connection.execute(f"ALTER TABLE two ATTACH PARTITION two_{n} FOR VALUES IN ('{n}')")
        connection.execute(FILL.format(f"two_{n}", f"'{n}',"))

    def drop(self, connection: Connection, n: int) -> None:
        connection.execute(f"DROP TABLE two_{n}")

    def search(self, n: int) -> str:
        return f"SELECT row FROM two WHERE tenant = '{n}' {NEAREST}"  # noqa: S608 - likewise


class Attached(Partitioned):
    """The same, but created as a table first, then attached."""

    name = "LIST partitions, attached"
    how = "ATTACH"


def median(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median time of a call in milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def locks(dsn: str, parent: str, work: Callable[[Connection], None]) -> str:
    """Return the strongest lock on the parent that a transaction holds after `work`."""
    with psycopg.connect(dsn) as connection:
        work(connection)
        modes = connection.execute(
            "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = %s::regclass", (parent,)
        ).fetchall()
        connection.rollback()
    known = {str(mode).removesuffix("Lock") for (mode,) in modes}
    for mode in ("AccessExclusive", "ShareRowExclusive", "ShareUpdateExclusive", "RowExclusive", "AccessShare"):
        if mode in known:
            return mode
    return "none"


def planning(connection: Connection, statement: str) -> float:
    """Return the planner's own time for a statement in milliseconds, the median of several."""

    def once() -> float:
        lines = [str(line) for (line,) in connection.execute(f"EXPLAIN (SUMMARY) {statement}").fetchall()]
        (line,) = [line for line in lines if line.startswith("Planning Time")]
        return float(line.split()[2])

    return statistics.median(once() for _ in range(ROUNDS))


def measure(dsn: str, layout: Inherited | Partitioned, tenants: int) -> list[str]:
    """Fill a layout with tenants; return a row of the table."""
    parent = "one" if isinstance(layout, Inherited) else "two"
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {parent}")
        layout.prepare(connection)
        for n in range(tenants):
            layout.add(connection, n)
        numbers = iter(range(tenants, tenants + ROUNDS))
        created = median(lambda: layout.add(connection, next(numbers)))
        planned = planning(connection, layout.search(7))
        warm = median(lambda: connection.execute(layout.search(7)).fetchall())
    create_lock = locks(dsn, parent, lambda connection: layout.add(connection, 10**6))
    drop_lock = locks(dsn, parent, lambda connection: layout.drop(connection, 3))

    def fresh() -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(layout.search(7)).fetchall()

    first = median(fresh, 11)
    with psycopg.connect(dsn, autocommit=True) as connection:  # one by one: a statement's locks are limited
        for n in range(tenants + ROUNDS):
            layout.drop(connection, n)
    figures = [f"{value:.2f}" for value in (created, planned, warm, first)]
    return [layout.name, f"{tenants:,}", *figures, create_lock, drop_lock]


def row_security(server: LocalServer, records: int) -> None:
    """Print the cost of writes and searches without and with row-level security."""
    keyset, rng = ev.Keyset.create("memory:"), np.random.default_rng(1)
    vectors = rng.standard_normal((records, 384)).astype(np.float32)
    ids, metadata = [f"r{n}" for n in range(records)], [{"group": n % 200} for n in range(records)]
    server.ensure_database("apart")
    dsn = server.dsn("apart")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE app LOGIN PASSWORD 'app'")
        connection.execute("GRANT CREATE ON DATABASE apart TO app")
    url = dsn.replace("postgresql://postgres@", "postgresql://app:app@").partition("&passfile")[0]
    stores = [ev.connect(url, keyset=keyset, schema=f"s{on}", row_security=bool(on)) for on in (0, 1)]
    things = [store.collection("things", dim=384, tenant="acme", fields={"group": "blind"}) for store in stores]
    rates: list[list[float]] = [[], []]
    for start in range(0, records, 2_000):
        part = slice(start, start + 2_000)
        for rate, collection in zip(rates, things, strict=True):
            begun = time.perf_counter()
            collection.upsert(ids[part], vectors[part], metadata[part])
            rate.append(len(ids[part]) / (time.perf_counter() - begun))
    for collection in things:
        collection.flush()
    found: list[list[float]] = []
    for where in (None, {"group": 3}):
        times: list[list[float]] = [[], []]
        for query in vectors[:200] + 0.1:
            for taken, collection in zip(times, things, strict=True):
                begun = time.perf_counter()
                collection.search(query, k=10, where=where)
                taken.append(1e3 * (time.perf_counter() - begun))
        found.append([statistics.median(taken) for taken in times])
    for store in stores:
        store.close()
    print(f"\n| {records:,} records of 384, row-level security | off | on | ratio |\n|---|---|---|---|")
    off, on = (statistics.median(rate) for rate in rates)
    print(f"| records written per second | {off:,.0f} | {on:,.0f} | {on / off:.2f} |")
    for name, (off, on) in zip(("search", "filtered search"), found, strict=True):
        print(f"| {name}, p50 ms | {off:.2f} | {on:.2f} | {on / off:.2f} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[1_000, 5_000])
    parser.add_argument("--records", type=int, default=20_000)
    given = parser.parse_args()
    heads = [
        "layout",
        "tenants",
        "create ms",
        "plan ms",
        "search ms",
        "connect and search ms",
        "create locks the parent",
    ]
    heads.append("drop locks the parent")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    with LocalServer() as server:
        server.ensure_database("partitions")
        dsn = server.dsn("partitions")
        for tenants in given.tenants:
            for layout in (Inherited(), Partitioned(), Attached()):
                print("| " + " | ".join(measure(dsn, layout, tenants)) + " |", flush=True)
        with psycopg.connect(dsn) as connection:
            connection.execute("DROP TABLE two")
            Partitioned().prepare(connection)
            Partitioned().add(connection, 1)
            try:
                connection.execute("ALTER TABLE two DETACH PARTITION two_1 CONCURRENTLY")
            except psycopg.Error as error:
                print(f"\nDETACH PARTITION ... CONCURRENTLY in a transaction: {error.diag.message_primary}")
        row_security(server, given.records)


if __name__ == "__main__":
    main()
