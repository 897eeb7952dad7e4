"""Face recognition in NumPy alone: Fisherfaces, and texture as a second opinion.

They are for machines without torch, and for small sets such as the Olivetti faces. Both are real recognition models
with nothing in common: one is a trained linear map of pixels, the other counts local patterns and is not trained.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .models import Images, Matrix, resized, unit

__all__ = ["Fisherfaces", "Texture"]

_RIDGE = 0.15


class Fisherfaces:
    """Principal components, then whitening by the variation among photographs of one person.

    P. Belhumeur, J. Hespanha and D. Kriegman, "Eigenfaces vs. Fisherfaces", TPAMI 19(7), 1997. All directions are
    kept, because it compares people whom it was not trained on.

    Args:
        images: (n, h, w, c) to train on.
        labels: (n,) who is on them.
        dim: principal components kept.
    """

    name = "fisherfaces"

    def __init__(self, images: Images, labels: npt.NDArray[np.int64], dim: int = 80) -> None:
        self._shape = images.shape[1:]
        flat = _contrast(images)
        self._mean = flat.mean(axis=0)
        _, _, axes = np.linalg.svd(flat - self._mean, full_matrices=False)
        axes = axes[: min(dim, len(axes) - 1)]
        scores = (flat - self._mean) @ axes.T
        names, members = np.unique(labels, return_inverse=True)
        middles = np.stack([scores[members == person].mean(axis=0) for person in range(len(names))])
        within = np.cov((scores - middles[members]).T)
        within += _RIDGE * np.trace(within) / len(within) * np.eye(len(within))
        values, vectors = np.linalg.eigh(within)
        self._map = (axes.T @ (vectors / np.sqrt(values))).astype(np.float32)

    @property
    def dim(self) -> int:
        """Coordinates of an embedding."""
        return int(self._map.shape[1])

    def embed(self, images: Images) -> Matrix:
        """Unit vectors (n, dim)."""
        if images.shape[1:3] != self._shape[:2]:
            images = resized(images, self._shape[0])
        return unit((_contrast(images) - self._mean) @ self._map)

    def pull(self, images: Images, targets: Matrix) -> tuple[Matrix, Images]:
        """Cosines (n,) to unit targets (n, dim), and their gradient in the images."""
        flat = images.reshape(len(images), -1).astype(np.float32)
        away = flat - flat.mean(axis=1, keepdims=True)
        length = np.linalg.norm(away, axis=1, keepdims=True)
        made = (away / length * np.float32(flat.shape[1] ** 0.5) - self._mean) @ self._map
        size = np.linalg.norm(made, axis=1, keepdims=True)
        point = made / size
        cosine = np.einsum("ij,ij->i", point, targets)
        slope = (targets - cosine[:, None] * point) / size @ self._map.T
        slope = (slope - (np.einsum("ij,ij->i", slope, away) / length[:, 0] ** 2)[:, None] * away) / length
        slope = (slope - slope.mean(axis=1, keepdims=True)) * np.float32(flat.shape[1] ** 0.5)
        return cosine.astype(np.float32), slope.reshape(images.shape).astype(np.float32)


def _contrast(images: Images) -> Matrix:
    """Return the pixels (n, p) of each image, scaled to mean 0 and deviation 1."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat = flat - flat.mean(axis=1, keepdims=True)
    result: Matrix = flat / (flat.std(axis=1, keepdims=True) + 1e-6)
    return result


class Texture:
    """Local binary patterns in 7 x 7 windows: which of eight neighbours are brighter, counted.

    T. Ahonen, A. Hadid and M. Pietikainen, "Face description with local binary patterns", TPAMI 28(12), 2006. The
    embedding holds roots of shares, so that the cosine is the Bhattacharyya coefficient. It needs no training.
    """

    name = "texture"
    windows = 7
    dim = 7 * 7 * 59

    def embed(self, images: Images) -> Matrix:
        """Unit vectors (n, dim)."""
        grey = images.astype(np.float32).mean(axis=3)
        centre = grey[:, 2:-2, 2:-2]
        codes = np.zeros(centre.shape, np.int64)
        for bit, (down, right) in enumerate(((0, 0), (0, 2), (0, 4), (2, 4), (4, 4), (4, 2), (4, 0), (2, 0))):
            other = grey[:, down : down + centre.shape[1], right : right + centre.shape[2]]
            codes |= (other > centre).astype(np.int64) << bit
        bins = _UNIFORM[codes]
        n, height, width = bins.shape
        row = np.minimum(np.arange(height) * self.windows // height, self.windows - 1)
        column = np.minimum(np.arange(width) * self.windows // width, self.windows - 1)
        window = row[:, None] * self.windows + column[None, :]
        places = (np.arange(n)[:, None, None] * self.windows**2 + window) * 59 + bins
        counts = np.bincount(places.ravel(), minlength=n * self.dim).reshape(n, self.dim)
        return unit(np.sqrt(counts.astype(np.float32)))


def _uniform() -> npt.NDArray[np.int64]:
    """Return bins of the 256 patterns: one for each of the 58 with at most two changes, one for all others."""
    codes = np.arange(256)
    turned = ((codes << 1) | (codes >> 7)) & 255
    changes = np.array([bin(code).count("1") for code in (codes ^ turned).tolist()])
    bins = np.full(256, 58, np.int64)
    bins[changes <= 2] = np.arange(int((changes <= 2).sum()))
    return bins


_UNIFORM = _uniform()
