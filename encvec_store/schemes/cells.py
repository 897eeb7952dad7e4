"""Cells: parts of a collection, each with its own rotation and noise.

The cell of a record is a PRF of its token, so a cell is a random part of the collection, independent of the vectors.
Sizes and members of cells tell nothing, and every cell has the statistics of the whole collection. Known pairs in one
cell tell nothing of another cell's rotation, and no rotation has more ciphertexts than one cell holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..crypto.labels import Purpose, derive
from ..crypto.prf import Pmac
from ..data.arrays import Kept, Matrix
from ..data.values import integer
from ..errors import SchemeError
from .base import Cells, Context, Nonces
from .device import Device
from .noise import CENTRE, Noise, lengths
from .rotation import rotation, turning

__all__ = ["MAX_CELLS", "KeyedCells", "check_cells"]

MAX_CELLS = 4096


def check_cells(scheme: str, cells: Any) -> int:
    """Return a number of cells. Raises SchemeError."""
    checked = integer(cells)
    if checked is None or not 1 <= checked <= MAX_CELLS:
        raise SchemeError(f"{scheme}: cells must be an integer from 1 to {MAX_CELLS}, got {cells!r}")
    return checked


class KeyedCells:
    """A scheme over cells, with the keys of one collection and key version.

    Args:
        root: root key.
        owner: tenant, name and incarnation of the collection.
        parameters: the scheme and its parameters, with the number of cells.
        asked: parameters that only queries have.
        cells: the number of cells.
        dim: coordinates of an index vector.
        stored: maps (n, point_dim) points of records to (n, dim), before the rotation. Returns a new array on the
            device.
        queried: the same for queries, on the CPU.
        radius: radius of the noise on records.
        query_radius: radius of the noise on queries.
        sphere: True if ciphertexts lie on the unit sphere.
        device: where records are encrypted.
    """

    def __init__(
        self,
        root: bytes,
        owner: Context,
        parameters: Context,
        asked: Context,
        cells: int,
        dim: int,
        *,
        stored: Callable[[Matrix], Matrix],
        queried: Callable[[Matrix], Matrix],
        radius: float,
        query_radius: float,
        sphere: bool,
        device: Device,
    ) -> None:
        self.cells = cells
        self._dim, self._stored, self._queried = dim, stored, queried
        self._sphere, self._query_radius = sphere, query_radius
        self._assign = Pmac(derive(root, Purpose.CELL, *owner))
        each = [(*owner, *parameters, f"cell={cell}") for cell in range(cells)]
        self._turns = [rotation(derive(root, Purpose.ROTATION, *one), dim) for one in each]
        self._device, self._turned = device, [turning(turn, dim, device, keep=False) for turn in self._turns]
        self._noises = [Noise(root, one, asked, radius, query_radius, sphere=sphere) for one in each]

    def cells_of(self, tokens: Nonces) -> Cells:
        """Return the cell of each of (n, 16) tokens."""
        drawn = np.ascontiguousarray(self._assign.tags(tokens)[:, :8]).view(">u8").reshape(-1)
        return (drawn % np.uint64(self.cells)).astype(np.int64)

    def encrypt(self, points: Matrix, tokens: Nonces, kept: Kept) -> tuple[Matrix, Nonces]:
        """Encrypt (n, point_dim) points, each under the keys of its cell."""
        out, nonces = self._stored(points), np.empty((len(points), 16), np.uint8)
        for cell, rows in self._members(tokens):
            part = self._turned[cell](out[rows])
            nonces[rows] = self._noises[cell].on_records(part, tokens[rows], kept[rows])
            out[rows] = part
        return self._device.get(out), nonces

    def encrypt_queries(self, points: Matrix) -> Matrix:
        """Encrypt (q, point_dim) queries for every cell: (cells, q, dim)."""
        before = self._queried(points)
        plain = not self._query_radius and (not self._sphere or bool((lengths(before) >= CENTRE).all()))
        if plain and self._sphere:
            before /= lengths(before)[:, None]  # once for all cells, because rotations keep lengths
        out = np.empty((self.cells, len(points), self._dim), np.float32)
        for cell, turn in enumerate(self._turns):
            out[cell] = turn.apply(before)
            if not plain:
                self._noises[cell].on_queries(out[cell], points)
        return out

    def aligned(self, index_vectors: Matrix, tokens: Nonces) -> Matrix:
        """Rotate (n, dim) index vectors back, so that those of all cells compare."""
        out = np.empty_like(index_vectors)
        for cell, rows in self._members(tokens):
            out[rows] = self._turns[cell].invert(index_vectors[rows])
        return out

    def decrypt(self, index_vectors: Matrix, nonces: Nonces) -> Matrix:
        """Refuse: the exact vector is in the sealed record."""
        raise SchemeError("index vectors in cells cannot be decrypted: the exact vector is in the sealed record")

    def _members(self, tokens: Nonces) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Yield each cell that has some of the records, with their places."""
        cells = self.cells_of(tokens)
        order = np.argsort(cells, kind="stable")
        starts = np.searchsorted(cells[order], np.arange(1, self.cells))
        yield from ((cell, rows) for cell, rows in enumerate(np.split(order, starts)) if len(rows))
