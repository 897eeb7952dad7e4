"""Which tables this version creates, and which it can use.

Every store keeps two numbers in `meta`. `revision` is the newest script of `migrations/versions` that was run on its
tables. `format` is the smallest `FORMAT` of the code that can still read and write them. A revision that only adds does
not change it, so that older code works beside newer code. `docs/decisions/0013` has the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import StoreUnreachableError
from .values import integer

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["FORMAT", "REVISION", "VERSION_TABLE", "Migrating", "judge"]

FORMAT = 1
"""The newest format that this code reads and writes."""
REVISION = 1
"""The revision that this code creates, and the smallest that it can use."""
VERSION_TABLE = "schema_revision"
"""The table in which Alembic keeps its revision. Only migrations use it; they keep it in step with `meta`."""


@dataclass(frozen=True)
class Migrating:
    """A store's database, in a transaction of its own, for migrations."""

    connection: Connection
    place: str
    """Its URL, without secrets."""
    schema: str | None
    """The schema of the tables; None in SQLite."""
    meta: dict[str, int] | None
    """The content of `meta`; None if there are no tables yet."""

    @property
    def revision(self) -> int:
        """The revision of the tables; 0 if there are none, or none of ours."""
        return 0 if self.meta is None else self.meta.get("revision", 0)


def judge(place: str, meta: dict[str, int]) -> None:
    """Check that this code can use tables with this `meta`.

    Raises:
        StoreUnreachableError: they are too new or too old. It says what to do.
    """
    for name in ("format", "revision"):
        integer(meta.get(name, 0), f"the {name} of the tables of {place}")
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
