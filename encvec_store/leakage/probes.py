"""Leaks beside identification: linkage of two keys, membership, attributes, norms, averaging, cells; imports attacks.

Each probe takes arrays and gives figures with their own chance level; none needs a key.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.stats import spearmanr

from .algebra import Matrix, centred, float32, unit
from .attacks.icp import principal
from .attacks.independent import components
from .metrics import auc, equal_error_rate, hits, true_accept_rate, unlinkability
from .subjects import Keyed
from .views import Case, View

__all__ = ["attributes", "averaging", "cell_leakage", "chosen_plaintext", "linkage", "membership", "norms"]

Labels = npt.NDArray[np.int64]
_PENALTY = 1e-3
_STRANGERS = 20


def linkage(first: Matrix, second: Matrix, *, noise: float = 0.0, seed: int = 0) -> dict[str, float | str]:
    """Link two dumps (n, k) of the same records under different keys: ISO/IEC 24745 unlinkability and renewability.

    Rows belong together; linkers do not know that. Gives the linker with the largest D_sys of those tried (as they
    are, principal components, independent components), with the permutation null beside it.
    """
    found: list[tuple[float, dict[str, float | str]]] = []
    for name, linker in _LINKERS.items():
        rng = np.random.default_rng(seed)
        shuffled = second[rng.permutation(len(second))]
        located = unit(linker(first, shuffled, noise, rng))
        placed = unit(centred(second))
        mated = np.einsum("ij,ij->i", located, placed)
        strangers = np.concatenate(
            [np.einsum("ij,ij->i", located, np.roll(placed, shift, axis=0)) for shift in range(1, _STRANGERS + 1)]
        )
        d = unlinkability(mated, strangers, seed=seed)
        row: dict[str, float | str] = {
            "linker": name,
            "d_sys": d.system,
            "d_sys_null": d.null,
            "rank_1": float(hits(located, placed).mean()),
            "chance": 1 / len(first),
            "eer": equal_error_rate(mated, strangers),
            "tar_at_far_0.1%": true_accept_rate(mated, strangers, 0.001),
        }
        found.append((d.system, row))
    return max(found, key=lambda pair: pair[0])[1]


def _linked_by(attack: Callable[[View, Case], Matrix]) -> Callable[..., Matrix]:
    def linker(first: Matrix, second: Matrix, noise: float, rng: np.random.Generator) -> Matrix:
        mean = second.mean(axis=0)
        # the other dump takes the corpus' place; both are noisy already
        seen = View("centred", centred(first), lambda x: x - mean, lambda x: x - mean)
        return attack(seen, Case(first, second, rng, noise))

    return linker


def _not_at_all(first: Matrix, second: Matrix, noise: float, rng: np.random.Generator) -> Matrix:
    return centred(first)


_LINKERS: dict[str, Callable[..., Matrix]] = {
    "none": _not_at_all,
    "pca-icp": _linked_by(principal),
    "components": _linked_by(components),
}


def membership(located: Matrix, members: Matrix, strangers: Matrix) -> dict[str, float]:
    """Tell whether a text is stored: by the cosine to the nearest located ciphertext, all in one frame."""
    scores = [(unit(side) @ unit(located).T).max(axis=1) for side in (members, strangers)]
    return {"auc": auc(scores[0], scores[1]), "chance": 0.5}


def attributes(located: Matrix, truth: Labels, placed: Matrix, labels: Labels) -> dict[str, float]:
    """Infer a label of each located record (n, q): logistic regression, trained on the corpus (m, q) and its labels."""
    names = np.unique(labels)
    codes = np.searchsorted(names, labels)
    inputs = np.concatenate([unit(placed), np.ones((len(placed), 1), np.float32)], axis=1).astype(np.float64)
    shape = (inputs.shape[1], len(names))

    def loss(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        weights = flat.reshape(shape)
        scores = inputs @ weights
        scores -= scores.max(axis=1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        slope = np.exp(logs)
        slope[np.arange(len(codes)), codes] -= 1
        value = -logs[np.arange(len(codes)), codes].mean() + _PENALTY / 2 * float(np.square(weights).sum())
        return float(value), (inputs.T @ slope / len(codes) + _PENALTY * weights).ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    seen = np.concatenate([unit(located), np.ones((len(located), 1), np.float32)], axis=1)
    guess = names[(seen @ found.x.reshape(shape)).argmax(axis=1)]
    common = names[np.bincount(codes).argmax()]
    return {"accuracy": float((guess == truth).mean()), "chance": float((truth == common).mean())}


def norms(ciphertexts: Matrix, vectors: Matrix) -> dict[str, float]:
    """How the ciphertexts' lengths follow the plaintexts' distances to their mean (Spearman), and how they spread."""
    lengths = np.linalg.norm(ciphertexts, axis=1)
    away = np.linalg.norm(centred(vectors), axis=1)
    return {
        "rank_correlation": float(spearmanr(lengths, away).statistic),
        "relative_spread": float(lengths.std() / lengths.mean()),
        "scale": float(lengths.mean()),
        "chance": 0.0,
    }


def averaging(keyed: Keyed, vectors: Matrix, times: int = 16) -> dict[str, float]:
    """Encrypt the same (n, d) again and again: cosine between two halves' means. One encryption's is the chance level.

    Where the noise is derived from the record, further encryptions are the same bytes; where it is fresh, it averages
    out and the cosine goes to 1.
    """
    runs = np.stack([keyed.store(vectors) for _ in range(times)])
    halves = [float32(runs[start::2].mean(axis=0)) for start in (0, 1)]
    return {
        "cosine": float(np.einsum("ij,ij->i", unit(halves[0]), unit(halves[1])).mean()),
        "chance": float(np.einsum("ij,ij->i", unit(runs[0]), unit(runs[1])).mean()),
        "repeats_equal": float((runs[0] == runs[1]).all()),
    }


def chosen_plaintext(keyed: Keyed, vectors: Matrix, *, length: float = 1.0, seed: int = 0) -> dict[str, float]:
    """Have 2 d vectors of one's own encrypted, solve for the map, and identify (n, d) records stored under the key.

    Norms above 1 drown the noise, where a scheme lets them in.
    """
    n, d = vectors.shape
    rng = np.random.default_rng(seed)
    own = unit(vectors.mean(axis=0) + vectors.std() * rng.standard_normal((2 * d, d)).astype(np.float32))
    made = keyed.store(own * np.float32(length))
    stored = keyed.store(vectors)
    inputs = np.concatenate([own * np.float32(length), np.ones((2 * d, 1), np.float32)], axis=1)
    matrix = np.linalg.lstsq(inputs, made, rcond=1e-4)[0].astype(np.float32)
    placed = np.concatenate([vectors, np.ones((n, 1), np.float32)], axis=1) @ matrix
    middle = stored.mean(axis=0)
    return {"identified": float(hits(stored - middle, placed - middle).mean()), "chance": 1 / n}


def cell_leakage(tokens: npt.NDArray[np.int64], labels: Labels) -> dict[str, float]:
    """What cells (n,) tell of labels (n,) by size and membership: mutual information over the labels' entropy.

    `chance` is the same with labels shuffled: small cells agree with anything.
    """
    rng = np.random.default_rng(0)
    return {
        "information": _information(tokens, labels),
        "chance": _information(tokens, rng.permutation(labels)),
        "largest_cell": float(np.unique(tokens, return_counts=True)[1].max() / len(tokens)),
    }


def _information(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> float:
    (names_a, a), (names_b, b) = (np.unique(side, return_inverse=True) for side in (a, b))
    joint = np.zeros((len(names_a), len(names_b)))
    np.add.at(joint, (a, b), 1 / len(a))
    left, right = joint.sum(axis=1), joint.sum(axis=0)
    inside = joint > 0
    shared = (joint[inside] * np.log(joint[inside] / np.outer(left, right)[inside])).sum()
    entropy = -(right * np.log(right)).sum()
    return float(shared / entropy) if entropy > 0 else 0.0
