"""Which positions of a graph a filter lets pass, ready for its searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .graph import Kept

if TYPE_CHECKING:
    from .state import Indexed

__all__ = ["PassingPositions"]


class PassingPositions:
    """The positions of a part that pass and are alive. Searches with the same filter use it again."""

    def __init__(self, part: Indexed, passing: npt.NDArray[np.bool_]) -> None:
        chosen = passing if part.alive is None else passing & part.alive
        self.bits = np.packbits(chosen, bitorder="little")
        self.passing = int(np.count_nonzero(chosen))
        self.kept = Kept()

    @property
    def bytes(self) -> int:
        """The memory held."""
        return self.bits.nbytes + self.kept.bytes
