"""Migrations of a store's tables, by Alembic and the scripts in `migrations/`.

    from encvec_store import migrate

    migrate.upgrade("postgresql://owner@db.example/vectors")
    print(migrate.sql("postgresql:///vectors"))  # for a DBA who runs it himself

One chain of revisions, numbered from 1, serves PostgreSQL and SQLite. Every call is one transaction: all of it or
nothing. No keys are needed: only the outside of what is stored is ever moved. Needs Alembic, from the extra `cli` or
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
    """A script of `migrations/versions`."""

    number: int
    title: str
    format: int
    """The least `FORMAT` of a code that can use the tables after it."""


@dataclass(frozen=True)
class Version:
    """What a store's tables are, beside what this code needs."""

    store: str
    """The URL, without secrets."""
    revision: int
    """0 where there are no tables."""
    format: int
    head: int = REVISION

    @property
    def usable(self) -> bool:
        """Say whether this code can use the tables."""
        return self.revision >= self.head and 1 <= self.format <= FORMAT


def current(url: str) -> Version:
    """Return what a store's tables are. Raises UriError, StoreUnreachableError."""
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
    """Bring a store's tables up to a revision, making them where there are none; what they were, and are.

    Raises:
        UriError: no such store or revision.
        InputError: the tables are of a later revision than that.
        StoreLockedError: somebody uses the tables, for longer than the lock timeout. Nothing was changed.
        StoreUnreachableError: no connection, or no right to; says what the owner must run. Nothing was changed.
    """
    command = _alembic()
    with _opened(url, write=True) as store:
        config, target = _adopted(store), _number(revision)
        if target < store.revision:
            raise InputError(f"{store.place} is of revision {store.revision} already: `downgrade` goes back")
        before = _version(store)
        command.upgrade(config, f"{target:04d}")
        return before, _after(store)


def downgrade(url: str, revision: int | str, *, accept_data_loss: bool = False) -> tuple[Version, Version]:
    """Bring a store's tables back to an earlier revision, 0 or "base" being none; what they were, and are.

    Raises:
        DataLossError: data that the earlier tables have no place for would be lost, and that was not accepted.
        UriError, InputError, StoreLockedError, StoreUnreachableError: as for `upgrade`.
    """
    command = _alembic()
    with _opened(url, write=True) as store:
        config, target = _adopted(store), _number(revision)
        if target > store.revision:
            raise InputError(f"{store.place} is of revision {store.revision}: `upgrade` goes forward")
        lost = [] if accept_data_loss else _lost(store, _scripts(config), target)
        if lost:
            raise DataLossError(f"{store.place}: this would delete {', '.join(lost)}; nothing was changed")
        before = _version(store)
        command.downgrade(config, f"{target:04d}" if target else "base")
        return before, _after(store)


def sql(url: str, revision: int | str = "head", *, start: int | str = 0, with_extension: bool = False) -> str:
    """Return the SQL of an upgrade, for whoever runs it instead of us; nobody is asked, so no server is needed.

    Args:
        url: of a PostgreSQL store; only its option `schema` matters.
        revision: where to go.
        start: where the tables are; 0, not there yet.
        with_extension: begin with CREATE EXTENSION, which takes a superuser.

    Raises:
        UriError: no PostgreSQL store, or no such revision.
        InputError: there is nothing between the two.
    """
    command = _alembic()
    if url.partition(":")[0] == "faiss":
        raise UriError("sql is for PostgreSQL: nobody but `encvec db upgrade` changes the file of a faiss: store")
    first, last = _number(start), _number(revision)
    if first >= last:
        raise InputError(f"there is nothing to do from revision {first} to {last}")
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
    importlib.import_module(_BACKENDS[scheme].rpartition(".")[0])  # the package first: it says what it lacks
    return importlib.import_module(_BACKENDS[scheme])


def _folder() -> Path:
    """Where the scripts are: inside the package in a wheel, beside it in a checkout."""
    package = Path(str(resources.files("encvec_store")))
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parent / "migrations"


def _alembic() -> Any:
    """Return Alembic's commands. Raises StoreError where it is not installed."""
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
    """Return the number of a revision that was asked for. Raises UriError."""
    numbers = [0, *(found.number for found in history())]
    names = {"head": numbers[-1], "base": 0}
    found = names[str(revision)] if revision in names else int(revision) if str(revision).isdecimal() else -1
    if found not in numbers:
        raise UriError(f"no revision {revision!r}; there are {', '.join(map(str, numbers))} and head")
    return found


def _adopted(store: Migrating) -> Config:
    """Return Alembic's configuration for a store, after bringing its notes in line with `meta`.

    They are missing where `connect` made the tables, and `meta` is what every code reads.
    """
    from alembic.migration import MigrationContext

    config = _config(schema=store.schema)
    config.attributes["connection"] = store.connection
    scripts = _scripts(config)
    known = {int(found.revision) for found in scripts.walk_revisions()}
    if store.meta is not None and store.revision not in known:
        raise StoreUnreachableError(
            f"{store.place} has tables of revision {store.revision}, which this version of encvec_store does not know:"
            " upgrade it"
        )
    options = {"version_table": VERSION_TABLE, "version_table_schema": store.schema}
    notes = MigrationContext.configure(store.connection, opts=options)
    wanted = (f"{store.revision:04d}",) if store.revision else ()
    if wanted and not notes.get_current_heads():
        notes.stamp(scripts, *wanted)
    if notes.get_current_heads() != wanted:
        raise StoreUnreachableError(
            f"{store.place}: {VERSION_TABLE} does not agree with meta, which says revision {store.revision}"
        )
    return config


def _at(store: Migrating) -> str:
    """Return what stands before a table's name."""
    return f"{store.connection.dialect.identifier_preparer.quote(store.schema)}." if store.schema else ""


def _lost(store: Migrating, scripts: ScriptDirectory, target: int) -> list[str]:
    """Count what a downgrade would lose, by what each revision says of itself."""
    from sqlalchemy import text

    at = _at(store)
    if at and store.revision:  # every write updates a row of this: none may come in between
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
