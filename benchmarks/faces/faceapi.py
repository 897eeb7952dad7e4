"""The second, independent model: face-api's 128-d descriptor, a ResNet trained by others on other faces.

The network is Davis King's `dlib_face_recognition_resnet_model_v1` (dlib, 2017) as Vincent Muehler quantised it for
face-api.js (MIT). The npm package @vladmandic/face-api has the weights in its folder `model`. That folder is named by
ENCVEC_FACE_API, or found in `node_modules` below the working folder. The thief never sees this model.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from .models import Images, Matrix, unit
from .network import to_pixels
from .weights import MissingModelError

__all__ = ["Descriptor", "read_weights", "weights_folder"]

SIDE = 150
DIM = 128
BATCH = 32
NPM = "npm pack @vladmandic/face-api@1.7.15, unpacked; then ENCVEC_FACE_API=.../package/model"
_MEAN = (122.782, 117.001, 104.298)
_BLOCKS = (
    "conv32_1", "conv32_2", "conv32_3", "conv64_down", "conv64_1", "conv64_2", "conv64_3", "conv128_down",
    "conv128_1", "conv128_2", "conv256_down", "conv256_1", "conv256_2", "conv256_down_out",
)  # fmt: skip
Tensor: TypeAlias = Any  # the type checker runs without torch


def weights_folder(folder: Path | None = None) -> Path:
    """Find the package's `model` folder. Raises MissingModelError, which says what to type."""
    named = os.environ.get("ENCVEC_FACE_API")
    for place in (folder, Path(named) if named else None, Path("node_modules/@vladmandic/face-api/model")):
        if place is not None and (place / "face_recognition_model-weights_manifest.json").is_file():
            return place
    raise MissingModelError(f"the weights of face-api are not here; get them with: {NPM}")


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Tensors of a model of the package by name, dequantised; convolutions as (out, in, h, w)."""
    (group,) = json.loads((folder / f"{name}-weights_manifest.json").read_text(encoding="utf-8"))
    # the names of parts are those of TensorFlow.js; this package has one file per model
    raw = (folder / f"{name}.bin").read_bytes()
    out: dict[str, Tensor] = {}
    at = 0
    for entry in group["weights"]:
        count, packed = int(np.prod(entry["shape"])), entry.get("quantization")
        if packed:
            values = np.frombuffer(raw, np.uint8, count, at).astype(np.float32) * packed["scale"] + packed["min"]
            at += count
        else:
            values = np.frombuffer(raw, "<f4", count, at)
            at += 4 * count
        values = values.reshape(entry["shape"]).astype(np.float32)
        values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
        out[entry["name"]] = torch.from_numpy(np.ascontiguousarray(values))
    if at != len(raw):
        raise MissingModelError(f"{folder / name}.bin has a wrong length; get it anew with: {NPM}")
    return out


class Descriptor:
    """(n, h, w, c) images of faces to unit vectors (n, 128)."""

    name = "face-api"
    dim = DIM

    def __init__(self, folder: Path | None = None) -> None:
        self._weights = read_weights(weights_folder(folder), "face_recognition_model")
        self._mean = torch.tensor(_MEAN).view(1, 3, 1, 1)

    def embed(self, images: Images) -> Matrix:
        """Unit vectors (n, 128). The model was trained for distances, which order unit vectors as cosines do."""
        torch.set_num_threads(1)
        out = np.empty((len(images), DIM), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                out[start : start + BATCH] = self._run(to_pixels(images[start : start + BATCH], SIDE)).numpy()
        return unit(out)

    def _run(self, pixels: Tensor) -> Tensor:
        x = self._conv((pixels - self._mean) / 255, "conv32_down", 2, 0)
        x = F.max_pool2d(x, 3, 2)
        for block in _BLOCKS:
            x = self._down(x, block) if "down" in block else self._same(x, block)
        return x.mean((2, 3)) @ self._weights["fc"]

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 1, *, relu: bool = True) -> Tensor:
        scale, shift = self._weights[f"{name}/scale/weights"], self._weights[f"{name}/scale/biases"]
        kernel, bias = self._weights[f"{name}/conv/filters"], self._weights[f"{name}/conv/bias"]
        x = F.conv2d(x, kernel * scale.view(-1, 1, 1, 1), bias * scale + shift, stride, padding)
        return F.relu(x) if relu else x

    def _same(self, x: Tensor, block: str) -> Tensor:
        return F.relu(self._conv(self._conv(x, f"{block}/conv1"), f"{block}/conv2", relu=False) + x)

    def _down(self, x: Tensor, block: str) -> Tensor:
        """Halve the picture, and pad with zeros if its size or channels differ from the shortcut's."""
        made = self._conv(self._conv(x, f"{block}/conv1", 2, 0), f"{block}/conv2", relu=False)
        pooled = F.avg_pool2d(x, 2, 2)
        made = F.pad(made, (0, pooled.shape[3] - made.shape[3], 0, pooled.shape[2] - made.shape[2]))
        pooled = F.pad(pooled, (0, 0, 0, 0, 0, made.shape[1] - pooled.shape[1]))
        return F.relu(pooled + made)
