"""Labelled photographs of faces from public research sets, read from the user's own copies.

There are two forms. One is a `.npz` with `images` (n, h, w) or (n, h, w, c) uint8 and `labels` (n,), such as the
Olivetti faces in `benchmarks/data`. The other is a folder with Labeled Faces in the Wild: NAME/NAME_0001.jpg of 250 x
250 pixels, as published, or one file `lfw_crop128_jpeg.npz` with crops of the faces, and its verification protocol
`pairs.txt`. Nothing is downloaded, and photographs of LFW are only written into the user's own output folder.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from encvec_store.errors import InputError

from .models import Images, resized
from .pictures import pillow

__all__ = ["Pair", "Photographs", "jittered", "lfw", "load", "olivetti", "photograph"]

Rows = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int64]
Pair = tuple[int, int, bool]
"""Two rows, and whether they show the same person."""

OLIVETTI_CREDIT = (
    "Olivetti (AT&T) database of faces, photographs taken 1992-1994 at AT&T Laboratories Cambridge, whom we "
    "acknowledge; F. Samaria and A. Harter, IEEE WACV 1994"
)
LFW_CREDIT = (
    "Labeled Faces in the Wild, G. B. Huang, M. Ramesh, T. Berg and E. Learned-Miller, University of Massachusetts "
    "Amherst, 2007; photographs of public figures from news, for research; shown here, never passed on"
)
_PACKED = "lfw_crop128_jpeg.npz"
_PUBLISHED = (61, 61, 189, 189)
"""The place of the face in the published 250 x 250 pictures, which are centred on it."""


class Source(Protocol):
    """Where pictures come from."""

    def read(self, rows: Rows, side: int) -> Images:
        """Images (m, side, side, c), uint8."""
        ...


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs and who is on them."""

    name: str
    labels: Labels
    """(n,): the person's number."""
    source: Source
    side: int
    """Side of a picture in pixels that suits the models best."""
    credit: str
    publishable: bool
    """True if pictures may be shown to others."""
    pairs: tuple[Pair, ...] = ()
    """A verification protocol in ten folds, if the set has one."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def people(self) -> Labels:
        """Numbers of all people, ascending."""
        return np.unique(self.labels)

    def images(self, rows: Rows, side: int | None = None) -> Images:
        """Pictures (m, side, side, c), uint8, of some rows."""
        return self.source.read(np.asarray(rows, np.intp), side or self.side)

    def of(self, person: int) -> Rows:
        """Rows of a person, in order."""
        return np.flatnonzero(self.labels == person)


def load(path: Path) -> Photographs:
    """Photographs of a `.npz` file, or of a folder with LFW. Raises InputError for anything else."""
    if path.suffix == ".npz" and path.is_file():
        return olivetti(path)
    if path.is_dir():
        return lfw(path)
    raise InputError(f"{path}: neither an .npz file with images and labels, nor a folder with LFW")


@dataclass(frozen=True)
class _Array:
    pixels: Images

    def read(self, rows: Rows, side: int) -> Images:
        taken = self.pixels[rows]
        return taken if taken.shape[1] == side else resized(taken, side)


def olivetti(path: Path) -> Photographs:
    """Images and labels of an `.npz` file. Raises InputError where it has none."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            images, labels = kept["images"], kept["labels"].astype(np.int64)
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: not an .npz file with images and labels") from error
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) != len(labels) or images.shape[1] != images.shape[2]:
        raise InputError(f"{path}: images are (n, side, side) or (n, side, side, c) of uint8, labels (n,)")
    known = path.stem.startswith("olivetti")
    return Photographs(
        path.stem, labels, _Array(images), images.shape[1], OLIVETTI_CREDIT if known else "", publishable=known
    )


@dataclass(frozen=True)
class _Jpegs:
    """JPEG pictures, in one array or in separate files."""

    blob: npt.NDArray[np.uint8] | None
    starts: npt.NDArray[np.int64] | None
    files: tuple[Path, ...] = ()

    def read(self, rows: Rows, side: int) -> Images:
        image: Any = pillow()
        out = np.empty((len(rows), side, side, 3), np.uint8)
        for place, row in enumerate(rows.tolist()):
            if self.blob is not None and self.starts is not None:
                opened = image.open(io.BytesIO(self.blob[self.starts[row] : self.starts[row + 1]].tobytes()))
            else:
                opened = image.open(self.files[row]).crop(_PUBLISHED)
            picture = opened.convert("RGB")
            out[place] = picture if picture.width == side else picture.resize((side, side), image.BILINEAR)
        return out


def lfw(folder: Path) -> Photographs:
    """Read LFW in a folder. Raises InputError if it is not there, MissingModelError without pillow."""
    packed = folder / _PACKED
    source: _Jpegs
    if packed.is_file():
        with np.load(packed, allow_pickle=False) as kept:
            names, files = kept["name"], kept["fname"]
            source = _Jpegs(kept["blob"], kept["off"])
    else:
        found = sorted(path for path in folder.glob("*/*.jpg") if path.name.startswith(path.parent.name))
        if not found:
            raise InputError(
                f"{folder}: LFW is not here. Unpack lfw.tgz of Labeled Faces in the Wild (University of Massachusetts "
                "Amherst; for research) so that it holds NAME/NAME_0001.jpg, with pairs.txt beside"
            )
        names, files = np.array([path.parent.name for path in found]), np.array([path.name for path in found])
        source = _Jpegs(None, None, tuple(found))
    pillow()
    _, labels = np.unique(names, return_inverse=True)
    return Photographs(
        "lfw", labels.astype(np.int64), source, 128, LFW_CREDIT, publishable=False, pairs=_pairs(folder, files)
    )


def _pairs(folder: Path, files: npt.NDArray[np.str_]) -> tuple[Pair, ...]:
    """Pairs of `pairs.txt` in the order of the file: ten folds of 300 same and 300 different, one after another."""
    path = next((place / "pairs.txt" for place in (folder, folder.parent) if (place / "pairs.txt").is_file()), None)
    if path is None:
        return ()
    row_of = {name: row for row, name in enumerate(files.tolist())}
    out: list[Pair] = []
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        words = line.split()
        if len(words) == 3:
            names = [f"{words[0]}_{int(number):04d}.jpg" for number in words[1:]]
        elif len(words) == 4:
            names = [f"{words[0]}_{int(words[1]):04d}.jpg", f"{words[2]}_{int(words[3]):04d}.jpg"]
        else:
            continue
        if not all(name in row_of for name in names):
            raise InputError(f"{path}: {names[0]} or {names[1]} is not among the photographs")
        out.append((row_of[names[0]], row_of[names[1]], len(words) == 3))
    return tuple(out)


def photograph(path: Path) -> Images:
    """A photograph (h, w, 3), uint8, upright as its EXIF tells. Raises InputError for what is none."""
    image: Any = pillow()
    from PIL import ImageOps

    try:
        with image.open(path) as opened:
            return np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, ValueError, image.DecompressionBombError) as error:  # or it is no picture
        raise InputError(f"{path}: not a picture that can be read") from error


def jittered(images: Images, rng: np.random.Generator) -> Images:
    """Change each of (n, h, w, c) uint8 pictures like another shot: mirrored or not, moved, brighter or darker."""
    n, side = images.shape[:2]
    out = images.copy()
    mirrored = rng.random(n) < 0.5
    out[mirrored] = out[mirrored, :, ::-1]
    most = max(1, side // 24)
    moves = rng.integers(-most, most + 1, (n, 2))
    rows = np.clip(np.arange(side) + moves[:, :1], 0, side - 1)
    columns = np.clip(np.arange(side) + moves[:, 1:], 0, side - 1)
    out = out[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    gain, offset = rng.uniform(0.85, 1.15, (n, 1, 1, 1)), rng.uniform(-12, 12, (n, 1, 1, 1))
    made: Images = np.clip(out * gain + offset, 0, 255).astype(np.uint8)
    return made
