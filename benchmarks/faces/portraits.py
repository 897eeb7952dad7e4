"""Embed photographs in files, one after another, for the command `embed`.

A file that cannot be read, or that shows no face, is reported and skipped: one bad file must not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from encvec_store.errors import InputError

from .models import Images, Matrix, Model
from .photographs import photograph

__all__ = ["Finder", "Portrait", "pictures", "portraits"]

SUFFIXES = (".jpg", ".jpeg", ".png")


class Finder(Protocol):
    """Finds faces, like `detect.Detector`."""

    def face(self, image: Images) -> Images | None:
        """Return the face of an (h, w, 3) photograph, upright and filling the picture; None if it has no face."""
        ...


@dataclass(frozen=True, eq=False)
class Portrait:
    """The result for one file."""

    path: Path
    vector: Matrix | None
    """(d,): the face's embedding; None if there is no face."""
    why: str = ""
    """The reason, if there is no embedding."""


def pictures(paths: Sequence[Path]) -> list[Path]:
    """Return the named files, and all pictures below named folders, in order. Raises InputError if there are none."""
    found: list[Path] = []
    for path in paths:
        below = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        found += below
    if not found:
        raise InputError(f"no {', '.join(SUFFIXES)} below {', '.join(map(str, paths))}")
    return list(dict.fromkeys(found))


def portraits(files: Iterable[Path], finder: Finder, model: Model) -> Iterator[Portrait]:
    """Embed the largest face of each file."""
    for path in files:
        try:
            face = finder.face(photograph(path))
        except InputError:
            yield Portrait(path, None, "not a picture that can be read")
            continue
        yield Portrait(path, None, "no face found") if face is None else Portrait(path, model.embed(face[None])[0])
