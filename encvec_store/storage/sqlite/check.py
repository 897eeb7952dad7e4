"""Look for damage that can be seen without keys."""

from __future__ import annotations

from ..protocol import CollectionSpec
from .database import Database

__all__ = ["check_records"]

_FIRST = 10
_COUNTS = {
    "records have no vector": "FROM records WHERE collection = :collection AND row NOT IN (SELECT row FROM vectors)",
    "records have no index vector": "FROM records WHERE collection = :collection AND :index_bytes > 0"
    " AND row NOT IN (SELECT row FROM index_vectors)",
    "vectors have a wrong length": "FROM vectors JOIN records USING (row)"
    " WHERE collection = :collection AND length(envelope) != :envelope_size",
    "index vectors have a wrong length": "FROM index_vectors JOIN records USING (row)"
    " WHERE collection = :collection AND length(vector) NOT IN (:index_bytes, :index_bytes / 2)",
    "tokens have a wrong length": "FROM records WHERE collection = :collection AND length(token) != 16",
    "rows were never given out": "FROM records WHERE collection = :collection AND row >="
    " (SELECT value FROM meta WHERE name = 'next_row')",
    "partitions are miscounted": "FROM partitions LEFT JOIN (SELECT partition, count(*) AS n FROM records"
    " WHERE collection = :collection GROUP BY partition) USING (partition)"
    " WHERE collection = :collection AND records != coalesce(n, 0)",
    "partitions are not counted": "FROM (SELECT DISTINCT partition FROM records WHERE collection = :collection)"
    " WHERE partition NOT IN (SELECT partition FROM partitions WHERE collection = :collection)",
    "filter terms belong to no record": "FROM terms WHERE collection = :collection"
    " AND row NOT IN (SELECT row FROM records WHERE collection = :collection)",
    "changes are not ranges of rows": "FROM changes WHERE collection = :collection"
    " AND (typeof(rows) != 'blob' OR length(rows) % 16 != 0 OR kind NOT IN (0, 1))",
    "vectors belong to no record": "FROM vectors WHERE row NOT IN (SELECT row FROM records)",
    "index vectors belong to no record": "FROM index_vectors WHERE row NOT IN (SELECT row FROM records)",
}


def check_records(database: Database, collection: int, spec: CollectionSpec) -> list[str]:
    """Return descriptions of damage, or an empty list. Reads the whole file."""
    values = {
        "collection": collection,
        "index_bytes": 4 * spec.index_dim,
        "envelope_size": spec.envelope_size,
    }
    with database.snapshot() as cursor:
        told = [line for (line,) in cursor.execute(f"PRAGMA integrity_check({_FIRST})").fetchall()]
        damage = [f"{database.path.name}: {line}" for line in told if line != "ok"]
        for what, source in _COUNTS.items():
            (n,) = cursor.execute(f"SELECT count(*) {source}", values).fetchone()
            if n:
                damage.append(f"{n} {what}")
    return damage
