"""The change table: what each write of a collection added and removed."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

import numpy as np

from ...data.arrays import Rows
from ...errors import StoreUnreachableError
from ..protocol import Changes, union
from ..ranges import ADDED, BYTES_MOST, ENTRIES_MOST, KEPT, REMOVED, entries, unpacked
from ..values import COUNT, WIDTH, integer
from .database import first_free
from .packing import ascending, numbers

__all__ = ["Done", "forget_all", "forget_some", "listed", "many", "note"]

_STATE = "SELECT generation, purged_generation, stamp, index_dim, content FROM collections WHERE id = ?"
_ENTRIES = "SELECT generation, kind, rows FROM changes WHERE collection = ? AND generation > ?"
_PARTITIONS = "SELECT partition FROM partitions WHERE collection = ? AND records > 0 LIMIT 2"
_BETWEEN = "SELECT group_concat(row){} FROM records WHERE collection = ? AND row BETWEEN ? AND ?"
_ROWS_END = (1 << 63) - 1


@dataclass
class Done:
    """What a write has done so far."""

    added: list[Rows] = field(default_factory=list)
    removed: list[Rows] = field(default_factory=list)


def note(cursor: sqlite3.Cursor, collection: int, generation: int, done: Done) -> None:
    """Note what a write did. Now and then, also delete the oldest changes."""
    noted = entries(np.sort(union(done.added)), np.sort(union(done.removed)))
    cursor.executemany(
        "INSERT INTO changes (collection, generation, kind, rows) VALUES (?, ?, ?, ?)",
        ((collection, generation, kind, rows) for kind, rows in noted.items()),
    )
    if generation % KEPT == 0:
        forget_some(cursor, collection)


def many(cursor: sqlite3.Cursor, collection: int) -> bool:
    """Say whether there are so many changes that `forget_some` is worth a write."""
    sql = "SELECT count(*), total(length(rows)) FROM changes WHERE collection = ?"
    writes, size = cursor.execute(sql, (collection,)).fetchone()
    return bool(writes > ENTRIES_MOST or size > BYTES_MOST)


def forget_some(cursor: sqlite3.Cursor, collection: int) -> None:
    """Delete old changes; delete all changes if they take much space."""
    sql = "SELECT total(length(rows)) FROM changes WHERE collection = ?"
    if cursor.execute(sql, (collection,)).fetchone()[0] > BYTES_MOST:
        forget_all(cursor, collection)
        return
    sql = "UPDATE collections SET purged_generation = max(purged_generation, generation - ?) WHERE id = ?"
    cursor.execute(sql, (KEPT, collection))
    sql = """DELETE FROM changes WHERE collection = ?1
        AND generation <= (SELECT purged_generation FROM collections WHERE id = ?1)"""
    cursor.execute(sql, (collection,))


def forget_all(cursor: sqlite3.Cursor, collection: int) -> None:
    """Delete all changes. Followers list everything the next time."""
    cursor.execute("DELETE FROM changes WHERE collection = ?", (collection,))
    cursor.execute("UPDATE collections SET purged_generation = generation WHERE id = ?", (collection,))


def listed(cursor: sqlite3.Cursor, collection: int, since: int, content: int, stamp: int | None) -> Changes | None:
    """Return what `Records.changes` returns. The cursor must be in a snapshot."""
    state = cursor.execute(_STATE, (collection,)).fetchone()
    nothing = np.empty(0, np.int64)
    if state is None:  # dropped by another process
        return Changes(since, content, 0, {}, nothing, whole=True)
    limits = (COUNT, COUNT, COUNT, WIDTH, COUNT)
    generation, purged, now, index_dim, held = (
        integer(value, "what is said of a collection", most=most) for value, most in zip(state, limits, strict=True)
    )
    known = content == held and stamp in (None, now)
    if known and since == generation:
        return None
    # the stamps of earlier generations are not kept
    known = known and stamp is None and purged <= since < generation
    changed = _changed(cursor, collection, since, generation) if known else None
    if changed is None:
        added, removed = _present(cursor, collection, 0, _ROWS_END), nothing
    else:
        came, went = changed
        added = _present(cursor, collection, int(came[0]), int(came[-1])) if len(came) else {}
        # leave out rows that were added and removed in between: the caller has never seen them
        removed = went[: np.searchsorted(went, came[0])] if len(came) else went
    next_row = first_free(cursor)
    return Changes(generation, held, now, added, removed, changed is None, next_row, index_dim)


def _changed(cursor: sqlite3.Cursor, collection: int, since: int, until: int) -> tuple[Rows, Rows] | None:
    """Return (added rows, removed rows) since a generation, or None if some changes were deleted."""
    found = cursor.execute(_ENTRIES, (collection, since)).fetchall()
    if len({generation for generation, _, _ in found}) != until - since:
        return None  # another program deleted some
    try:
        came, went = (
            unpacked(b"".join(rows for _, kind, rows in found if kind == wanted)) for wanted in (ADDED, REMOVED)
        )
    except (ValueError, TypeError):  # damaged
        return None
    return came, went


def _present(cursor: sqlite3.Cursor, collection: int, first: int, last: int) -> dict[int, Rows]:
    """Return the rows from `first` to `last` by partition. Takes one pass for any number of partitions."""
    known = cursor.execute(_PARTITIONS, (collection,)).fetchall()
    if len(known) == 1:  # mostly: then half as much is listed, in the order of the index
        rows = ascending(cursor.execute(_BETWEEN.format(""), (collection, first, last)).fetchone()[0])
        return {integer(known[0][0], "a partition"): rows} if len(rows) else {}
    sql = _BETWEEN.format(", group_concat(partition)")
    listed, theirs = cursor.execute(sql, (collection, first, last)).fetchone()
    rows, partitions = numbers(listed), numbers(theirs)
    if len(rows) != len(partitions):
        raise StoreUnreachableError("the store is damaged: a partition must be an integer")
    if not len(rows):
        return {}
    order = np.lexsort((rows, partitions))
    rows, partitions = rows[order], partitions[order]
    starts = np.flatnonzero(np.diff(partitions, prepend=partitions[0] - 1))
    return dict(zip(partitions[starts].tolist(), np.split(rows, starts[1:]), strict=True))
