"""Images as PNG, alone, in a page and as a strip."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .models import Images

__all__ = ["inline", "png", "strip"]


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


def strip(rows: Sequence[Sequence[Images]], side: int, gap: int = 6) -> Images:
    """Rows of images as one picture (h, w, 3) on white, each enlarged to `side` pixels."""
    across, down = max(map(len, rows)), len(rows)
    out = np.full((down * (side + gap) - gap, across * (side + gap) - gap, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = y * (side + gap), x * (side + gap)
            out[top : top + side, left : left + side] = _enlarged(image, side)
    return out


def _enlarged(image: Images, side: int) -> npt.NDArray[np.uint8]:
    """Enlarge, bilinear."""
    height = image.shape[0]
    at = np.clip((np.arange(side) + 0.5) * height / side - 0.5, 0, height - 1)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, height - 1), (at - low)
    pixels = image.astype(np.float64)
    rows = pixels[low] * (1 - part)[:, None, None] + pixels[high] * part[:, None, None]
    both = rows[:, low] * (1 - part)[:, None] + rows[:, high] * part[:, None]
    return np.clip(np.round(np.broadcast_to(both, (side, side, 3))), 0, 255).astype(np.uint8)
