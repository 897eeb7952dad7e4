"""Shared by the tests of migrations: known records, one more revision, and dumps of catalogs."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import psycopg

import encvec_store as ev
from encvec_store import migrate

DATA = Path(__file__).resolve().parents[1] / "migrations/data"
KEYS_VARIABLE = "ENCVEC_TEST_MIGRATIONS_KEYSET"
DIM, N = 8, 24
FIELDS = {"lang": "blind", "n": "plain", "*": "sealed"}
COLLECTIONS = {  # (tenant, name): how it is made
    ("acme", "things"): {"metric": "cosine", "scheme": {"name": "sap", "beta": 1.0}, "fields": FIELDS},
    ("", "quiet"): {"metric": "l2", "scheme": "sealed", "max_norm": 10.0},
}


def records(seed=0, n=N):
    """Return (ids, vectors, metadata, documents). They never change, whatever versions are installed."""
    whole = (np.arange(n * DIM, dtype=np.int64) * 7919 + 104729 * seed + 17) % 1009 - 504
    vectors = (whole / 512).astype(np.float32).reshape(n, DIM)
    metadata = [{"lang": ["de", "fr", "en"][i % 3], "n": i, "when": f"day {i}"} for i in range(n)]
    return [f"{seed}-{i}" for i in range(n)], vectors, metadata, [f"text {seed} {i}" for i in range(n)]


def fill(store):
    """Create both collections, with an update and a deletion."""
    for (tenant, name), how in COLLECTIONS.items():
        things = store.collection(name, dim=DIM, tenant=tenant, **how)
        things.upsert(*records(seed=1))
        things.upsert(*records())
        things.upsert(*(part[:3] for part in records()))
        things.delete([f"1-{i}" for i in range(N)])
        things.search(np.ones(DIM))
        things.flush()


def check(store):
    """Find everything that `fill` left, and nothing else, by every method."""
    ids, vectors, metadata, documents = records()
    assert store.collections() == sorted(COLLECTIONS)
    for (tenant, name), how in COLLECTIONS.items():
        things = store.collection(name, tenant=tenant)
        assert things.verify().ok
        assert things.count() == N
        found = {hit.id: hit for hit in things.get(ids)}
        assert [found[id].metadata for id in ids] == metadata
        assert [found[id].document for id in ids] == documents
        for where, kept in (({"lang": "de"}, range(0, N, 3)), ({"n": {"lt": 5}}, range(5)), (None, range(N))):
            hits = things.search(vectors[4], k=N, where=where)
            assert {hit.id for hit in hits} == {ids[i] for i in kept}, where
        best = things.search(vectors[4], k=1)[0]
        assert best.id == ids[4]
        np.testing.assert_allclose(best.score, 1.0 if how["metric"] == "cosine" else 0.0, atol=1e-3)


def write_on(store):
    """Write, update and delete, so that `check` holds again at the end."""
    for tenant, name in COLLECTIONS:
        things = store.collection(name, tenant=tenant)
        things.upsert(*records(seed=7))
        assert things.count() == 2 * N
        assert things.search(records(seed=7)[1][0], k=1, where={"lang": "de"})[0].id == "7-0"
        assert things.delete(records(seed=7)[0]) == N
        things.upsert(*records())


def keyset():
    """Open the keyset of the test data. It has no other use."""
    return ev.Keyset.open(f"env:{KEYS_VARIABLE}")


# ---------------------------------------------------------------------------------------------- a later revision

NEXT = '''"""A table and two columns more, for tests."""

import os
import signal

import sqlalchemy as sa
from alembic import op

from encvec_store.storage.postgres.tables import on_each_content

revision = "{revision:04d}"
down_revision = "{before:04d}"
min_reader = {min_reader}
loses = {{"notes": "SELECT count(*) FROM {{at}}notes"}}


def upgrade():
    schema = op.get_context().version_table_schema
    op.create_table(
        "notes",
        sa.Column("collection", sa.BigInteger(), sa.ForeignKey((schema + "." if schema else "") + "collections.id")),
        sa.Column("note", sa.LargeBinary()),
        schema=schema,
    )
    op.add_column("collections", sa.Column("colour", sa.Text(), nullable=True), schema=schema)
    if os.environ.get("ENCVEC_TEST_DIE"):
        os.kill(os.getpid(), signal.SIGKILL)
    op.add_column("records", sa.Column("weight", sa.Integer(), server_default="1", nullable=False), schema=schema)


def downgrade():
    schema = op.get_context().version_table_schema
    for table, column in (("records", "weight"), ("collections", "colour")):
        op.drop_column(table, column, schema=schema)
    if schema is not None:
        op.execute(on_each_content(schema, "records", "ALTER TABLE %s DROP COLUMN IF EXISTS weight"))
    op.drop_table("notes", schema=schema)
'''


def add_revision(folder: Path, *, min_reader=1):
    """Copy the scripts to a folder and add one revision. Returns its number."""
    before = migrate.history()[-1].number
    shutil.copytree(migrate._folder(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = NEXT.format(revision=before + 1, before=before, min_reader=min_reader)
    (folder / "versions" / f"{before + 1:04d}_for_tests.py").write_text(text, encoding="utf-8")
    return before + 1


def edit(folder: Path, old: str, new: str):
    """Change the script of the added revision."""
    (script,) = (folder / "versions").glob("*for_tests.py")
    text = script.read_text(encoding="utf-8")
    assert old in text
    script.write_text(text.replace(old, new), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------- catalogs

_CATALOG = """
SELECT 'relation', c.relname, format('%s %s %s', c.relkind, c.reloptions, obj_description(c.oid, 'pg_class'))
    FROM pg_class c WHERE c.relnamespace = 'encvec'::regnamespace
UNION ALL SELECT 'column', c.relname, format('%s %s %s notnull=%s identity=%s storage=%s statistics=%s %s %s',
    a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attstorage,
    a.attstattarget, (SELECT collname FROM pg_collation l WHERE l.oid = a.attcollation),
    pg_get_expr(d.adbin, d.adrelid))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'encvec'::regnamespace AND c.relkind = 'r'
UNION ALL SELECT 'constraint', conrelid::regclass::text, format('%s %s', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'encvec'::regnamespace
UNION ALL SELECT 'index', indrelid::regclass::text, pg_get_indexdef(indexrelid)
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'encvec'::regnamespace
UNION ALL SELECT 'sequence', sequencename, format('%s %s %s %s', data_type, start_value, increment_by, cycle)
    FROM pg_sequences WHERE schemaname = 'encvec'
UNION ALL SELECT 'inherits', inhrelid::regclass::text, inhparent::regclass::text
    FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE c.relnamespace = 'encvec'::regnamespace
ORDER BY 1, 2, 3
"""


def catalog(place):
    """Return everything that defines the tables of a store, without Alembic's own table."""
    if isinstance(place, Path):
        connection = sqlite3.connect(place / "records.sqlite3")
        try:
            found = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2").fetchall()
            found += [
                (name, *connection.execute(f"PRAGMA {name}").fetchone()) for name in ("page_size", "journal_mode")
            ]
            found += connection.execute("SELECT name, value FROM meta ORDER BY 1").fetchall()
        finally:
            connection.close()
        found = [tuple(" ".join(part.split()) if isinstance(part, str) else part for part in row) for row in found]
    else:
        with psycopg.connect(place) as connection:
            found = connection.execute(_CATALOG).fetchall()
            found += connection.execute("SELECT name, value FROM encvec.meta ORDER BY 1").fetchall()
    return [row for row in found if "schema_revision" not in str(row)]
