"""A generator of faces that is fitted on the attacker's own photographs: eigenfaces.

M. Turk and A. Pentland, "Eigenfaces for recognition", Journal of Cognitive Neuroscience 3(1), 1991. A face is the mean
face and a weighted sum of principal components; a latent is those weights in standard deviations, so that a standard
normal latent is a random face. It is weaker than a GAN and needs hardly any training: what is recognisable in its
faces comes from the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from encvec_store.errors import InputError

from .models import Images, Matrix

__all__ = ["Eigenfaces"]

REACH = 1.0
"""The longest latent, in lengths of a standard normal one: longer ones give no faces."""
_TRUNCATED = 0.8
_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Eigenfaces:
    """Mean and principal components of photographs."""

    mean: Matrix
    """(pixels,)."""
    components: Matrix
    """(k, pixels): orthonormal rows."""
    spread: Matrix
    """(k,): standard deviations, descending."""
    shape: tuple[int, int, int]
    """Height, width and channels of an image."""

    @classmethod
    def fit(cls, images: Images, k: int) -> Eigenfaces:
        """Fit (n, h, w, c) images, with at most k components, or as many as the images have.

        Raises:
            InputError: fewer than two images.
        """
        n = len(images)
        if n < 2:
            raise InputError("a generator is fitted on two faces at least")
        flat = images.reshape(n, -1).astype(np.float32)
        mean = flat.mean(axis=0)
        flat -= mean
        k = min(k, n - 1)
        # the (n, n) Gram matrix has the same non-zero eigenvalues as the covariance of the pixels
        if n <= flat.shape[1]:
            values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64) / n)
            values, vectors = np.maximum(values[::-1][:k], 1e-9), vectors[:, ::-1][:, :k]
            components = (flat.T @ vectors.astype(np.float32)).T / np.sqrt(n * values).astype(np.float32)[:, None]
        else:
            values, vectors = np.linalg.eigh((flat.T @ flat).astype(np.float64) / n)
            values, components = np.maximum(values[::-1][:k], 1e-9), vectors[:, ::-1][:, :k].T
        height, width, channels = images.shape[1:]
        return cls(
            mean,
            np.ascontiguousarray(components, np.float32),
            np.sqrt(values).astype(np.float32),
            (height, width, channels),
        )

    @property
    def k(self) -> int:
        """Coordinates of a latent."""
        return len(self.spread)

    def latents(self, images: Images) -> Matrix:
        """Return the latents (n, k) whose faces are closest to (n, h, w, c) images."""
        parts = [images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK)]
        found = [(part.reshape(len(part), -1) - self.mean) @ self.components.T / self.spread for part in parts]
        return np.concatenate(found).astype(np.float32)

    def images(self, latents: Matrix) -> Images:
        """Faces (n, h, w, c) of latents (n, k), float32, 0 to 255."""
        flat = self.mean + (latents * self.spread) @ self.components
        return np.clip(flat, 0, 255, out=flat).reshape(-1, *self.shape)

    def pull(self, latents: Matrix, slopes: Images) -> Matrix:
        """Turn the gradient `slopes` (n, h, w, c) in the faces into the gradient (n, k) in the latents."""
        flat = self.mean + (latents * self.spread) @ self.components
        within = np.where((flat < 0) | (flat > 255), 0, slopes.reshape(len(slopes), -1))
        result: Matrix = (within @ self.components.T * self.spread).astype(np.float32)
        return result

    def random(self, count: int, rng: np.random.Generator) -> Matrix:
        """Draw latents (count, k) of random faces, a little nearer to the mean than by chance: they look better."""
        return self.kept(np.float32(_TRUNCATED) * rng.standard_normal((count, self.k), np.float32))

    def kept(self, latents: Matrix) -> Matrix:
        """Shorten latents that are farther from the mean face than any face."""
        most = np.float32(REACH * self.k**0.5)
        length: npt.NDArray[np.float32] = np.linalg.norm(latents, axis=1, keepdims=True)
        result: Matrix = (latents * np.minimum(1, most / np.maximum(length, 1e-9))).astype(np.float32)
        return result
