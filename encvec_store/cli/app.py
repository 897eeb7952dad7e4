"""The group of commands, and the one place where an error becomes a line and an exit code."""
# ruff: noqa: D301 - for click, a line of \b keeps the next lines as they are

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import click

from .. import __version__
from ..errors import EncvecError
from ..runtime.urls import scrubbed
from . import admin, data, keys
from .bench import bench
from .calibrate import calibrate
from .common import Failure, Interrupted, help_if_alone
from .db import db
from .export import export
from .group import Commands
from .import_ import import_
from .ingest import ingest
from .leakage import leakage
from .maintain import maintain, refit
from .output import note, printable
from .rekey import rekey
from .scheme import scheme
from .tenant import tenant
from .update import update

__all__ = ["cli", "run", "warnings_as_notes"]

FINE, BAD_ANSWER, NOT_DONE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


class _Commands(Commands):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click would make exit code 1, a bad answer, of a reader that has gone."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return _hush()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="encvec", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Keep embeddings encrypted, and search them like a vector database.

    What is stored is ciphertext; keys stay in a key file of yours, wrapped by a passphrase.

    \b
    A first walk, in an empty folder:
      encvec init                                   make keys.json and store/
      encvec ingest docs embeddings.parquet         encrypt and store a file
      encvec search docs --vector-file query.npy    the 10 nearest, with exact scores
      encvec calibrate docs --target-recall 0.99    the most noise that keeps the recall
      encvec verify                                 check every record

    \b
    Where things are (before or after the command):
      --dir DIR    or ENCVEC_DIR    folder that `encvec init` made [default: .]
      --store URL  or ENCVEC_STORE  another store: faiss:///srv/vectors,
                                    postgresql://app@db/vectors
      --keys URI   or ENCVEC_KEYS   another keyset: file:/etc/encvec/keys.json

    The passphrase is never an option, since other users see command lines. It is taken from

    \b
      ENCVEC_PASSPHRASE_FILE    a file that holds it (best for jobs)
      ENCVEC_PASSPHRASE         the environment
      a prompt                  on a terminal

    Every command takes --json: one JSON document (or one a line, where there are many) on stdout, and an error as a
    JSON object on stderr. ENCVEC_DEBUG=1 adds the traceback.

    \b
    Exit codes:
      0  fine
      1  it ran, and the answer is bad: verify found damage, calibrate missed its target,
         leakage identified records, get does not know an id, you answered no
      2  not done, or not all of it: usage, input, keys, store
      130 interrupted; 141 the reader of a pipe has gone
    """
    help_if_alone(context)


for command in (
    admin.init,
    keys.keys,
    ingest,
    import_,
    export,
    data.search,
    data.get,
    update,
    data.delete,
    data.count,
    admin.collections,
    admin.stats,
    calibrate,
    maintain,
    refit,
    scheme,
    rekey,
    admin.verify,
    admin.drop,
    tenant,
    bench,
    leakage,
    db,
):
    cli.add_command(command)


def run(args: Sequence[str] | None = None, command: click.Command = cli, name: str = "encvec") -> int:
    """Run one command line and return its exit code. Other programs of ours fail as `encvec` does, by giving theirs."""
    arguments = list(sys.argv[1:] if args is None else args)
    as_json = "--json" in (arguments[: arguments.index("--")] if "--" in arguments else arguments)
    _prepare()
    try:
        code = command.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else FINE
    except BrokenPipeError:
        return _hush()
    except Exception as error:
        if os.environ.get("ENCVEC_DEBUG") == "1":
            traceback.print_exc()
        code, report = _explain(error)
        _tell(report, as_json, name)
        return code


def _hush() -> int:
    """The reader has gone, as in `encvec get ... | head`: the interpreter's own flush at exit must not fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _explain(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return an error's exit code and what to tell of it."""
    match error:
        case click.Abort():
            note = error if isinstance(error, Interrupted) else None
            return INTERRUPTED, {"type": "Interrupted", "message": "interrupted", **(note.details if note else {})}
        case Failure():
            return NOT_DONE, {"type": error.kind, "message": str(error), **error.details}
        case click.UsageError():
            context = error.ctx
            hint = f" (see `{context.command_path} --help`)" if context else ""
            return NOT_DONE, {"type": "UsageError", "message": error.format_message().rstrip(".") + hint}
        case click.ClickException():
            return NOT_DONE, {"type": "UsageError", "message": error.format_message()}
        case EncvecError():
            return NOT_DONE, {"type": type(error).__name__, "message": str(error)}
        case OSError() if error.strerror:
            where = f"{error.filename}: " if error.filename else ""
            return NOT_DONE, {"type": "OSError", "message": f"{where}{error.strerror}"}
    message = f"unexpected {type(error).__name__}: {error} (please report it; ENCVEC_DEBUG=1 shows where)"
    return NOT_DONE, {"type": type(error).__name__, "message": message}


def _tell(report: dict[str, Any], as_json: bool, name: str) -> None:
    report = {name: scrubbed(value) if isinstance(value, str) else value for name, value in report.items()}
    with contextlib.suppress(OSError, ValueError):
        if as_json:
            print(json.dumps({"error": report}), file=sys.stderr)
        else:
            print(f"{name}: {printable(report['message'])}", file=sys.stderr)


def _prepare() -> None:
    """Make output safe on any terminal, and let the library's warnings look like ours."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    log = logging.getLogger("encvec_store")
    if not any(isinstance(handler, _Notes) for handler in log.handlers):
        log.addHandler(_Notes(logging.WARNING))


def warnings_as_notes() -> None:
    """Let Python's warnings look like ours, and leave a bar whole. For the process, not for tests of it."""
    warnings.showwarning = lambda message, *_, **__: note(f"warning: {scrubbed(str(message))}")


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning of the library as one of ours."""
        note(f"warning: {scrubbed(record.getMessage())}")
