"""The longer statements of `SqliteRecords`."""

from __future__ import annotations

__all__ = [
    *("AUDIT", "BYTES", "COUNT", "ENVELOPES", "INDEX_VECTORS", "KNOWN", "PAYLOADS", "PLACES"),
    *("ROWS", "ROWS_OF", "SIZES", "TERMS", "THERE", "WITH_PAYLOADS"),
]

# Rows of other collections are left out. The plus in `+collection` stops SQLite from using the index on the collection.
THESE = "FROM records WHERE row IN (SELECT value FROM json_each(?)) AND +collection = ?"
COUNT = f"SELECT count(*) {THESE}"
PLACES = f"SELECT row, partition {THESE}"
THERE = f"SELECT row, x'' {THESE}"
PAYLOADS = f"SELECT row, payload {THESE}"
SIZES = f"SELECT row, coalesce(length(payload), 0) {THESE}"
AUDIT = f"SELECT row, partition, token {THESE}"
TERMS = "SELECT row, field, kind, value FROM terms WHERE row IN (SELECT value FROM json_each(?)) AND +collection = ?"
ENVELOPES = f"SELECT row, envelope FROM vectors WHERE row IN (SELECT row {THESE})"  # noqa: S608
# A row is one of the whole file, so those that a follower of this collection knows need not be looked up in records.
KNOWN = "SELECT row, envelope FROM vectors WHERE row IN (SELECT value FROM json_each(?)) AND ?"
WITH_PAYLOADS = (
    "SELECT v.row, v.envelope, CASE WHEN length(r.payload) <= ? THEN r.payload END,"
    " (SELECT generation FROM collections WHERE id = ?)"
    " FROM vectors v LEFT JOIN records r ON r.row = v.row WHERE v.row IN ({})"
)
INDEX_VECTORS = f"SELECT row, vector FROM index_vectors WHERE row IN (SELECT row {THESE})"  # noqa: S608
ROWS = """SELECT group_concat(row) FROM (
    SELECT row FROM records WHERE collection = ? AND row > ? ORDER BY row LIMIT ?)"""
ROWS_OF = """SELECT group_concat(row) FROM (SELECT row FROM records WHERE collection = ? AND row > ?
    AND partition IN (SELECT value FROM json_each(?)) ORDER BY row LIMIT ?)"""
BYTES = (
    "SELECT coalesce(sum(length(token) + length(payload)), 0) FROM records WHERE collection = ?",
    "SELECT coalesce(sum(length(envelope)), 0) FROM vectors JOIN records USING (row) WHERE collection = ?",
    "SELECT coalesce(sum(length(vector)), 0) FROM index_vectors JOIN records USING (row) WHERE collection = ?",
    "SELECT coalesce(sum(length(value)), 0) FROM terms WHERE collection = ?",
    "SELECT coalesce(sum(length(content)), 0) FROM blobs WHERE collection = ?",
)
