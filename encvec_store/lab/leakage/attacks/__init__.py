"""The attacks, one file for each family, and the table of all of them.

An attack maps ciphertexts into the coordinates of a view's frame; the experiment scores whether it hit. A reported
figure is the maximum over the table, never the result of one attack: a naive attack also "fails" against a public
constant, so its failure proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ....data import Matrix
from ..algebra import centred
from ..views import Case, View
from .blind import tokens
from .cliques import cliques
from .coordinates import coordinates
from .expectation import grouped, informed
from .icp import principal
from .independent import components
from .moments import density, fobi
from .pairs import anchored, permutation, rotation, straight
from .profiles import profiles, spectral
from .snapshots import snapshots
from .transport import clusters, transport

__all__ = ["ATTACKS", "BESIDE", "Attack"]

BESIDE = ("classes", "tokens", "sizes", "order", "dumps")
"""What an adversary may have beside index vectors and a corpus: see `Case`."""


@dataclass(frozen=True)
class Attack:
    """A row of the table."""

    name: str
    holds: str
    """What the adversary has besides ciphertexts, algorithm and corpus: `corpus` for nothing, `pairs`, or of BESIDE."""
    run: Callable[[View, Case], Matrix]
    """Maps the ciphertexts of a view (n, q) to their estimated places in its frame (n, q)."""
    views: tuple[str, ...]
    """The views it is tried in."""


def _as_it_is(view: View, case: Case) -> Matrix:
    """Do not align at all. Demonstrations of safety usually measure this."""
    return centred(view.cipher)


_ISOMETRIC = ("centred", "recoloured", "public")
_WHITE = ("sphere", "whitened")

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("naive", "corpus", _as_it_is, ("raw",)),
        Attack("coordinates", "corpus", coordinates, ("raw",)),
        Attack("pca-icp", "corpus", principal, _ISOMETRIC),
        Attack("components", "corpus", components, _WHITE),
        Attack("fobi", "corpus", fobi, ("whitened",)),
        Attack("density", "corpus", density, ("sphere",)),
        Attack("profiles", "corpus", profiles, ("centred", "sphere")),
        Attack("graph", "corpus", spectral, ("centred", "sphere")),
        Attack("cliques", "corpus", cliques, ("sphere", "centred")),
        Attack("transport", "corpus", transport, ("centred", "sphere")),
        Attack("clusters", "corpus", clusters, ("centred", "sphere")),
        Attack("pairs-permutation", "pairs", permutation, ("raw",)),
        Attack("pairs-rotation", "pairs", rotation, ("centred", "sphere")),
        Attack("pairs-ridge", "pairs", straight, ("centred", "sphere")),
        Attack("pairs-anchored", "pairs", anchored, ("centred", "sphere")),
        Attack("pairs-expectation", "pairs", informed, ("centred", "sphere")),
        Attack("classes", "classes", partial(grouped, by="classes"), ("centred", "sphere")),
        Attack("tokens", "tokens", tokens, ("centred", "sphere")),
        Attack("sizes", "sizes", partial(grouped, by="sizes"), ("centred", "sphere")),
        Attack("order", "order", partial(grouped, by="order"), ("centred", "sphere")),
        Attack("snapshots", "dumps", snapshots, ("sphere",)),
    )
}
"""Name -> attack."""
