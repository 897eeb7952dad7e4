"""Migrations of a store's tables, by Alembic and the scripts in `migrations/`.

    from encvec_store import migrate

    migrate.upgrade("postgresql://owner@db.example/vectors")
    print(migrate.sql("postgresql:///vectors"))  # for a DBA who runs the SQL

PostgreSQL and SQLite share one chain of revisions, numbered from 1. Every call is one transaction: it does everything
or nothing. It needs no keys, because it never opens what is sealed. It needs Alembic, from the extra `cli` or
`postgres`.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataLossError, InputError, StoreError, StoreUnreachableError, UriError
from .storage.revisions import FORMAT, REVISION, VERSION_TABLE, Migrating

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

__all__ = ["Revision", "Version", "current", "downgrade", "history", "sql", "upgrade"]

_BACKENDS = {
    "faiss": "encvec_store.storage.sqlite.migrating",
    "postgresql": "encvec_store.storage.postgres.migrating",
    "postgres": "encvec_store.storage.postgres.migrating",
    "postgresql+psycopg": "encvec_store.storage.postgres.migrating",
}


@dataclass(frozen=True)
class Revision:
    """One script of `migrations/versions`."""

    number: int
    title: str
    format: int
    """The smallest `FORMAT` of code that can use the tables after this revision."""


@dataclass(frozen=True)
class Version:
    """The revision of a store's tables, and the one that this code needs."""

    store: str
    """The URL, without secrets."""
    revision: int
    """0 if there are no tables."""
    format: int
    head: int = REVISION

    @property
    def usable(self) -> bool:
        """True if this code can use the tables."""
        return self.revision >= self.head and 1 <= self.format <= FORMAT


def current(url: str) -> Version:
    """Return the version of a store's tables. Raises UriError, StoreUnreachableError."""
    with _opened(url, write=False) as store:
        return _version(store)


def history() -> list[Revision]:
    """Return all revisions, oldest first."""
    _alembic()
    return [
        Revision(int(found.revision), found.doc.rstrip("."), found.module.min_reader)
        for found in reversed(list(_scripts(_config()).walk_revisions()))
    ]


def upgrade(url: str, revision: int | str = "head") -> tuple[Version, Version]:
    """Upgrade a store's tables to a revision, or create them. Returns the versions before and after.

    Raises:
        UriError: there is no such store or revision.
        InputError: the tables have a later revision.
        StoreLockedError: the tables were in use for longer than the lock timeout. Nothing was changed.
        StoreUnreachableError: no connection or no right; says what the owner must run. Nothing was changed.
    """
    command = _alembic()
    with _opened(url, write=True) as store:
        config, target = _adopted(store), _number(revision)
        if target < store.revision:
            raise InputError(f"{store.place} has revision {store.revision}, got {target}: use `downgrade` to go back")
        before = _version(store)
        command.upgrade(config, f"{target:04d}")
        return before, _after(store)


def downgrade(url: str, revision: int | str, *, accept_data_loss: bool = False) -> tuple[Version, Version]:
    """Take a store's tables back to an earlier revision; 0 or "base" drops them. Returns the versions before and after.

    Raises:
        DataLossError: the earlier tables have no place for some data, and `accept_data_loss` is False.
        UriError, InputError, StoreLockedError, StoreUnreachableError: as for `upgrade`.
    """
    command = _alembic()
    with _opened(url, write=True) as store:
        config, target = _adopted(store), _number(revision)
        if target > store.revision:
            raise InputError(f"{store.place} has revision {store.revision}, got {target}: use `upgrade` to go forward")
        lost = [] if accept_data_loss else _lost(store, _scripts(config), target)
        if lost:
            raise DataLossError(f"{store.place}: this would delete {', '.join(lost)}; nothing was changed")
        before = _version(store)
        command.downgrade(config, f"{target:04d}" if target else "base")
        return before, _after(store)


def sql(url: str, revision: int | str = "head", *, start: int | str = 0, with_extension: bool = False) -> str:
    """Return the SQL of an upgrade, for somebody else to run. It connects to nothing.

    Args:
        url: of a PostgreSQL store; only its option `schema` matters.
        revision: the revision after the upgrade.
        start: the revision of the tables now; 0 if there are none.
        with_extension: begin with CREATE EXTENSION, which takes a superuser.

    Raises:
        UriError: this is not a PostgreSQL store, or there is no such revision.
        InputError: `revision` is not later than `start`.
    """
    command = _alembic()
    if url.partition(":")[0] == "faiss":
        raise UriError("sql needs a PostgreSQL store, got a faiss: store: upgrade that with `encvec db upgrade`")
    first, last = _number(start), _number(revision)
    if first >= last:
        raise InputError(f"the revision must be later than {first}, got {last}: there is nothing to do")
    backend = _backend(url)
    buffer = io.StringIO()
    schema = backend.schema_of(url)
    config = _config(schema=schema, output=buffer)
    config.attributes["before"] = backend.offline(schema, start=first, with_extension=with_extension)
    command.upgrade(config, f"{f'{first:04d}' if first else 'base'}:{last:04d}", sql=True)
    return buffer.getvalue()


def _opened(url: str, *, write: bool) -> AbstractContextManager[Migrating]:
    opened: Callable[..., AbstractContextManager[Migrating]] = _backend(url).opened
    return opened(url, write=write)


def _backend(url: str) -> Any:
    scheme = url.partition(":")[0]
    if scheme not in _BACKENDS:
        raise UriError(f"a {scheme or '?'}: store has no tables to migrate")
    importlib.import_module(
        _BACKENDS[scheme].rpartition(".")[0]
    )  # the package first: its error names what is not installed
    return importlib.import_module(_BACKENDS[scheme])


def _folder() -> Path:
    """Return the folder of the scripts: inside the package in a wheel, beside it in a checkout."""
    package = Path(str(resources.files("encvec_store")))
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def _alembic() -> Any:
    """Return Alembic's commands. Raises StoreError if it is not installed."""
    try:
        return importlib.import_module("alembic.command")
    except ImportError:
        raise StoreError("migrations need Alembic: pip install 'encvec-store[cli]'") from None


def _config(*, schema: str | None = None, output: io.StringIO | None = None) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["schema"] = schema
    return config


def _scripts(config: Config) -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(config)


def _number(revision: int | str) -> int:
    """Return the number of a revision. Raises UriError."""
    numbers = [0, *(found.number for found in history())]
    names = {"head": numbers[-1], "base": 0}
    found = names[str(revision)] if revision in names else int(revision) if str(revision).isdecimal() else -1
    if found not in numbers:
        raise UriError(f"the revision must be {', '.join(map(str, numbers))} or head, got {revision!r}")
    return found


def _adopted(store: Migrating) -> Config:
    """Return Alembic's configuration for a store. Raises StoreUnreachableError.

    All code reads the revision in `meta`. Alembic keeps a table of its own too, which `connect` does not make: it is
    made here.
    """
    from alembic.migration import MigrationContext

    config = _config(schema=store.schema)
    config.attributes["connection"] = store.connection
    scripts = _scripts(config)
    known = {int(found.revision) for found in scripts.walk_revisions()}
    if store.meta is not None and store.revision not in known:
        raise StoreUnreachableError(
            f"{store.place} has tables of revision {store.revision}, which this version of encvec_store does not know:"
            " install a newer version"
        )
    options = {"version_table": VERSION_TABLE, "version_table_schema": store.schema}
    notes = MigrationContext.configure(store.connection, opts=options)
    wanted = (f"{store.revision:04d}",) if store.revision else ()
    if wanted and not notes.get_current_heads():
        notes.stamp(scripts, *wanted)
    if notes.get_current_heads() != wanted:
        raise StoreUnreachableError(
            f"{store.place}: the table {VERSION_TABLE} must have revision {store.revision}, as meta does"
        )
    return config


def _at(store: Migrating) -> str:
    """Return the prefix of table names: the quoted schema and a dot, or nothing."""
    return f"{store.connection.dialect.identifier_preparer.quote(store.schema)}." if store.schema else ""


def _lost(store: Migrating, scripts: ScriptDirectory, target: int) -> list[str]:
    """Count what a downgrade would delete, by the queries that each revision lists in `loses`."""
    from sqlalchemy import text

    at = _at(store)
    if at and store.revision:  # every write updates a row of it, so this keeps writes out
        store.connection.execute(text(f"LOCK TABLE {at}collections IN EXCLUSIVE MODE"))
    lost = []
    for found in scripts.walk_revisions():
        if target < int(found.revision) <= store.revision:
            for what, query in found.module.loses.items():
                n = store.connection.execute(text(query.format(at=at))).scalar_one()
                lost += [f"{n} {what}"] if n else []
    return lost


def _after(store: Migrating) -> Version:
    from sqlalchemy import inspect, text

    meta = None
    if inspect(store.connection).has_table("meta", schema=store.schema):
        rows = store.connection.execute(text(f"SELECT name, value FROM {_at(store)}meta")).all()  # noqa: S608
        meta = {row[0]: row[1] for row in rows}
    return _version(Migrating(store.connection, store.place, store.schema, meta))


def _version(store: Migrating) -> Version:
    return Version(store.place, store.revision, (store.meta or {}).get("format", 0))
