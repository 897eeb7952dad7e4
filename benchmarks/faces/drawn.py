"""Draw docs/images/faces.png: faces rebuilt by today's attackers, in lines that say who tried what.

    python -m benchmarks.faces.drawn --lfw FILE.npz --photographs DIR     also benchmarks/results/faces-drawn.jsonl

The first photograph of each of 20 people of the Olivetti faces is stored among one photograph of each person of LFW;
the first eight are shown. FILE.npz and the thief are those of `benchmarks.faces.thieves`: he has other photographs of
people of LFW, and none of those who are shown. His generator is eigenfaces of photographs of LFW (your own copy; none
of them is shown), in grey. From each embedding that he ends with he follows FaceNet's gradient. A verifier's threshold
is set on his embeddings (FAR 1e-3), and it compares with another photograph than the stolen one. Needs torch and
Pillow: `benchmarks/.venv-faces/bin/python`, which `make faces` sets up.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import RESULTS
from encvec_store.lab.leakage.sealed import sealed_rows

from .attack import Pool, climb, nearest, pregenerate, saved
from .environment import HERE, ROOT
from .generator import Eigenfaces
from .measures import Judge, threshold
from .models import Differentiable, Images, Matrix, load_model
from .photographs import load
from .pictures import Face, Line, strip
from .setting import split
from .thieves import KNOWN, OWN_KEY, SCHEMES, Holdings, attempts
from .thieves import load as embeddings

__all__ = ["main"]

OLIVETTI = ROOT / "benchmarks/data/olivetti-64.npz"
PICTURE, FIGURES = ROOT / "docs/images/faces.png", RESULTS / "faces-drawn.jsonl"
WORK = HERE / "out" / "drawn"
"""What is made on the way; a stopped run continues there, under the same keys."""
_PEOPLE, _SHOWN, _SIDE = 20, 8, 64
_FITTED, _COMPONENTS, _POOL, _STEPS = 3_000, 256, 2_000, 60
_PAIRS = KNOWN.format(20)
_SAID = {OWN_KEY: "From {}: a mapper trained on other faces", _PAIRS: "From {}: 20 records are known"}
_SMALL = {_PAIRS: "the thief knows of 20 other records whose photographs they are"}
_LEGEND = (
    "Number: how alike the face model finds the rebuilt face and the photograph (cosine; 1: the same picture).",
    "Orange: a verifier, which holds another photograph, accepts the face as the person. Blue: it does not.",
)


class _Rebuilt:
    """Rebuilds the people shown from what stands for their embeddings."""

    def __init__(self, model: Differentiable, generator: Eigenfaces, judge: Judge) -> None:
        made = _kept("pool", lambda: vars(pregenerate(model, generator, _POOL, 0)))
        self._model, self._generator, self._judge = model, generator, judge
        self._pool = Pool(made["latents"], made["vectors"])

    def start(self, targets: Matrix) -> list[Face]:
        """Return the nearest pre-generated faces."""
        return self._faces(nearest(self._pool, targets)[0])

    def faces(self, name: str, targets: Matrix) -> list[Face]:
        """Return the faces at the end of the gradient's way."""
        state = WORK / f"state-{name}.npz"
        return self._faces(climb(self._model, self._generator, self._pool, targets, _STEPS, state=state).latents)

    def _faces(self, latents: Matrix) -> list[Face]:
        images = np.round(self._generator.images(latents)).astype(np.uint8)
        told = self._judge.verdict(self._model.embed(images))
        return [Face(*face) for face in zip(images, told.accepted.tolist(), told.stolen.tolist(), strict=True)]


def lines(lfw: Path, photographs: Path) -> Iterator[tuple[Line, dict[str, object]]]:
    """Yield the lines of the picture and their figures."""
    model = load_model("facenet")
    assert isinstance(model, Differentiable)
    shown, thief = load(OLIVETTI), load(photographs)
    parts = split(shown, _PEOPLE, 0)
    images, other = (shown.images(rows) for rows in (parts.targets, parts.other))
    guests, others = model.embed(images), model.embed(other)
    held = embeddings(lfw)
    judge = Judge(
        model.name, threshold(held.own, held.theirs), guests[:_SHOWN], others[:_SHOWN],
        tuple(others[[row]] for row in range(_SHOWN)),
    )  # fmt: skip
    generator = Eigenfaces.fit(_grey(thief.images(np.random.default_rng(0).permutation(len(thief))[:_FITTED], _SIDE)),
                               _COMPONENTS)  # fmt: skip
    rebuilt = _Rebuilt(model, generator, judge)
    real = [Face(image, cosine=float(alike)) for image, alike in zip(images[:_SHOWN], judge.between, strict=True)]
    small = "number: how alike the face model finds another photograph of the same person"
    yield _line("The people, photographed", real, small)
    yield _line(f"Where the thief begins: the nearest of {_POOL:,} random faces", rebuilt.start(guests[:_SHOWN]))
    yield _line("From plaintext embeddings, as most databases hold them", rebuilt.faces("plaintext", guests[:_SHOWN]))
    held = held.joined(guests)
    copied, _ = sealed_rows(held.vectors, name="faces")
    if copied["index_vectors"]:
        raise SystemExit("a sealed store has index vectors: the picture would say that it has none")
    nothing = f"the stolen files of {copied['records']:,} records hold {copied['index_vectors']} vectors"
    yield (
        Line("From sealed, the default", [Face(None)] * _SHOWN, "nothing to begin with", nothing),
        {"what": "sealed", "n": copied["records"], "index_vectors": copied["index_vectors"]},
    )
    for scheme in SCHEMES:
        name = str(scheme["name"])
        for what, title in _SAID.items():
            place = f"{name}-{'pairs' if what == _PAIRS else 'alone'}"
            made = _kept(place, lambda scheme=scheme, what=what: _guessed(held, scheme, what))  # type: ignore[misc]
            theirs = made["shown"]
            line, told = _line(title.format(name), rebuilt.faces(place, theirs), _SMALL.get(what, ""))
            alike = float(np.einsum("ij,ij->i", theirs, guests[:_SHOWN]).mean())
            yield line, {**json.loads(str(made["row"])), **told, "embedding_cosine": round(alike, 4)}


def _guessed(held: Holdings, scheme: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the embeddings that the thief ends with of the people shown, and the row of figures."""
    ((row, guess),) = attempts(held, scheme, [what])
    return {"shown": guess[-held.guests :][:_SHOWN], "row": np.array(json.dumps(row))}


def _kept(name: str, make: Callable[[], Mapping[str, Any]]) -> Any:
    """Return arrays that an earlier run made, or make and save them."""
    path = WORK / f"{name}.npz"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        saved(path, **make())
    with np.load(path, allow_pickle=False) as kept:
        return dict(kept)


def _line(title: str, faces: Sequence[Face], small: str = "") -> tuple[Line, dict[str, object]]:
    accepted = [face.accepted for face in faces if face.accepted is not None]
    alike = [face.cosine for face in faces if face.cosine is not None]
    outcome = f"{sum(accepted)} of {len(faces)} accepted" if accepted else ""
    figures = {"line": title, "accepted": sum(accepted), "shown": len(faces), "cosines": [round(c, 3) for c in alike]}
    return Line(title, faces, outcome, small), figures


def _grey(images: Images) -> Images:
    grey: Images = images.mean(axis=3, keepdims=True)
    return grey


def main() -> None:
    """Print the figures of each line as it comes, then write the picture and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", metavar="FILE", type=Path, required=True, help="embeddings of LFW")
    parser.add_argument("--photographs", metavar="DIR", type=Path, required=True, help="your own copy of LFW")
    parser.add_argument("--out", metavar="FILE", type=Path, default=PICTURE, help="the picture, PNG")
    parser.add_argument("--figures", metavar="FILE", type=Path, default=FIGURES, help="JSON lines")
    given = parser.parse_args()
    drawn, told = [], []
    for line, figures in lines(given.lfw, given.photographs):
        drawn.append(line)
        told.append(json.dumps(figures))
        print(told[-1], flush=True)
    given.out.write_bytes(strip(drawn, _LEGEND))
    given.figures.write_text("\n".join(told) + "\n", encoding="utf-8")
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
