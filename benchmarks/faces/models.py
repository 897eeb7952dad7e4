"""The interface of a face recognition model, and the table of known models.

Images are (n, h, w, c) numbers of 0 to 255 with one or three channels, float32 or uint8, each a face that fills the
picture. Embeddings are of unit length: the cosine tells how alike two faces are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from encvec_store.errors import InputError

from .weights import MissingModelError

__all__ = ["MODELS", "Differentiable", "Images", "Matrix", "Model", "load_model", "resized", "unit"]

Images = npt.NDArray[Any]
Matrix = npt.NDArray[np.float32]


class Model(Protocol):
    """A face recognition model."""

    @property
    def name(self) -> str:
        """Its name in results."""
        ...

    @property
    def dim(self) -> int:
        """Coordinates of an embedding."""
        ...

    def embed(self, images: Images) -> Matrix:
        """Unit vectors (n, dim) of (n, h, w, c) images."""
        ...


@runtime_checkable
class Differentiable(Model, Protocol):
    """A model whose weights the adversary has: he can compute how an image must change."""

    def pull(self, images: Images, targets: Matrix) -> tuple[Matrix, Images]:
        """Cosines (n,) of the images' embeddings to unit targets (n, dim), and their gradient in the images."""
        ...


def unit(points: npt.NDArray[np.floating]) -> Matrix:
    """Scale (n, d) points to unit length; zero vectors stay zero."""
    length = np.linalg.norm(points, axis=1, keepdims=True)
    result: Matrix = np.ascontiguousarray(points / np.maximum(length, 1e-12), np.float32)
    return result


def resized(images: Images, side: int) -> Images:
    """Resize (n, h, h, c) pictures to (n, side, side, c), bilinear, uint8."""
    n, height = images.shape[:2]
    at = np.clip((np.arange(side) + 0.5) * height / side - 0.5, 0, height - 1)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, height - 1), (at - low).astype(np.float32)
    rows = images[:, low] * (1 - part)[:, None, None] + images[:, high] * part[:, None, None]
    both = rows[:, :, low] * (1 - part)[:, None] + rows[:, :, high] * part[:, None]
    made: Images = np.round(both).astype(np.uint8).reshape(n, side, side, -1)
    return made


def _facenet(folder: Path | None) -> Model:
    from .facenet import FaceNet
    from .network import FaceNetModel

    return FaceNetModel(FaceNet())


def _face_api(folder: Path | None) -> Model:
    from .faceapi import Descriptor

    return Descriptor(folder)


MODELS: dict[str, Callable[[Path | None], Model]] = {"facenet": _facenet, "face-api": _face_api}
"""Name -> loader, which takes the folder of weights if the model has one. The other models are in linear."""


def load_model(name: str, folder: Path | None = None) -> Model:
    """Load a model of the table. Raises InputError for an unknown name, MissingModelError without weights."""
    if name not in MODELS:
        raise InputError(f"unknown face model {name!r}; there are: {', '.join(MODELS)}")
    try:
        return MODELS[name](folder)
    except ModuleNotFoundError as error:
        raise MissingModelError(f"{error.name} is not installed; this needs: pip install torch scipy pillow") from None
