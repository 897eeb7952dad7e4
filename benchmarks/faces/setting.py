"""Who is a victim and who is the thief's, embeddings of both, and the settings of a run.

Everything that the thief has comes from his half: his generator, his embeddings, his statistics. No victim is in it.
A collection has index vectors from 5,000 records on. If a half has fewer photographs, further views of them (mirrored,
moved, brighter or darker) are added, and the results say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encvec_store.errors import InputError
from encvec_store.schemes import LEAST_RECORDS

from .models import Matrix, Model
from .photographs import Photographs, jittered

__all__ = ["Bar", "Settings", "Split", "Vectors", "embedded", "open_folder", "split"]

Rows = npt.NDArray[np.intp]
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar for (what, number of steps); yields the function that advances it."""
_BATCH = 64
_FILLED = LEAST_RECORDS + 200


@dataclass(frozen=True)
class Settings:
    """The settings of a run.

    Args:
        people: held out and attacked.
        iterations: of the black-box loop; figures are taken at each of these.
        climb: iterations of the gradient's loop; 0 leaves it out.
        pool: pre-generated faces.
        components: of the generator, at most.
        side: pixels of a generated face.
        sap_beta: noise of the other scheme that is attacked, and of a comparable product's.
        seed: of everything but keys, which are always fresh.
    """

    people: int = 20
    iterations: tuple[int, ...] = (400, 2000)
    climb: int = 100
    pool: int = 2000
    components: int = 256
    side: int = 64
    sap_beta: float = 2.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.people < 2 or not self.iterations or min(self.iterations) < 1 or self.climb < 0 or self.pool < 2:
            raise InputError("a run takes two people, one iteration and two pre-generated faces at least")
        object.__setattr__(self, "iterations", tuple(sorted(set(self.iterations))))


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of the photographs."""

    own: Rows
    """The thief's."""
    victims: Rows
    """The stored ones."""
    targets: Rows
    """(p,): one photograph a person; the embedding of it is stolen and attacked."""
    other: Rows
    """(p,): another photograph of each."""
    others: tuple[Rows, ...]
    """All other photographs of each."""


def split(photographs: Photographs, people: int, seed: int) -> Split:
    """Give a random half of the people to the thief, and choose people with enough photographs of the rest to attack.

    Raises:
        InputError: not so many people have two photographs or more.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(photographs.people)
    half = set(order[: len(order) // 2].tolist())
    mine = np.array([label in half for label in photographs.labels.tolist()])
    counts = {int(person): len(photographs.of(person)) for person in order if person not in half}
    eligible: list[int] = []
    for least in (4, 2):
        eligible = [person for person, count in counts.items() if count >= least]
        if len(eligible) >= people:
            break
    else:
        raise InputError(
            f"{people} people are to be attacked, and {len(eligible)} of the half that is stored have two photographs"
        )
    chosen = sorted(rng.choice(np.array(eligible), people, replace=False).tolist())
    rows = [photographs.of(person) for person in chosen]
    return Split(
        np.flatnonzero(mine),
        np.flatnonzero(~mine),
        np.array([found[0] for found in rows]),
        np.array([found[1] for found in rows]),
        tuple(found[1:] for found in rows),
    )


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings of all photographs, and of further views if there are few."""

    all: Matrix
    """(n, d), in the photographs' order."""
    own: Matrix
    """(m, d): the thief's."""
    stored: Matrix
    """(s, d): what is stored; photographs first, further views behind."""
    places: Rows
    """(p,): rows of `stored` that are the targets."""
    views: int
    """The number of further views in `stored`."""


def embedded(photographs: Photographs, parts: Split, model: Model, folder: Path, bar: Bar, seed: int) -> Vectors:
    """Embed everything, or read it from the folder."""
    everything = _cached(folder / f"embeddings-{model.name}.npy", lambda: _embed(
        photographs, np.arange(len(photographs)), model, bar, None))  # fmt: skip
    filled: list[Matrix] = []
    for name, rows in (("own", parts.own), ("stored", parts.victims)):
        wanted = max(0, _FILLED - len(rows))
        again = np.resize(rows, wanted)
        rng = np.random.default_rng([seed, len(filled)])
        views = _cached(
            folder / f"views-{name}-{model.name}.npy",
            lambda again=again, rng=rng: _embed(photographs, again, model, bar, rng),  # type: ignore[misc]
        )
        filled.append(np.concatenate([everything[rows], views]) if wanted else everything[rows])
    places = np.searchsorted(parts.victims, parts.targets)
    return Vectors(everything, filled[0], filled[1], places, len(filled[1]) - len(parts.victims))


def _embed(photographs: Photographs, rows: Rows, model: Model, bar: Bar, rng: np.random.Generator | None) -> Matrix:
    out = np.empty((len(rows), model.dim), np.float32)
    if not len(rows):
        return out
    with bar("embedding photographs" if rng is None else "embedding further views", len(rows)) as advance:
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            images = photographs.images(rows[part])
            out[part] = model.embed(images if rng is None else jittered(images, rng))
            advance(len(images))
    return out


def _cached(path: Path, make: Callable[[], Matrix]) -> Matrix:
    if path.exists():
        kept: Matrix = np.load(path, allow_pickle=False)
        return kept
    made = make()
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        np.save(file, made)
    scratch.replace(path)
    return made


def open_folder(folder: Path, settings: Settings, subject: dict[str, Any]) -> None:
    """Create the run's folder, or check that it belongs to the same run.

    Raises:
        InputError: it holds intermediate results of another run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {**subject, **asdict(settings), "iterations": None}  # may grow in a later run
    path = folder / "settings.json"
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != wanted:
            raise InputError(f"{folder} holds another run, with other settings: name another folder, or delete it")
        return
    path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
