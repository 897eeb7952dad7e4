"""Find model weights in an installed package.

Nothing is downloaded here: an error says what to type.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from encvec_store.errors import EncvecError

__all__ = ["MissingModelError", "model_file", "need_torch", "sha256_file"]

TORCH = "torch is not installed; this needs: pip install torch scipy pillow"


class MissingModelError(EncvecError, RuntimeError):
    """A model's weights or a library that runs it are not installed; the message says what to type."""


def need_torch() -> None:
    """Raise MissingModelError if torch cannot be imported."""
    if importlib.util.find_spec("torch") is None:
        raise MissingModelError(TORCH)


def model_file(package: str, relative: str, *, pip: str) -> Path:
    """Return the path of the file `relative` in the installed `package`; an error names `pip` if it is missing.

    The package is located but not imported, because such wheels tend to import things that we do not need.
    """
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        path = Path(root) / relative
        if path.is_file():
            return path
    raise MissingModelError(f"the weights {package}/{relative} were not found; install them with: {pip}")


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
