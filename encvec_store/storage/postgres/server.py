"""What the store has learned of the database, above all of the extension pgvector.

Only collections whose vectors the server ranks need the extension. It is asked for when such a collection is created,
so that a store of sealed collections works on a plain PostgreSQL.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg

from ...errors import StoreUnreachableError
from .faults import explained, is_lost
from .names import Names
from .source import Cursor, Source

__all__ = ["LOCK", "Pgvector", "Server"]

LOCK = 0x656E63766563
"""The advisory lock that is held while schema or extension are created, or tables migrated."""
_NEEDED = (0, 8, 0)
_SOUND = (0, 8, 4)
_PARALLEL = (0, 8, 2)
_FIND = (
    b"SELECT n.nspname, e.extversion, to_regtype(format('%I.vector', n.nspname))::oid::bigint,"
    b" to_regtype(format('%I.halfvec', n.nspname))::oid::bigint"
    b" FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
)
_CREATE = b"CREATE EXTENSION IF NOT EXISTS vector"


@dataclass(frozen=True)
class Pgvector:
    """The extension as it is installed in a database."""

    schema: str
    version: tuple[int, ...]
    vector_oid: int
    halfvec_oid: int

    def __str__(self) -> str:
        return ".".join(map(str, self.version))


@dataclass
class Server:
    """What the store has learned of the database."""

    names: Names
    row_security: str = "off"
    """on, off, or bypassed: the role is a superuser or has BYPASSRLS, so that no policy applies to it."""
    pgvector: Pgvector | None = None
    """None if the database had no extension when we last looked."""

    @property
    def parallel(self) -> bool:
        """True if indexes may be built in parallel; before pgvector 0.8.2 that could corrupt them."""
        return self.pgvector is not None and self.pgvector.version >= _PARALLEL

    def look(self, cursor: Cursor) -> None:
        """Look for the extension: it may have been created, moved or dropped since."""
        found = cursor.execute(_FIND).fetchone()
        known = self.pgvector
        self.pgvector = None if found is None else Pgvector(found[0], _version(found[1]), found[2] or 0, found[3] or 0)
        if self.pgvector is None:
            return
        self.names.find_extension(self.pgvector.schema)
        if _NEEDED <= self.pgvector.version < _SOUND and (known is None or known.version != self.pgvector.version):
            warnings.warn(
                f"pgvector {self.pgvector} has defects that may damage indexes; upgrade the server's to 0.8.4 or later",
                RuntimeWarning,
                stacklevel=6,
            )

    def require(self, cursor: Cursor, source: Source, name: str) -> None:
        """Find the extension for a collection of that name; create it if it is missing and the options allow that.

        Raises:
            StoreUnreachableError: it is missing and cannot be created, or it is too old.
        """
        self.look(cursor)
        if self.pgvector is None:
            _create(cursor, source, name)
            self.look(cursor)
        self.check(source.place, name)

    def check(self, place: str, name: str) -> None:
        """Raise StoreUnreachableError if the extension, as it was last seen, is missing or too old for a collection."""
        if self.pgvector is None:
            raise _missing(place, name, "")
        if self.pgvector.version < _NEEDED:
            raise StoreUnreachableError(
                f"collection {name!r} needs pgvector 0.8.0 or later, and {place} has pgvector {self.pgvector}:"
                " install a later one on the server, then run ALTER EXTENSION vector UPDATE"
            )


def _create(cursor: Cursor, source: Source, name: str) -> None:
    if not source.options.create:
        raise _missing(source.place, name, "")
    try:
        cursor.execute(b"SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        cursor.execute(_CREATE)
    except (pg.FeatureNotSupported, pg.UndefinedFile):
        why = " (it is not installed on the server; packages are called like postgresql-17-pgvector)"
        raise _missing(source.place, name, why) from None
    except pg.InsufficientPrivilege:
        raise _missing(source.place, name, " (this role may not create it)") from None
    except psycopg.Error as error:
        if is_lost(error):
            raise
        raise _missing(source.place, name, f" ({explained(error, 'write to', source.place)})") from None


def _missing(place: str, name: str, why: str) -> StoreUnreachableError:
    return StoreUnreachableError(
        f"collection {name!r} needs the extension pgvector, which {place} lacks{why}: let a superuser run CREATE"
        ' EXTENSION vector there, or use scheme="sealed", which needs no extension'
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
