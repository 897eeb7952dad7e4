"""A PostgreSQL with pgvector on this machine, without Docker: for a first try, for development, for tests.

It is found among what is installed (the wheel of the extra `embedded`, Debian's packages) and run as a user without
privileges. Not on Windows. Needs psycopg, of the extra `postgres`.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    raise ImportError("encvec_store.localpg does not run on Windows: use a PostgreSQL of your own by its URL")

from .errors import LocalServerError
from .install import Installation, find_installation
from .server import LocalServer

__all__ = ["Installation", "LocalServer", "LocalServerError", "find_installation"]
