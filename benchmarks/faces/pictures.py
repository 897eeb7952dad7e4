"""Images as PNG, alone, in a page and as a strip with words."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .models import Images, resized
from .weights import MissingModelError

__all__ = ["Face", "Line", "inline", "pillow", "png", "strip"]

_INK, _PALE, _CARD, _BAD, _GOOD = "#1b1f24", "#59626d", "#eef1f4", "#c04a00", "#0072b2"
"""The colours of the page: `style.CSS`."""
_SCALE, _SIDE, _GAP, _FRAME = 2, 98, 8, 3
_TITLE, _SMALL, _CAPTION = 20, 16, 19


@dataclass(frozen=True, eq=False)
class Face:
    """A picture, or None where there is none, and what the attacked model's verifier says of it, or None."""

    image: Images | None
    accepted: bool | None = None
    cosine: float | None = None


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a strip: who tried what, what came of it, and a face of each person; `small` stands below the title."""

    title: str
    faces: Sequence[Face]
    outcome: str = ""
    small: str = ""


def png(image: Images) -> bytes:
    """A PNG file of an image (h, w, 1) or (h, w, 3) of 0 to 255."""
    pixels = np.clip(np.round(image), 0, 255).astype(np.uint8)
    height, width, channels = pixels.shape
    kind = {1: 0, 3: 2}[channels]
    # filter 2 (up) on every line: a face varies little from one line to the next
    above = np.zeros_like(pixels)
    above[1:] = pixels[:-1]
    lines = np.full((height, 1 + width * channels), 2, np.uint8)
    lines[:, 1:] = (pixels - above).reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def inline(image: Images) -> str:
    """Return the image as a data: URL."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def strip(lines: Sequence[Line], legend: Sequence[str]) -> bytes:
    """A PNG file: lines of faces with their titles above and cosines below, and a legend at the end.

    It is made for a page of 840 pixels, at twice as many, so that its words can be read on a telephone too. Raises
    MissingModelError without pillow.
    """
    people = max(len(line.faces) for line in lines)
    width = people * (_SIDE + _GAP) + _GAP
    heights = [_head(line) + _SIDE + 2 * _FRAME + (_CAPTION + 9) * _told(line) for line in lines]
    height = sum(heights) + (_SMALL + 7) * len(legend) + 3 * _GAP
    sheet = _Sheet(width, height)
    top = 0
    for line, taken in zip(lines, heights, strict=True):
        sheet.line(line, top)
        top += taken
    for place, words in enumerate(legend):
        sheet.words((_GAP, top + 2 * _GAP + place * (_SMALL + 7)), words, _SMALL, _PALE)
    return sheet.png()


def _head(line: Line) -> int:
    return _GAP + _TITLE + 12 + (_SMALL + 6) * bool(line.small)


def _told(line: Line) -> bool:
    return any(face.cosine is not None for face in line.faces)


class _Sheet:
    """A white sheet to draw on, in units of a page's pixels."""

    def __init__(self, width: int, height: int) -> None:
        image = pillow()
        from PIL import ImageDraw

        self._open, self._width = image, width
        self._sheet: Any = image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._draw: Any = ImageDraw.Draw(self._sheet)

    def line(self, line: Line, top: int) -> None:
        kind = _kind(line.faces)
        self.words((_GAP, top + _GAP), line.title, _TITLE, _INK, bold=True)
        self.words((self._width - _GAP, top + _GAP), line.outcome, _TITLE, kind, "ra", bold=True)
        if line.small:
            self.words((_GAP, top + _GAP + _TITLE + 6), line.small, _SMALL, _PALE)
        for place, face in enumerate(line.faces):
            self._face(face, _GAP + place * (_SIDE + _GAP), top + _head(line))

    def words(
        self, at: tuple[int, int], text: str, size: int, colour: str, anchor: str = "la", *, bold: bool = False
    ) -> None:
        from PIL import ImageFont

        self._draw.text(
            tuple(_SCALE * end for end in at), text, colour, ImageFont.load_default(_SCALE * size), anchor,
            stroke_width=0.4 * _SCALE if bold else 0, stroke_fill=colour,
        )  # fmt: skip

    def _face(self, face: Face, left: int, top: int) -> None:
        colour = _kind([face])
        if face.image is None:
            self._box(left, top, 0, _CARD)
            self.words((left + _SIDE // 2, top + _SIDE // 2), "nothing", _SMALL, _PALE, "mm")
            return
        if face.accepted is not None:
            self._box(left, top, _FRAME, colour)
        made = resized(np.round(face.image).astype(np.uint8)[None], _SCALE * _SIDE)[0]
        shown = np.ascontiguousarray(np.broadcast_to(made, (*made.shape[:2], 3)))
        self._sheet.paste(self._open.fromarray(shown), (_SCALE * left, _SCALE * top))
        if face.cosine is not None:
            self.words((left + _SIDE // 2, top + _SIDE + 6), f"{face.cosine:.2f}", _CAPTION, colour, "ma")

    def _box(self, left: int, top: int, around: int, colour: str) -> None:
        ends = (left - around, top - around, left + _SIDE + around, top + _SIDE + around)
        self._draw.rectangle([_SCALE * end - (place > 1) for place, end in enumerate(ends)], colour)

    def png(self) -> bytes:
        out = io.BytesIO()
        self._sheet.quantize(256, dither=self._open.Dither.NONE).save(out, "PNG", optimize=True)
        return out.getvalue()


def _kind(faces: Sequence[Face]) -> str:
    if all(face.accepted is None for face in faces):
        return _PALE
    return _BAD if any(face.accepted for face in faces) else _GOOD


def pillow() -> Any:
    """Return PIL.Image. Raises MissingModelError where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingModelError("pillow is not installed; pictures need: pip install torch scipy pillow") from None
    return Image
