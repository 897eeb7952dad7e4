"""What a thief has who copied a store: its tables and files, read without a key.

    copy = stolen("faiss:store")
    for line in told(copy): ...
    for line in compared(before, copy): ...

`stolen` reads everything that a dump of the database or a copy of the folder holds, rows in the order in which they
lie. `told` says what can be read off one copy, `compared` what two copies of one store show. Both say it for each
collection, as lines for people: what is there, how much of it, and what that tells.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError, StoreUnreachableError
from ...runtime import urls
from ...storage import unpacked

__all__ = ["StoreCopy", "Telling", "compared", "stolen", "told"]

Columns = dict[str, list[Any]]
_SQLITE = "records.sqlite3"
_TABLES = ("meta", "collections", "records", "vectors", "index_vectors", "terms", "partitions", "blobs", "changes")
_NAME_KEY = "name_key"
"""A table that only a store has whose names are sealed."""


@dataclass(frozen=True)
class Telling:
    """One thing that a copy tells."""

    collection: str
    """`tenant/name` as it stands there; empty for what is not of one collection."""
    what: str
    amount: str
    tells: str

    def to_dict(self) -> dict[str, str]:
        """Return the line as JSON values."""
        return {"collection": self.collection, "what": self.what, "amount": self.amount, "tells": self.tells}


@dataclass(frozen=True)
class StoreCopy:
    """A copy of a store."""

    tables: dict[str, Columns] = field(repr=False)
    """By name, and by column, cells in the order in which the rows lie. Records and vectors are one table."""
    files: dict[str, tuple[int, float]]
    """Files of a folder, or tables of a database: bytes, and when written last in seconds since 1970 (0: unknown)."""
    leftovers: dict[str, int]
    """Bytes of what was deleted and may still be read, by where it lies."""

    def rows_of(self, table: str, collection: int) -> Columns:
        """Return the rows of a collection."""
        columns = self.tables.get(table, {})
        at = [i for i, number in enumerate(columns.get("collection", [])) if number == collection]
        return {name: [cells[i] for i in at] for name, cells in columns.items()}

    @property
    def collections(self) -> dict[int, str]:
        """Names by number."""
        held = self.tables["collections"]
        named = zip(held["id"], held["tenant"], held["name"], strict=True)
        return {number: f"{tenant}/{name}" if tenant else name for number, tenant, name in named}


def stolen(url: str | os.PathLike[str]) -> StoreCopy:
    """Read a store as a thief does: without a key, and without changing it.

    Args:
        url: of a `faiss:` store, or its folder; or `postgresql://`, read by a role that may read the tables.

    Raises:
        InputError: no such store, or one that is only in memory.
        UriError: the URL names no folder.
        StoreUnreachableError: the server does not answer, or refuses.
    """
    url = urls.as_url(url)
    scheme = url.partition(":")[0]
    if scheme in urls.POSTGRESQL:
        return _from_postgresql(url)
    if scheme in ("memory", "milvus"):
        raise InputError(f"a store that can be copied is in a folder or on PostgreSQL, got {scheme}:")
    folder, _ = urls.folder_of_store(url)
    if not (folder / _SQLITE).is_file():
        raise InputError(f"{folder} must be the folder of a store: it has no {_SQLITE}")
    return _from_folder(folder)


def _from_folder(folder: Path) -> StoreCopy:
    files = {file.name: (file.stat().st_size, file.stat().st_mtime) for file in sorted(folder.iterdir())}
    with sqlite3.connect(f"file:{folder / _SQLITE}?mode=ro", uri=True) as connection:
        tables = {name: _columns(connection.execute(f'SELECT * FROM "{name}"')) for name in _TABLES}  # noqa: S608
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [_NAME_KEY]).fetchone():
            tables[_NAME_KEY] = _columns(connection.execute(f'SELECT * FROM "{_NAME_KEY}"'))  # noqa: S608
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        free *= connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    at = {row: i for i, row in enumerate(tables["records"]["row"])}
    for name, column in (("vectors", "envelope"), ("index_vectors", "vector")):
        held = tables.pop(name)
        cells: list[Any] = [None] * len(at)
        for row, cell in zip(held.get("row", []), held.get(column, []), strict=True):
            cells[at[row]] = cell
        tables["records"][column] = cells
    leftovers = {"free pages of SQLite": free}
    log = files.get(f"{_SQLITE}-wal", (0, 0.0))[0]
    return StoreCopy(tables, files, {name: size for name, size in {**leftovers, "the log": log}.items() if size})


def _from_postgresql(url: str) -> StoreCopy:
    import psycopg
    from psycopg.sql import SQL, Identifier

    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    try:
        dsn, schema = urls.database_of_store(url, known)
    except ValueError as error:
        raise InputError(f"the store's URL cannot be read: {error}") from None
    tables: dict[str, Columns] = {}
    files: dict[str, tuple[int, float]] = {}
    dead = 0
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            found = connection.execute(
                "SELECT c.oid, c.relname, pg_total_relation_size(c.oid), pg_stat_get_dead_tuples(c.oid)"
                " FROM pg_class AS c WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relkind = 'r'"
                " ORDER BY relname",
                [schema],
            ).fetchall()
            for _, name, size, gone in found:
                files[name] = size, 0.0
                dead += gone
                at = Identifier(schema, name)
                tables[name] = _columns(connection.execute(SQL("SELECT * FROM ONLY {} ORDER BY ctid").format(at)))
    except psycopg.Error as error:
        reason = type(error).__name__
        raise StoreUnreachableError(f"{urls.shown(url)} cannot be read ({reason})") from None
    if "collections" not in tables:
        raise InputError(f"{urls.shown(url)} has no store in the schema {schema!r}")
    return StoreCopy(_joined(tables), files, {"rows that are deleted and not vacuumed yet": dead} if dead else {})


def _joined(tables: dict[str, Columns]) -> dict[str, Columns]:
    """Put the tables of single collections into one each, as SQLite has them."""
    held = tables["collections"]
    for kind in ("records", "terms"):
        whole: Columns = {"collection": []}
        for number, content in zip(held["id"], held["content"], strict=True):
            part = tables.pop(f"{kind}_{content}", {})
            count = len(next(iter(part.values()), []))
            before = len(whole["collection"])
            whole["collection"] += [number] * count
            for name, cells in part.items():
                name = "vector" if name.startswith("index_") else name
                whole.setdefault(name, [None] * before).extend(cells)
            for cells in whole.values():
                cells += [None] * (before + count - len(cells))
        tables[kind] = whole
    return tables


def _columns(cursor: Any) -> Columns:
    names = [column[0] for column in cursor.description]
    rows = cursor.fetchall()
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def told(copy: StoreCopy) -> list[Telling]:
    """Say what one copy tells without a key."""
    lines = []
    for number, name in copy.collections.items():
        lines += [Telling(name, *given) for given in _of_collection(copy, number)]
    dates = {date for _, date in copy.files.values() if date}
    if dates:
        lines.append(Telling("", "dates of files", f"{len(dates)}", "when the store was written last"))
    lines += [
        Telling(
            "", place, _many(size, "byte"), "may hold sealed records, and index vectors, that were deleted or replaced"
        )
        for place, size in copy.leftovers.items()
    ]
    return lines


def _of_collection(copy: StoreCopy, number: int) -> Iterator[tuple[str, str, str]]:
    records, blobs = copy.rows_of("records", number), copy.rows_of("blobs", number)
    rows = records.get("row", [])
    if _NAME_KEY in copy.tables:
        yield "name of collection and tenant", "a token", "nothing: only which collections are of one tenant"
    else:
        yield "name of collection and tenant", "in clear", "whose data it is, and what for, as you named it"
    yield "records", f"{len(rows):,}", "how many there are"
    sizes = Counter(len(cell) for cell in records.get("payload", []) if cell is not None)
    if sizes:
        tells = "nothing but padded sizes" if len(sizes) > 1 else "nothing: all are equal"
        if len(sizes) > 1:
            rare = min(sizes.values())
            tells = (
                f"which records have long documents and metadata: the rarest size is that of {_many(rare, 'record')}"
            )
        yield "sizes of documents with metadata", _many(len(sizes), "size"), tells
    vectors = [cell for cell in records.get("vector", []) if cell is not None]
    if vectors:
        tells = "geometry: neighbours, clusters, and what the attacks of the lab read from them"
        yield "index vectors", f"{len(vectors):,}", tells
    else:
        yield "index vectors", "none", "nothing: no attack on vectors has anything to start from"
    yield from _terms(copy.rows_of("terms", number))
    versions = copy.rows_of("partitions", number).get("partition", [])
    yield "partitions", f"{len(versions)}", "how many key versions, and cells, records are sealed under"
    writes = _writes(copy.rows_of("changes", number))
    if writes:
        tells = "which records were written or deleted together, and in what order"
        yield "writes that are remembered", f"{len(writes)} of {min(writes):,} to {max(writes):,} records", tells
    parts = Counter(_sort(name) for name in blobs.get("name", []))
    for sort, count in parts.items():
        size = sum(len(cell) for name, cell in zip(blobs["name"], blobs["content"], strict=True) if _sort(name) == sort)
        tells = "their number and sizes, which follow counts"
        if sort == "change":
            tells = "that its scheme is being changed, how far that is, and the coordinates of index vectors to come"
        yield f"sealed parts: {sort}", f"{count:,}, {_many(size, 'byte')}", tells


def _terms(terms: Columns) -> Iterator[tuple[str, str, str]]:
    """Say what filters in the store tell: values in clear, or tokens that are equal where values are."""
    found: dict[tuple[str, str], Counter[Any]] = {}
    values = [name for name in terms if name not in ("collection", "field", "kind", "row")]
    for name, kind, *value in zip(*(terms.get(column, []) for column in ("field", "kind", *values)), strict=True):
        found.setdefault((str(name), str(kind)), Counter())[tuple(value)] += 1
    for (name, kind), counts in sorted(found.items()):
        most = max(counts.values())
        yield (
            f"filter terms of {name} ({kind})",
            f"{len(counts):,} different",
            f"which records have equal values, and how often: the most common is that of {_many(most, 'record')}",
        )


def _writes(changes: Columns) -> list[int]:
    """Return how many records each remembered write touched."""
    return [len(unpacked(bytes(cell))) for cell in changes.get("rows", []) if cell]


def _sort(name: str) -> str:
    return "index" if name.startswith("index.") else name.partition(".")[0]


def compared(before: StoreCopy, after: StoreCopy) -> list[Telling]:
    """Say what two copies of one store tell beside what each does."""
    lines = []
    old_names = before.collections
    for number, name in after.collections.items():
        if number not in old_names:
            lines.append(Telling(name, "collection", "new", "that it was created in between"))
            continue
        old, new = ({row: cells for row, *cells in _sealed(copy, number)} for copy in (before, after))
        kept = old.keys() & new.keys()
        changed = [sum(old[row][part] != new[row][part] for row in kept) for part in range(3)]
        lines += [
            Telling(name, "records added", f"{len(new.keys() - old.keys()):,}", "how many were written or updated"),
            Telling(name, "records gone", f"{len(old.keys() - new.keys()):,}", "which were deleted or updated"),
            Telling(name, "sealed anew in their place", f"{max(changed[:2]):,}", "that keys were changed, not content"),
        ]
        if any(cells[2] is not None for cells in new.values()):
            tells = "noise: two encryptions of one vector average it away" if changed[2] else "nothing new"
            lines.append(Telling(name, "index vectors encrypted anew", f"{changed[2]:,}", tells))
        tokens = [set(map(bytes, copy.rows_of("records", number).get("token", []))) for copy in (before, after)]
        lines.append(
            Telling(
                name, "ids in both", f"{len(tokens[0] & tokens[1]):,}", "which records are still, or again, under an id"
            )
        )
        parts = [_parts(copy.rows_of("blobs", number)) for copy in (before, after)]
        same = sum(parts[0].get(key) == content for key, content in parts[1].items())
        lines.append(
            Telling(
                name, "parts of the index changed", f"{len(parts[1]) - same} of {len(parts[1])}", "that it was built on"
            )
        )
    return lines


def _sealed(copy: StoreCopy, number: int) -> Iterator[Sequence[Any]]:
    records = copy.rows_of("records", number)
    none = [None] * len(records.get("row", []))
    yield from zip(*(records.get(name, none) for name in ("row", "payload", "envelope", "vector")), strict=True)


def _parts(blobs: Columns) -> dict[tuple[Any, Any], Any]:
    return {
        (name, part): content
        for name, part, content in zip(*(blobs.get(c, []) for c in ("name", "part", "content")), strict=True)
        if _sort(name) == "index"
    }


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
