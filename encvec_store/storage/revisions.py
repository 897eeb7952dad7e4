"""Which tables this code makes and which it can use.

Every store's `meta` says two numbers. `revision` is the newest of the scripts in `migrations/versions` that its tables
have been through. `format` is the least `FORMAT` of a code that can still read and write them: a revision that only
adds leaves it as it is, so that older code goes on beside newer. `docs/decisions/0013` has the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import StoreUnreachableError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["FORMAT", "REVISION", "VERSION_TABLE", "Migrating", "judge"]

FORMAT = 1
"""Newest format that this code reads and writes."""
REVISION = 1
"""What this code creates, and the least that it needs."""
VERSION_TABLE = "schema_revision"
"""Alembic's own notes. Only migrations read and write it: they keep it and `meta` alike."""


@dataclass(frozen=True)
class Migrating:
    """A store's database in a transaction of its own, for migrations."""

    connection: Connection
    place: str
    """Its URL, without secrets."""
    schema: str | None
    """Where the tables are; None in SQLite."""
    meta: dict[str, int] | None
    """What `meta` says; None where there are no tables yet."""

    @property
    def revision(self) -> int:
        """That the tables are of; 0 where there are none, or none of ours."""
        return 0 if self.meta is None else self.meta.get("revision", 0)


def judge(place: str, meta: dict[str, int]) -> None:
    """Check that this code can use tables whose `meta` says this.

    Raises:
        StoreUnreachableError: they are too new or too old; says what to do.
    """
    written = f"format {meta['format']}" if "format" in meta else "an unknown format"
    if not 1 <= meta.get("format", 0) <= FORMAT:
        raise StoreUnreachableError(
            f"{place} has {written}; this version of encvec_store reads up to {FORMAT}: upgrade it"
        )
    revision = meta.get("revision", 0)
    if revision < REVISION:
        raise StoreUnreachableError(
            f"{place} has tables of revision {revision}; this version of encvec_store needs {REVISION}:"
            " run `encvec db upgrade` (pip install 'encvec-store[cli]')"
        )
