"""What `import` and `export` share: databases in clear, and what remains of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import click

from ..runtime.urls import holds_password
from ..transfer import ChromaSource, ImportSource, LanceSource, QdrantSource
from ..transfer.folder import FolderSource
from .common import Failure

__all__ = ["checked_table", "folder_of", "is_url", "remains"]

_FOLDERS: dict[str, type[FolderSource]] = {each.kind: each for each in (ChromaSource, QdrantSource, LanceSource)}


def is_url(place: str) -> bool:
    """Say whether it names a database."""
    return re.match(r"postgres(ql)?(\+\w+)?:", place, re.IGNORECASE) is not None


def folder_of(place: str) -> Callable[..., ImportSource] | None:
    """Return what opens `chroma:FOLDER`, `qdrant:FOLDER` or `lancedb:FOLDER`, given table and columns."""
    kind, colon, path = place.partition(":")
    return partial(_FOLDERS[kind], path) if colon and kind in _FOLDERS else None


def checked_table(url: str, table_name: str | None) -> str:
    """Return the name of the table, once the URL is fit to be seen and there is a driver."""
    if holds_password(url):
        raise click.UsageError(
            "a password on the command line can be seen by others: put it in a password file (PGPASSFILE, ~/.pgpass), "
            "a service, or PGPASSWORD"
        )
    if table_name is None:
        raise click.UsageError("which table? --table SCHEMA.TABLE")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise Failure("ImportError", f"{error.name} is not installed: pip install 'encvec-store[postgres]'") from None
    return table_name


def remains(name: str, *, in_table: bool) -> None:
    """Tell that the plaintext still exists, and how to remove it."""
    click.echo(f"\nThe plaintext is still there: {name}.")
    if in_table:
        click.echo(
            "When your application uses the encrypted collection, and you have tried to restore it from a backup:\n"
            f"  DROP TABLE {name};    or, to keep the rest: ALTER TABLE ... DROP COLUMN ..., then VACUUM FULL {name};\n"
            "Replicas follow. Archived WAL, base backups, dumps and disk snapshots from before hold the vectors in\n"
            "clear until you delete them."
        )
    else:
        click.echo("Delete it, its copies and its backups when your application uses the encrypted collection.")
