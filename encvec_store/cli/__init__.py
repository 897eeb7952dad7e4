"""The command line `encvec`: encrypted collections of embeddings from a shell.

Needs the extra `cli`; `main` says so where it is missing. Exit codes: 0 fine; 1 the job ran and the answer
is bad (damage found, target missed, id unknown); 2 nothing or not all was done (usage, input, keys, store).
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run `encvec` with the process's arguments and exit. The console entry point."""
    try:
        code = _run()
    except KeyboardInterrupt:  # while Python still imports
        print("encvec: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def _run() -> int:
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        print(f"encvec: {error.name} is not installed: pip install 'encvec-store[cli]'", file=sys.stderr)
        return 2
    from .app import run, warnings_as_notes

    warnings_as_notes()
    return run()
