"""The experiment: photographs are stored encrypted, stolen, and rebuilt.

The stages are: embed, fit the thief's generator, steal, attack each subject by both loops, judge. Each stage keeps its
output in the run's folder, so that a stopped run can continue. Keys are fresh in each run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from encvec_store.lab.leakage.sealed import sealed_rows

from . import attack
from .attack import Trace, saved
from .generator import Eigenfaces
from .inversion import Inverter
from .measures import Judge, Verdict, by_chance, threshold
from .models import Differentiable, Images, Matrix, Model
from .photographs import Photographs
from .setting import Bar, Settings, Split, Vectors, embedded, open_folder, split
from .subjects import PAIRS, SKETCH, Stolen, aligned, as_it_is, normalised, stolen, under_a_wrong_key

__all__ = ["FRAMES", "Experiment", "Peer"]

Peer = Callable[[Matrix], tuple[dict[str, Any], Matrix]]
"""Another product's encryption of (n, d) embeddings under a fresh key: its parameters, and ciphertexts (n, k)."""
FRAMES = (25, 50, 100, 200, 400, 800, 1200, 1600)
_FITTED = 4_000
_JUDGED = 2_500


@dataclass(frozen=True)
class Experiment:
    """A run in a folder.

    Args:
        folder: for everything that is made.
        photographs: of people.
        model: that is attacked.
        second: another model, which the thief does not have; None where there is none.
        settings: of the run.
        peers: other products' encryption, by name.
        bar: opens progress bars.
        jobs: attacks that run at the same time, a thread each.
        lab: names of the lab's attacks to align by; None is all that suit.
    """

    folder: Path
    photographs: Photographs
    model: Model
    second: Model | None
    settings: Settings
    bar: Bar
    peers: Mapping[str, Peer] = field(default_factory=dict)
    jobs: int = 2
    lab: tuple[str, ...] | None = None

    def open(self) -> None:
        """Create the folder. Raises InputError if it holds another run."""
        about = {"data": self.photographs.name, "photographs": len(self.photographs), "model": self.model.name}
        open_folder(self.folder, self.settings, about)

    # -------------------------------------------------------------------------------------- stages

    @cached_property
    def parts(self) -> Split:
        """Who is the thief, and who is stored."""
        return split(self.photographs, self.settings.people, self.settings.seed)

    @cached_property
    def vectors(self) -> Vectors:
        """Embeddings under the attacked model."""
        return embedded(self.photographs, self.parts, self.model, self.folder, self.bar, self.settings.seed)

    @cached_property
    def generator(self) -> Eigenfaces:
        """The thief's generator, fitted on his own photographs and their mirror images: faces are nearly symmetric."""
        path = self.folder / "generator.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                height, width, channels = kept["shape"].tolist()
                return Eigenfaces(kept["mean"], kept["components"], kept["spread"], (height, width, channels))
        with self.bar("fitting the generator", 1) as advance:
            images = self.own_images
            taken = np.concatenate([images, images[:, :, ::-1]])[:_FITTED]
            made = Eigenfaces.fit(taken, self.settings.components)
            advance(1)
        shape = np.array(made.shape)
        np.savez(path, allow_pickle=False, mean=made.mean, components=made.components, spread=made.spread, shape=shape)
        return made

    @cached_property
    def own_images(self) -> Images:
        """The thief's photographs at the generator's size, at most as many as it is fitted on."""
        rng = np.random.default_rng(self.settings.seed)
        rows = rng.permutation(self.parts.own)[:_FITTED]
        return self.photographs.images(rows, self.settings.side)

    @cached_property
    def pool(self) -> attack.Pool:
        """Pre-generated faces."""
        path = self.folder / "pool.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                return attack.Pool(kept["latents"], kept["vectors"])
        with self.bar("embedding pre-generated faces", self.settings.pool) as advance:
            made = attack.pregenerate(self.model, self.generator, self.settings.pool, self.settings.seed, advance)
        np.savez(path, allow_pickle=False, latents=made.latents, vectors=made.vectors)
        return made

    @cached_property
    def subjects(self) -> tuple[dict[str, Matrix], dict[str, Any]]:
        """What the thief takes for embeddings, by name: targets (p, d), and facts about each."""
        arrays, facts = self.folder / "subjects.npz", self.folder / "subjects.json"
        if arrays.exists() and facts.exists():
            with np.load(arrays, allow_pickle=False) as kept:
                return dict(kept), json.loads(facts.read_text(encoding="utf-8"))
        targets, about = self._steal()
        saved(arrays, **targets)
        facts.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        return targets, about

    def _steal(self) -> tuple[dict[str, Matrix], dict[str, Any]]:
        vectors, places = self.vectors, self.vectors.places
        own, dim = vectors.own, vectors.stored.shape[1]
        schemes: dict[str, Mapping[str, Any]] = {
            "encrypted": SKETCH,
            "sap": {"name": "sap", "beta": self.settings.sap_beta},
        }
        targets = {"plaintext": vectors.stored[places]}
        about: dict[str, Any] = {"stored": len(vectors.stored), "further_views": vectors.views}
        copied, _ = sealed_rows(vectors.stored, name="photographs")
        about["sealed"] = {"name": "sealed", "records": copied["records"], "index_vectors": copied["index_vectors"]}
        with self.bar("stealing, and aligning without the key", 2 * (len(PAIRS) + 1) + len(self.peers)) as advance:
            for name, scheme in schemes.items():
                loot, before = (
                    self._stolen(name, partial(stolen, vectors.stored, scheme)),
                    "" if scheme is SKETCH else f"{name}_",
                )
                taken = loot.ciphertexts[places]
                targets[name] = as_it_is(taken, dim)
                targets[f"{name}_normalised"] = normalised(loot, places, own)
                targets[f"{before}wrong_key"] = under_a_wrong_key(taken, loot.scheme, own)
                targets[f"{before}mapper"] = under_a_wrong_key(taken, loot.scheme, own, trained=True)
                about[name] = {part: loot.scheme.get(part) for part in ("name", "k", "beta", "gamma")}
                advance(1)
                for pairs in PAIRS:
                    self._align(f"{before}aligned_{pairs}", loot, pairs, targets, about)
                    advance(1)
            for name, peer in self.peers.items():
                loot = self._stolen(name, lambda peer=peer: Stolen(*peer(vectors.stored)))  # type: ignore[misc]
                targets[name] = as_it_is(loot.ciphertexts[places], dim)
                about[name] = loot.scheme
                self._align(f"{name}_aligned_0", loot, 0, targets, about)
                advance(1)
        return targets, about

    def _align(self, name: str, loot: Stolen, pairs: int, targets: dict[str, Matrix], about: dict[str, Any]) -> None:
        vectors, seed, path = self.vectors, self.settings.seed, self.folder / f"{name}.npz"
        if not path.exists():
            best = aligned(loot, vectors.stored, vectors.places, vectors.own, pairs, seed=seed, attacks=self.lab)
            made = {name: best.targets}
            if pairs == max(PAIRS):
                made[name.replace("aligned", "mapped")] = best.trained()
            saved(path, facts=np.array(json.dumps(best.facts())), **made)
        with np.load(path, allow_pickle=False) as kept:
            about[name] = json.loads(str(kept["facts"]))
            targets |= {made: kept[made] for made in kept.files if made != "facts"}

    def _stolen(self, name: str, steal: Callable[[], Stolen]) -> Stolen:
        """Steal what a store holds, once: a stopped run continues under the same key."""
        path = self.folder / f"stolen-{name}.npz"
        if not path.exists():
            loot = steal()
            saved(path, ciphertexts=loot.ciphertexts, scheme=np.array(json.dumps(dict(loot.scheme))))
        with np.load(path, allow_pickle=False) as kept:
            return Stolen(json.loads(str(kept["scheme"])), kept["ciphertexts"])

    # -------------------------------------------------------------------------------------- attacks

    def loops(self) -> tuple[str, ...]:
        """Names of the loops that run."""
        both = self.settings.climb > 0 and isinstance(self.model, Differentiable)
        return ("search", "climb") if both else ("search",)

    def attack(self, names: tuple[str, ...] | None = None) -> None:
        """Run every loop on every subject, some at the same time: first all up to the first figures, then to the end.

        Saves the states in the folder; `trace` reads them.
        """
        targets, _ = self.subjects
        chosen = [name for name in names or tuple(targets) if name in targets]
        first, *later = self.settings.iterations
        rounds = [("search", first), *((loop, self.settings.climb) for loop in self.loops()[1:])]
        rounds += [("search", count) for count in later]
        lock = Lock()
        self.pool, self.generator  # noqa: B018 - made before threads ask for them
        total = max(self.settings.iterations) + (self.settings.climb if len(self.loops()) > 1 else 0)
        done: dict[tuple[str, str], int] = {}
        with self.bar("attacking", total * len(chosen)) as advance:

            def run(name: str, loop: str, count: int) -> None:
                start = done.get((name, loop), 0)
                at = [0]

                def moved(steps: int) -> None:
                    at[0] += steps  # the first call says at which iteration the loop continues
                    if at[0] > done.get((name, loop), 0):
                        with lock:
                            advance(at[0] - max(start, done.get((name, loop), 0)))
                        done[name, loop] = at[0]

                state = self.folder / f"state-{name}-{loop}.npz"
                frames = (*FRAMES, *self.settings.iterations)
                rest: Any = {"seed": self.settings.seed, "frames": frames, "state": state, "progress": moved}
                if loop == "climb" and isinstance(self.model, Differentiable):
                    attack.climb(self.model, self.generator, self.pool, targets[name], count, **rest)
                else:
                    attack.search(self.model, self.generator, self.pool, targets[name], count, **rest)

            with ThreadPoolExecutor(self.jobs) as threads:
                for loop, count in rounds:  # one after another, so that no two threads write the same state
                    list(threads.map(lambda name, loop=loop, count=count: run(name, loop, count), chosen))

    def trace(self, name: str, loop: str) -> Trace | None:
        """The state of a loop on a subject; None if it has not begun."""
        path = self.folder / f"state-{name}-{loop}.npz"
        return Trace.load(path) if path.exists() else None

    @cached_property
    def inverter(self) -> Inverter:
        """The ridge regression, trained on the thief's photographs and his pre-generated faces."""
        rng = np.random.default_rng(self.settings.seed)
        rows = rng.permutation(self.parts.own)[:_FITTED]
        latents = np.concatenate([self.generator.latents(self.own_images), self.pool.latents])
        return Inverter(np.concatenate([self.vectors.all[rows], self.pool.vectors]), latents, self.settings.seed)

    # -------------------------------------------------------------------------------------- judging

    @cached_property
    def judges(self) -> list[tuple[Model, Judge]]:
        """Verifiers of the attacked and of the second model; thresholds are set on the thief's half."""
        found = []
        for model in filter(None, (self.model, self.second)):
            exact: Model = getattr(model, "exact_model", model)
            rng = np.random.default_rng(self.settings.seed)
            rows = self.parts.own
            rows = rows if model is self.model else np.sort(rng.permutation(rows)[:_JUDGED])
            path = self.folder / f"judge-{model.name}.npy"
            if model is self.model:
                vectors = self.vectors.all[rows]
            elif path.exists():
                vectors = np.load(path, allow_pickle=False)
            else:
                vectors = self._embed(model, rows, f"embedding for {model.name}")
                np.save(path, vectors)
            faces = [self._embed(exact, part, "") for part in (self.parts.targets, self.parts.other)]
            others = tuple(self._embed(exact, part[:10], "") for part in self.parts.others)
            limit = threshold(vectors, self.photographs.labels[rows])
            found.append((exact, Judge(model.name, limit, faces[0], faces[1], others)))
        return found

    def _embed(self, model: Model, rows: Any, title: str) -> Matrix:
        if not title:
            return model.embed(self.photographs.images(rows))
        out = np.empty((len(rows), model.dim), np.float32)
        with self.bar(title, len(rows)) as advance:
            for start in range(0, len(rows), 64):
                part = slice(start, start + 64)
                out[part] = model.embed(self.photographs.images(rows[part]))
                advance(len(out[part]))
        return out

    def verdicts(self, latents: Matrix) -> dict[str, Verdict]:
        """What each judge says of reconstructions from latents (p, k), rounded to whole pixels."""
        images = np.round(self.generator.images(latents)).astype(np.uint8)
        return {judge.name: judge.verdict(model.embed(images)) for model, judge in self.judges}

    def chance(self) -> dict[str, dict[str, Any]]:
        """What each judge says of random faces of the generator."""
        images = np.round(self.generator.images(self.pool.latents)).astype(np.uint8)
        found = {}
        for model, judge in self.judges:
            quick = self.pool.vectors if judge.name == self.model.name else model.embed(images)
            found[judge.name] = by_chance(judge, quick)
        return found
