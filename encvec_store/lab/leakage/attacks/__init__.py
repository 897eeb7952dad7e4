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
from .baselines import known_sample, mini_vec2vec
from .blind import tokens
from .cliques import cliques
from .coordinates import coordinates
from .expectation import grouped, informed
from .icp import principal
from .independent import components, sorted_components
from .moments import density, fobi
from .pairs import anchored, permutation, rotation, straight
from .profiles import profiles, spectral
from .snapshots import snapshots
from .transport import transport

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
    source: str = "own"
    """Whose method it is; `own` where it was put together here, of parts that its docstring cites."""


def _as_it_is(view: View, case: Case) -> Matrix:
    """Do not align at all. Demonstrations of safety usually measure this."""
    return centred(view.cipher)


_ISOMETRIC = ("centred", "recoloured", "public")
_WHITE = ("sphere", "whitened")

ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (
        Attack("naive", "corpus", _as_it_is, ("raw",), "none"),
        Attack("coordinates", "corpus", coordinates, ("raw",)),
        Attack("pca-icp", "corpus", principal, _ISOMETRIC, "Besl and McKay 1992"),
        Attack("components", "corpus", components, _WHITE),
        Attack("fobi", "corpus", fobi, ("whitened",), "Cardoso 1989"),
        Attack("density", "corpus", density, ("sphere",)),
        Attack("profiles", "corpus", profiles, ("centred", "sphere")),
        Attack("graph", "corpus", spectral, ("centred", "sphere"), "GRAMPA, Fan et al. 2023"),
        Attack("cliques", "corpus", cliques, ("sphere", "centred")),
        Attack("wasserstein-procrustes", "corpus", transport, ("centred", "sphere"), "Grave, Joulin and Berthet 2019"),
        Attack("mini-vec2vec", "corpus", mini_vec2vec, ("centred", "sphere"), "Dar 2025"),
        Attack("ak-ica", "corpus", known_sample, ("whitened", "sphere"), "Guo and Wu 2007"),
        Attack("pairs-permutation", "pairs", permutation, ("raw",)),
        Attack("pairs-rotation", "pairs", rotation, ("centred", "sphere"), "Schonemann 1966; SHARD, Kurilenko 2026"),
        Attack("pairs-ridge", "pairs", straight, ("centred", "sphere"), "ALGEN, Chen et al. 2025"),
        Attack("pairs-anchored", "pairs", anchored, ("centred", "sphere")),
        Attack("pairs-expectation", "pairs", informed, ("centred", "sphere")),
        Attack("classes", "classes", partial(grouped, by="classes"), ("centred", "sphere")),
        Attack("classes-components", "classes", sorted_components, ("sphere",)),
        Attack("tokens", "tokens", tokens, ("centred", "sphere")),
        Attack("sizes", "sizes", partial(grouped, by="sizes"), ("centred", "sphere")),
        Attack("order", "order", partial(grouped, by="order"), ("centred", "sphere")),
        Attack("snapshots", "dumps", snapshots, ("sphere",), "Gower 1975"),
    )
}
"""Name -> attack."""
