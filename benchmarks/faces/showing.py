"""Choose the pictures of a run to show: people side by side, the loop's frames, and a strip.

Success does not decide who is shown: it is the first people of the run, in its order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .experiment import Experiment
from .measures import Verdict
from .models import Images, Matrix
from .page import Face, Gallery
from .pictures import strip
from .results import reached

__all__ = ["gallery", "picture"]

SHOWN = 8
_WAYS = (
    ("plaintext", "search", "Rebuilt from plaintext", "black box, {count} steps"),
    ("plaintext", "climb", "+Rebuilt from plaintext", "gradient, {count} steps"),
    ("encrypted", "search", "+Rebuilt from ciphertext", "as it is stored, {count} steps"),
    ("encrypted_normalised", "search", "Rebuilt from ciphertext", "normalised, {count} steps"),
    ("aligned_0", "search", "+Rebuilt from ciphertext", "aligned by our lab, no pairs"),
)


def gallery(experiment: Experiment, people: int = SHOWN) -> Gallery:
    """The pictures of a page."""
    rows = np.arange(min(people, experiment.settings.people))
    made = reached(experiment)
    photographs = experiment.photographs.images(experiment.parts.targets[rows])
    start = _started(experiment)
    columns = [
        ("The person", "photograph whose embedding was stolen"),
        ("Where the thief begins", "nearest random face"),
    ]
    shown: list[list[Face]] = [[Face(photographs[row]), Face(start[row])] for row in rows]
    for subject, loop, title, words in _WAYS:
        way = _last(made.get(subject, {}), loop)
        if way is None:
            continue
        columns.append((title, words.format(count=f"{int(way.partition('@')[2]):,}")))
        told = experiment.verdicts(made[subject][way])[experiment.model.name]
        faces = _faces(experiment, made[subject][way])
        for row in rows:
            shown[row].append(_face(faces[row], told, row))
    return Gallery(columns, shown, _loops(experiment, photographs))


def picture(experiment: Experiment, people: int = 6, side: int = 128) -> Images:
    """A strip (h, w, 3): one column per person; rows: photograph, start, from plaintext, from ciphertext."""
    made = reached(experiment)
    rows: list[Sequence[Images]] = [
        list(experiment.photographs.images(experiment.parts.targets[:people])),
        list(_started(experiment)[:people]),
    ]
    for subject in ("plaintext", "encrypted_normalised"):
        way = _last(made[subject], "search")
        if way is not None:
            rows.append(list(_faces(experiment, made[subject][way][:people])))
    return strip(rows, side)


def _last(ways: Mapping[str, Matrix], loop: str) -> str | None:
    counts = [int(way.partition("@")[2]) for way in ways if way.startswith(f"{loop}@")]
    return f"{loop}@{max(counts)}" if counts else None


def _faces(experiment: Experiment, latents: Matrix) -> Images:
    return experiment.generator.images(latents)


def _started(experiment: Experiment) -> Images:
    trace = experiment.trace("plaintext", "search")
    if trace is None:
        raise ValueError("the attack has not begun")
    return _faces(experiment, trace.frames[0])


def _face(image: Images, told: Verdict, row: Any) -> Face:
    return Face(image, bool(told.accepted[row]), float(told.other[row]))


def _loops(experiment: Experiment, photographs: Images, person: int = 0) -> dict[str, list[tuple[str, Face]]]:
    titles = {
        "plaintext": "From a plaintext embedding",
        "encrypted_normalised": "From the same embedding, encrypted and normalised",
    }
    out = {}
    for name, title in titles.items():
        trace = experiment.trace(name, "search")
        if trace is not None:
            frames = [("photograph", Face(photographs[person]))]
            frames += [
                (f"{count:,}", Face(_faces(experiment, trace.frames[count][[person]])[0]))
                for count in sorted(trace.frames)
            ]
            out[title] = frames
    return out
