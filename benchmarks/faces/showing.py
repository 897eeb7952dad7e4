"""Choose the pictures of a run to show: people side by side, the loop's frames, and a strip.

Success does not decide who is shown: it is the first people of the run, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .experiment import Experiment
from .measures import Verdict
from .models import Images, Matrix
from .page import Gallery
from .pictures import Face, Line, strip
from .results import reached

__all__ = ["gallery", "picture"]

SHOWN = 8
_NOTHING = "sealed"
_PLAIN = "plaintext embeddings, as most databases hold them"
_WAYS = (
    ("plaintext", "search", "Rebuilt from plaintext", "black box, {count} steps", _PLAIN),
    ("plaintext", "climb", "+Rebuilt from plaintext", "gradient, {count} steps", ""),
    (_NOTHING, "", "Under sealed, the default", "no vector in the stolen files", "sealed, the default"),
    ("encrypted_normalised", "search", "Rebuilt from sketch", "normalised, {count} steps", "the scheme sketch"),
    ("aligned_20", "search", "Rebuilt from sketch", "20 known pairs, {count} steps", "sketch, 20 records known"),
    ("sap_aligned_0", "search", "+Rebuilt from sap", "aligned, {count} steps", "the scheme sap"),
    ("sap_aligned_20", "search", "+Rebuilt from sap", "20 known pairs, {count} steps", "sap, 20 records known"),
)
"""Subject, loop, head and small print of a column of the page, and what is said in the strip; "+" is for wide pages."""


@dataclass(frozen=True, eq=False)
class _Shown:
    """One way to rebuild the people shown; no faces where there is nothing to begin with."""

    subject: str
    title: str
    small: str
    source: str
    faces: Sequence[Face]


def gallery(experiment: Experiment, people: int = SHOWN) -> Gallery:
    """The pictures of a page."""
    rows = _people(experiment, people)
    photographs, start = _photographs(experiment, rows), _start(experiment, rows)
    shown = list(_ways(experiment, rows))
    columns = [
        ("The person", "photograph whose embedding was stolen"),
        ("+Where the thief begins", "nearest random face"),
        *((way.title, way.small) for way in shown),
    ]
    by_person = [[*faces] for faces in zip(photographs, start, *(way.faces for way in shown), strict=True)]
    return Gallery(columns, by_person, _loops(experiment, photographs[0]))


def picture(experiment: Experiment, people: int = SHOWN) -> bytes:
    """A PNG file: a column for each person, and a line for everything that a thief tried."""
    rows = _people(experiment, people)
    sealed = experiment.subjects[1]["sealed"]
    begins = f"Where the thief begins: the nearest of {experiment.settings.pool:,} random faces"
    other = "number: how alike the face model finds another photograph of the same person"
    lines = [
        Line("The people, photographed", _photographs(experiment, rows), small=other),
        Line(begins, _start(experiment, rows)),
    ]
    for way in _ways(experiment, rows):
        if not way.source:
            continue
        accepted = sum(bool(face.accepted) for face in way.faces)
        outcome = f"{accepted} of {len(rows)} accepted"
        small = ""
        if way.subject == _NOTHING:
            outcome = "nothing to begin with"
            small = f"the stolen files of {sealed['records']:,} records hold {sealed['index_vectors']:,} vectors"
        lines.append(Line(f"From {way.source}", way.faces, outcome, small))
    return strip(lines, (
        "Number: how alike the face model finds the rebuilt face and the photograph (cosine; 1: the same picture).",
        "Orange and \u201caccepted\u201d: a verifier takes it for the person. Blue: for a stranger.",
    ))  # fmt: skip


def _people(experiment: Experiment, people: int) -> list[int]:
    return list(range(min(people, experiment.settings.people)))


def _ways(experiment: Experiment, rows: Sequence[int]) -> Iterator[_Shown]:
    made, (_, facts) = reached(experiment), experiment.subjects
    for subject, loop, title, small, source in _WAYS:
        if subject == _NOTHING and not facts[subject]["index_vectors"]:
            yield _Shown(subject, title, small, source, [Face(None)] * len(rows))
            continue
        way = _last(made.get(subject, {}), loop)
        if way is not None:
            count = f"{int(way.partition('@')[2]):,}"
            told = experiment.verdicts(made[subject][way])[experiment.model.name]
            images = experiment.generator.images(made[subject][way])
            faces = [_face(images[row], told, row) for row in rows]
            yield _Shown(subject, title, small.format(count=count), source, faces)


def _photographs(experiment: Experiment, rows: Sequence[int]) -> list[Face]:
    """Photographs, with the cosine of each to another one of the person."""
    images = experiment.photographs.images(experiment.parts.targets[rows])
    alike = experiment.judges[0][1].between[rows]
    return [Face(image, cosine=float(cosine)) for image, cosine in zip(images, alike, strict=True)]


def _start(experiment: Experiment, rows: Sequence[int]) -> list[Face]:
    trace = experiment.trace("plaintext", "search")
    if trace is None:
        raise ValueError("the attack has not begun")
    told = experiment.verdicts(trace.frames[0])[experiment.model.name]
    images = experiment.generator.images(trace.frames[0])
    return [_face(images[row], told, row) for row in rows]


def _last(ways: Mapping[str, Matrix], loop: str) -> str | None:
    counts = [int(way.partition("@")[2]) for way in ways if way.startswith(f"{loop}@")]
    return f"{loop}@{max(counts)}" if counts else None


def _face(image: Images, told: Verdict, row: int) -> Face:
    return Face(image, bool(told.accepted[row]), float(told.stolen[row]))


def _loops(experiment: Experiment, photograph: Face) -> dict[str, list[tuple[str, Face]]]:
    titles = {
        "plaintext": "From a plaintext embedding",
        "encrypted_normalised": "From the same embedding, encrypted and normalised",
    }
    out = {}
    for name, title in titles.items():
        trace = experiment.trace(name, "search")
        if trace is not None:
            frames = [("photograph", Face(photograph.image))]
            frames += [
                (f"{count:,}", Face(experiment.generator.images(trace.frames[count][:1])[0]))
                for count in sorted(trace.frames)
            ]
            out[title] = frames
    return out
