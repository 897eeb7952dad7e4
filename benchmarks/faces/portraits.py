"""Photographs in files to embeddings, one after another, for the command `embed`.

A file that cannot be read, or that shows no face, is told and passed over: one of thousands must not cost the rest.
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
    """Finds faces, as `detect.Detector` does."""

    def face(self, image: Images) -> Images | None:
        """The face of an (h, w, 3) photograph, upright, filling the picture; None where there is none."""
        ...


@dataclass(frozen=True, eq=False)
class Portrait:
    """What came of a file."""

    path: Path
    vector: Matrix | None
    """(d,): the face's embedding; None where there is none."""
    why: str = ""
    """Then: in a few words, why."""


def pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as named, and of folders all pictures below them, in order. Raises InputError where there are none."""
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
