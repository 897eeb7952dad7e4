"""A PostgreSQL with pgvector on this machine, without Docker: for a first try, for development, for tests.

It uses an installed PostgreSQL (the wheel of the extra `embedded`, or Debian's packages) and runs it as a user without
privileges. It needs psycopg, of the extra `postgres`, and does not work on Windows.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("encvec_store.localpg does not run on Windows: use a PostgreSQL of your own by its URL")

from .errors import LocalServerError
from .install import Installation, find_installation
from .server import LocalServer

__all__ = ["Installation", "LocalServer", "LocalServerError", "find_installation"]
