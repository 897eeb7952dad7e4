"""Copies of stores in rows: what a thief of `sealed` gets, measured on the files of a real store.

    rows = sealed_rows(vectors, name="docs")

Attacks on vectors need index vectors. A `Copied` says how many a copy has, and what else of a collection shows in it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ... import low_level
from ...data import Matrix
from ...keys import Keyset
from ...sealing import DEFAULT_SCHEME
from ...store import connect
from .experiment import Row
from .findings import taken
from .hauls import Haul, guessed, hauls
from .metrics import wilson
from .theft import stolen

__all__ = ["Copied", "copies", "sealed_rows"]

_NAME = "records"
_UPSERT = 100


@dataclass(frozen=True)
class Copied:
    """What a copy of a store has of one collection."""

    copied: str
    """Name of the collection, or of the data that were stored."""
    records: int
    index_vectors: int
    plain: bool
    """Whether values of plain fields show."""
    blind: bool
    """Whether tokens of blind fields show."""

    @classmethod
    def of(cls, row: Any) -> Copied:
        """Read a row's JSON. Raises KeyError, TypeError or ValueError."""
        found = cls(
            str(row["copied"]),
            int(row["records"]),
            int(row["index_vectors"]),
            bool(row["plain"]),
            bool(row["blind"]),
        )
        if not 0 <= found.index_vectors <= found.records:
            raise ValueError("out of range")
        return found

    @classmethod
    def from_haul(cls, haul: Haul, name: str = "") -> Copied:
        """Say what was stolen."""
        vectors = 0 if haul.vectors is None else len(haul.vectors)
        return cls(name or haul.name, len(haul.rows), vectors, bool(haul.plain), haul.blind is not None)

    def row(self) -> Row:
        """Return it as JSON values."""
        return asdict(self)


def copies(rows: Iterable[Any]) -> tuple[list[Copied], list[Any]]:
    """Take what is said of copies out of rows or JSON lines; what else there is comes back."""
    return taken(rows, "copied", Copied.of)


def sealed_rows(vectors: Matrix, *, name: str, key: int = 0, upsert: int = _UPSERT) -> list[Row]:
    """Write vectors to a sealed store, steal its files, and say what they give.

    Args:
        vectors: (n, d), written in this order.
        name: what the data is called in rows.
        key: of the draws among records that cannot be told apart.
        upsert: records that are written together.

    Returns:
        What the copy has, as a row; and a row of how many records are named by who has the very same data in the
        order in which they were written, as rows of attacks are.
    """
    n, dim = vectors.shape
    ids = [str(place) for place in range(n)]
    with tempfile.TemporaryDirectory(prefix="encvec-lab-") as folder:
        url = f"faiss:{folder}/store"
        with connect(url, keyset=Keyset.create("memory:"), maintenance="manual") as store:
            things = store.collection(_NAME, dim, "cosine", DEFAULT_SCHEME)
            for start in range(0, n, upsert):
                things.upsert(ids[start : start + upsert], vectors[start : start + upsert])
            haul = hauls(stolen(url))[_NAME]
            place_of = {int(row): place for place, row in enumerate(low_level.places(things, ids))}
    places = np.array([place_of[row] for row in haul.rows.tolist()])
    sizes = np.zeros(n, np.int64)
    sizes[places] = haul.sizes
    named = guessed(haul, sizes, np.random.default_rng(key), ordered=True, sized=True) == places
    low, high = wilson(int(named.sum()), n)
    told = len(set(zip(haul.writes.tolist(), haul.sizes.tolist(), strict=True)))
    order = {
        "subject": DEFAULT_SCHEME, "parameters": {}, "attack": "order-and-sizes", "view": "files", "adversary": "same",
        "pairs": 0, "corpus": name, "n": n, "key": key, "beside": "order", "identified": float(named.mean()),
        "ci_low": low, "ci_high": high, "chance": told / n,
    }  # fmt: skip
    return [Copied.from_haul(haul, name).row(), order]
