"""How a thief attacks a collection in cells: which parts are attacked separately, and which records count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...data import Matrix
from .algebra import Cells, Indices, Statistics, unit
from .views import Case

__all__ = ["LEAST", "Part", "drawn", "parts", "ways"]

LEAST = 10
"""A cell with fewer records or texts than this is not attacked alone."""


_ALONE = ("together", "each", "told")
_PAIRED = ("with pairs", "without pairs")


@dataclass(frozen=True)
class Part:
    """One part that is attacked separately."""

    case: Case
    rows: Indices
    """(n,): the record in the collection of each ciphertext of the case."""
    counted: Indices
    """Positions of the ciphertexts that count if they are identified."""
    among: Indices
    """(m,): the records of the collection that they might be."""


def ways(parameters: Mapping[str, Any], paired: bool) -> tuple[str, ...]:
    """Return how a subject with these parameters is attacked: one way, without a name, where there are no cells.

    Without pairs: all cells `together`, as if there were none; `each` by itself; `told`, each against those of the
    thief's texts that would lie in it, as if the centroids of cells by content were known, and named among its own.
    With pairs, all in one cell: the other records of that cell (`with pairs`), or those of all other cells (`without
    pairs`).
    """
    if (parameters.get("cells") or 1) == 1:
        return ("",)
    return _PAIRED if paired else _ALONE


def drawn(cells: Cells, pairs: int, rng: np.random.Generator) -> Indices:
    """Draw the known records. With several cells, all lie in one cell and are at most half of it."""
    home = np.flatnonzero(cells == cells.min())
    most = len(home) if len(home) == len(cells) else len(home) // 2
    return home[rng.choice(len(home), min(pairs, most), replace=False)]


def parts(way: str, case: Case, cells: Cells, sorts: Callable[[Matrix], Cells] | None) -> list[Part]:
    """Cut a case on a whole collection, in cells (n,), into what is attacked by itself. Empty: not for this subject."""
    everything = np.arange(len(cells))
    if way in ("", "together"):
        return [Part(case, everything, np.delete(everything, case.pairs), everything)]
    if way == "told":
        return [] if sorts is None else list(_told(case, cells, sorts))
    if way == "each":
        return [Part(case.only(rows), rows, np.arange(len(rows)), everything) for _, rows in _members(cells)]
    home = cells[case.pairs[0]]
    found = []
    for cell, rows in _members(cells):
        if (cell == home) != (way == "with pairs"):
            continue
        # pairs stand first: where they are of another cell, the attack takes both for one
        others = np.setdiff1d(rows, case.pairs)
        stacked = np.concatenate([case.pairs, others])
        known = np.arange(len(case.pairs))
        found.append(Part(case.only(stacked, known), stacked, np.arange(len(known), len(stacked)), everything))
    return found


def _members(cells: Cells) -> Iterator[tuple[int, Indices]]:
    yield from ((int(cell), np.flatnonzero(cells == cell)) for cell in np.unique(cells))


def _told(case: Case, cells: Cells, sorts: Callable[[Matrix], Cells]) -> Iterator[Part]:
    """Against the cell's own texts; the statistics are those of all, as the scheme's are, and as good as public."""
    known = case.corpus if case.background is None else np.concatenate([case.corpus, case.background])
    fit = Statistics.fit(known, case.ciphertexts.shape[1])
    topics = sorts(case.corpus)
    for cell, rows in _members(cells):
        mine = case.corpus[topics == cell]
        told = replace(
            case.only(rows),
            corpus=mine if len(mine) >= LEAST else case.corpus,
            groups={},
            background=known,
            public=lambda vectors: unit(fit.whitened(vectors)),
        )
        yield Part(told, rows, np.arange(len(rows)), rows)
