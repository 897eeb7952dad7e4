"""Turn an embedding back into a face: by greedy search over a generator's latents, or by gradient.

E. Vendrow and J. Vendrow, "Realistic Face Reconstruction from Deep Embeddings" (NeurIPS workshop Privacy in Machine
Learning, 2021): begin with the nearest of many pre-generated faces, change its latent a little, embed the new face, and
keep it if it has come closer. Nothing is trained, and the model is a black box. An adversary who has the weights of the
model, as everybody has of a public one, can follow its gradient instead: `climb`.

All targets are attacked at the same time, so that the model gets batches. The state is saved now and then; a stopped
run continues from there, and gives the same result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .generator import Eigenfaces
from .models import Differentiable, Matrix, Model, unit

__all__ = ["Pool", "Trace", "climb", "pregenerate", "saved", "search"]

Progress = Callable[[int], None]
_KEEP = 50
"""Iterations between two saved states."""
_GROW, _SHRINK = 1.6, 0.88
"""How the size of a tweak follows success: it stays the same at one success in five (Rechenberg, 1973)."""
_FIRST, _LEAST, _MOST = 0.12, 0.004, 0.4
_MOMENTUM = 0.6
_RATE, _PRIOR = 0.06, 2e-4
_BETAS = (0.9, 0.99)


@dataclass(frozen=True, eq=False)
class Pool:
    """Pre-generated faces: latents (m, k) and their embeddings (m, d). The same for every target."""

    latents: Matrix
    vectors: Matrix


@dataclass
class Trace:
    """What a loop has reached for p targets, and its history."""

    latents: Matrix
    """(p, k): the best so far."""
    scores: Matrix
    """(p,): cosine of their embeddings to the targets."""
    iteration: int = 0
    frames: dict[int, Matrix] = field(default_factory=dict)
    """Iteration -> the best latents (p, k) then."""
    curve: list[tuple[int, float]] = field(default_factory=list)
    """(iteration, mean score)."""
    extra: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)
    """What the loop itself needs to continue."""
    random: str = ""
    """State of the random number generator."""

    def save(self, path: Path) -> None:
        """Save the state, completely or not at all."""
        arrays = {f"extra_{name}": value for name, value in self.extra.items()}
        arrays |= {f"frame_{at}": value for at, value in self.frames.items()}
        saved(
            path,
            latents=self.latents,
            scores=self.scores,
            iteration=np.array(self.iteration),
            curve=np.array(self.curve, np.float64).reshape(-1, 2),
            random=np.array(self.random),
            **arrays,
        )

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Read back what `save` wrote."""
        with np.load(path, allow_pickle=False) as kept:
            return cls(
                kept["latents"],
                kept["scores"],
                int(kept["iteration"]),
                {int(name[6:]): kept[name] for name in kept.files if name.startswith("frame_")},
                [(int(at), float(score)) for at, score in kept["curve"]],
                {name[6:]: kept[name] for name in kept.files if name.startswith("extra_")},
                str(kept["random"]),
            )


def saved(path: Path, **arrays: npt.NDArray[Any]) -> None:
    """Save arrays in an .npz file, completely or not at all."""
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    scratch.replace(path)


def pregenerate(
    model: Model, generator: Eigenfaces, count: int, seed: int, progress: Progress = lambda done: None
) -> Pool:
    """Make random faces and embed them."""
    latents = generator.random(count, np.random.default_rng(seed))
    vectors = np.empty((count, model.dim), np.float32)
    for start in range(0, count, 64):
        part = slice(start, start + 64)
        vectors[part] = model.embed(generator.images(latents[part]))
        progress(len(latents[part]))
    return Pool(latents, vectors)


def nearest(pool: Pool, targets: Matrix) -> tuple[Matrix, Matrix]:
    """Return latents (p, k) of the pre-generated faces nearest to targets (p, d), and their cosines (p,)."""
    alike = unit(targets) @ pool.vectors.T
    best = alike.argmax(axis=1)
    return pool.latents[best].copy(), alike[np.arange(len(best)), best]


def search(
    model: Model,
    generator: Eigenfaces,
    pool: Pool,
    targets: Matrix,
    iterations: int,
    *,
    seed: int = 0,
    frames: Sequence[int] = (),
    state: Path | None = None,
    progress: Progress = lambda done: None,
) -> Trace:
    """Run the black-box loop: one embedding per target and iteration.

    Args:
        model: is asked, never opened.
        generator: of the latents that are tweaked.
        pool: to begin from.
        targets: (p, d): what the adversary takes for embeddings.
        iterations: of the loop; fewer where `state` has some already.
        seed: of the tweaks.
        frames: iterations of which the faces are kept.
        state: file to go on from, and to write to.
        progress: called with 1 after each iteration.
    """
    wanted = unit(targets)
    trace, rng = _begin(pool, wanted, seed, state)
    if not trace.extra:
        trace.extra = {"step": np.full(len(wanted), _FIRST, np.float32), "drift": np.zeros_like(trace.latents)}
    step, drift = trace.extra["step"].astype(np.float32), trace.extra["drift"].astype(np.float32)
    progress(min(trace.iteration, iterations))
    while trace.iteration < iterations:
        tweak = rng.standard_normal(trace.latents.shape, np.float32)
        tweak += _MOMENTUM * drift
        tried = generator.kept(trace.latents + step[:, None] * tweak)
        score = np.einsum("ij,ij->i", model.embed(generator.images(tried)), wanted)
        better = score > trace.scores
        trace.latents[better], trace.scores[better] = tried[better], score[better]
        drift[better] = 0.5 * drift[better] + 0.5 * tweak[better]
        drift[~better] *= np.float32(0.97)
        step = np.clip(np.where(better, step * _GROW, step * _SHRINK), _LEAST, _MOST).astype(np.float32)
        _advance(trace, rng, frames, iterations, state, {"step": step, "drift": drift})
        progress(1)
    return trace


def climb(
    model: Differentiable,
    generator: Eigenfaces,
    pool: Pool,
    targets: Matrix,
    iterations: int,
    *,
    seed: int = 0,
    frames: Sequence[int] = (),
    state: Path | None = None,
    progress: Progress = lambda done: None,
) -> Trace:
    """Run the white-box loop: Adam (Kingma and Ba, ICLR 2015) maximises the cosine, with a weak pull to the mean face.

    Takes the arguments of `search`. An iteration costs about as much as three embeddings.
    """
    wanted = unit(targets)
    trace, rng = _begin(pool, wanted, seed, state)
    if not trace.extra:
        zero = np.zeros_like(trace.latents)
        trace.extra = {"at": trace.latents.copy(), "mean": zero, "square": zero.copy()}
    at, mean, square = (trace.extra[name].astype(np.float32) for name in ("at", "mean", "square"))
    progress(min(trace.iteration, iterations))
    while trace.iteration < iterations:
        score, slopes = model.pull(generator.images(at), wanted)
        better = score > trace.scores
        trace.latents[better], trace.scores[better] = at[better], score[better]
        slope = generator.pull(at, slopes) - np.float32(_PRIOR) * at
        t = trace.iteration + 1
        mean = (_BETAS[0] * mean + (1 - _BETAS[0]) * slope).astype(np.float32)
        square = (_BETAS[1] * square + (1 - _BETAS[1]) * np.square(slope)).astype(np.float32)
        fraction = t / max(iterations, 1)
        rate = _RATE * (1 - 0.8 * fraction)
        at = generator.kept(at + rate * (mean / (1 - _BETAS[0] ** t)) / (np.sqrt(square / (1 - _BETAS[1] ** t)) + 1e-8))
        _advance(trace, rng, frames, iterations, state, {"at": at, "mean": mean, "square": square})
        progress(1)
    return trace


def _begin(pool: Pool, wanted: Matrix, seed: int, state: Path | None) -> tuple[Trace, np.random.Generator]:
    rng = np.random.default_rng(seed)
    if state is not None and state.exists():
        trace = Trace.load(state)
        if len(trace.latents) == len(wanted):
            rng.bit_generator.state = json.loads(trace.random)
            return trace, rng
    latents, scores = nearest(pool, wanted)
    trace = Trace(latents, scores, frames={0: latents.copy()}, curve=[(0, float(scores.mean()))])
    return trace, rng


def _advance(
    trace: Trace,
    rng: np.random.Generator,
    frames: Sequence[int],
    iterations: int,
    state: Path | None,
    extra: dict[str, npt.NDArray[np.floating]],
) -> None:
    trace.iteration += 1
    if trace.iteration in frames or trace.iteration == iterations:
        trace.frames[trace.iteration] = trace.latents.copy()
    if trace.iteration % 10 == 0 or trace.iteration == iterations:
        trace.curve.append((trace.iteration, float(trace.scores.mean())))
    trace.extra = extra
    if state is not None and (trace.iteration % _KEEP == 0 or trace.iteration == iterations):
        trace.random = json.dumps(rng.bit_generator.state)
        trace.save(state)
