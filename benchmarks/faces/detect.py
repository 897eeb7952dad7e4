"""Cut an upright face that fills the picture from a photograph.

Find the face, find the eyes, rotate, crop. Detector and landmarks are face-api's (Vincent Muehler, MIT): a tiny YOLO
(J. Redmon and A. Farhadi, "YOLO9000", CVPR 2017) with separable convolutions, and a small network for 68 points.
Their weights are in the same folder as those of the second model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from .faceapi import read_weights, weights_folder
from .models import Images

__all__ = ["Box", "Detector"]

SIDE = 416
CELL = 32
_ANCHORS = (
    (1.603231, 2.094468),
    (6.041143, 7.080126),
    (2.882459, 3.518061),
    (4.266906, 5.178857),
    (9.041765, 10.66308),
)
_MEAN = (117.001, 114.697, 97.404)
_LANDMARKS_MEAN = (122.782, 117.001, 104.298)
_SURE = 0.5
_BORDERS = (0.0, 0.5, 0.75, 1.0, 1.25)
"""Widths around a photograph, as shares of its longer side, in which a face is looked for: the detector was made for
faces within a scene, and misses one that fills the picture."""
_LEFT, _RIGHT = slice(36, 42), slice(42, 48)
_FACE = 160
_EYES_APART, _EYES_DOWN = 0.305, 0.4
"""Where the eyes of an upright face are, as shares of its side: as in the crops that FaceNet does well on."""
Tensor: TypeAlias = Any  # the type checker runs without torch


@dataclass(frozen=True)
class Box:
    """The place of a face, in pixels of the photograph, and how sure the detector is."""

    left: float
    top: float
    width: float
    height: float
    score: float


class Detector:
    """Finds faces. `folder` is that of the second model."""

    def __init__(self, folder: Path | None = None) -> None:
        place = weights_folder(folder)
        self._boxes = read_weights(place, "tiny_face_detector_model")
        self._points = read_weights(place, "face_landmark_68_model")

    def boxes(self, image: Images, border: float = 0.0) -> list[Box]:
        """Faces of an (h, w, 3) photograph, the surest first, without those that overlap a surer one.

        `border` is a share of the longer side; the picture's edges are repeated so far around it.
        """
        height, width = image.shape[:2]
        scale = SIDE / (max(height, width) * (1 + 2 * border))
        around = int(border * max(height, width) * scale)
        size = (max(1, int(height * scale)), max(1, int(width * scale)))
        pixels = torch.from_numpy(np.ascontiguousarray(image)).float().permute(2, 0, 1)[None]
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=scale < 1)
        pixels = F.pad(pixels, (around,) * 4, mode="replicate")
        pixels = F.pad(pixels, (0, SIDE - pixels.shape[3], 0, SIDE - pixels.shape[2]))
        with torch.inference_mode():
            cells = SIDE // CELL
            grid = self._yolo(pixels).view(5, 5, cells, cells).permute(0, 2, 3, 1).numpy()
        found = []
        for anchor, row, column in np.argwhere(_sigmoid(grid[..., 4]) > _SURE).tolist():
            x, y, w, h, sure = grid[anchor, row, column].tolist()
            wide, high = np.exp(w) * _ANCHORS[anchor][0] * CELL / scale, np.exp(h) * _ANCHORS[anchor][1] * CELL / scale
            across, down = (column + _sigmoid(x)) * CELL, (row + _sigmoid(y)) * CELL
            middle = ((across - around) / scale, (down - around) / scale)
            found.append(
                Box(middle[0] - wide / 2, middle[1] - high / 2, float(wide), float(high), float(_sigmoid(sure)))
            )
        kept: list[Box] = []
        for box in sorted(found, key=lambda box: -box.score):
            if all(_overlap(box, other) < 0.4 for other in kept):
                kept.append(box)
        return kept

    def eyes(self, image: Images, box: Box) -> tuple[tuple[float, float], tuple[float, float]]:
        """Middles (x, y) of the eye on the left and on the right of the picture, by the 68 points."""
        cut = _cut(image, box.left, box.top, max(box.width, box.height), 112)
        pixels = torch.from_numpy(cut).float().permute(2, 0, 1)[None]
        with torch.inference_mode():
            points = self._landmarks(pixels).view(68, 2).numpy()
        side = max(box.width, box.height)
        left, right = (points[part].mean(axis=0) for part in (_LEFT, _RIGHT))
        return (
            (float(box.left + left[0] * side), float(box.top + left[1] * side)),
            (float(box.left + right[0] * side), float(box.top + right[1] * side)),
        )

    def face(self, image: Images, side: int = _FACE) -> Images | None:
        """Return the largest face of an (h, w, 3) photograph, eyes level, (side, side, 3) uint8; None if none."""
        boxes = next(filter(None, (self.boxes(image, border) for border in _BORDERS)), None)
        if boxes is None:
            return None
        box = max(boxes, key=lambda box: box.width * box.height)
        (x0, y0), (x1, y1) = self.eyes(image, box)
        angle = float(np.arctan2(y1 - y0, x1 - x0))
        wide = max(float(np.hypot(x1 - x0, y1 - y0)), 1.0) / _EYES_APART
        below = (0.5 - _EYES_DOWN) * wide
        middle = ((x0 + x1) / 2 - below * float(np.sin(angle)), (y0 + y1) / 2 + below * float(np.cos(angle)))
        return _turned(image, middle, angle, wide, side)

    def _yolo(self, pixels: Tensor) -> Tensor:
        weights = self._boxes
        x = (pixels - torch.tensor(_MEAN).view(1, 3, 1, 1)) / 255
        x = F.leaky_relu(F.conv2d(x, weights["conv0/filters"], weights["conv0/bias"], padding=1), 0.1)
        for number in range(1, 6):
            x = F.max_pool2d(x, 2, 2)
            x = F.leaky_relu(_separable(x, weights, f"conv{number}"), 0.1)
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, 1)
        return F.conv2d(x, weights["conv8/filters"], weights["conv8/bias"])

    def _landmarks(self, pixels: Tensor) -> Tensor:
        """68 points (136,) as shares of the picture's side."""
        weights = self._points
        x = (pixels - torch.tensor(_LANDMARKS_MEAN).view(1, 3, 1, 1)) / 255
        for block in range(4):
            name, stride = f"dense{block}", 2
            if block == 0:
                first = F.conv2d(_same(x, 2), weights[f"{name}/conv0/filters"], weights[f"{name}/conv0/bias"], 2)
            else:
                first = _separable(x, weights, f"{name}/conv0", stride)
            first = F.relu(first)
            second = _separable(first, weights, f"{name}/conv1")
            third = _separable(F.relu(first + second), weights, f"{name}/conv2")
            fourth = _separable(F.relu(first + second + third), weights, f"{name}/conv3")
            x = F.relu(first + second + third + fourth)
        x = F.avg_pool2d(x, 7, 2)
        # the weights are in the order of TensorFlow, channels last
        return x.permute(0, 2, 3, 1).reshape(1, -1) @ weights["fc/weights"] + weights["fc/bias"]


def _same(x: Tensor, stride: int) -> Tensor:
    """Pad as TensorFlow does: the end gets the odd pixel."""
    spare = [max((-(-size // stride) - 1) * stride + 3 - size, 0) for size in x.shape[2:]]
    return F.pad(x, (spare[1] // 2, spare[1] - spare[1] // 2, spare[0] // 2, spare[0] - spare[0] // 2))


def _separable(x: Tensor, weights: dict[str, Tensor], name: str, stride: int = 1) -> Tensor:
    # (h, w, channels, 1) was read as a kernel with one output, but each channel has its own convolution
    each = weights[f"{name}/depthwise_filter"].permute(1, 0, 2, 3)
    x = F.conv2d(_same(x, stride), each, None, stride, groups=len(each))
    return F.conv2d(x, weights[f"{name}/pointwise_filter"], weights[f"{name}/bias"])


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))  # exp(90) overflows float32


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    high = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    both = max(wide, 0.0) * max(high, 0.0)
    return both / (a.width * a.height + b.width * b.height - both)


def _cut(image: Images, left: float, top: float, side: float, pixels: int) -> Images:
    return _turned(image, (left + side / 2, top + side / 2), 0.0, side, pixels)


def _turned(image: Images, middle: tuple[float, float], angle: float, wide: float, side: int) -> Images:
    """A square (side, side, 3) of the photograph, turned by an angle around its middle; edges are repeated."""
    at = ((np.arange(side) + 0.5) / side - 0.5) * wide
    down, across = np.meshgrid(at, at, indexing="ij")
    x = middle[0] + across * np.cos(angle) - down * np.sin(angle) - 0.5
    y = middle[1] + across * np.sin(angle) + down * np.cos(angle) - 0.5
    height, width = image.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    right, lower = (x - x0)[..., None], (y - y0)[..., None]
    pixels = image.astype(np.float32)
    upper_line = pixels[y0, x0] * (1 - right) + pixels[y0, x1] * right
    lower_line = pixels[y1, x0] * (1 - right) + pixels[y1, x1] * right
    made: Images = np.round(upper_line * (1 - lower) + lower_line * lower).astype(np.uint8)
    return made
