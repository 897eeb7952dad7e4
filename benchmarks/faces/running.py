"""A whole run from photographs to page, for the command and the benchmark.

The order is: tasks, attack, text, results, page. Each part is kept in the folder, and is not done twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .everyday import everyday, written
from .experiment import Experiment
from .page import page
from .results import document
from .setting import Bar
from .showing import gallery, picture
from .tasks import tables
from .text import Sentences, invert_text

__all__ = ["finish", "run_tasks", "run_text", "whole"]


def whole(experiment: Experiment, command: str, sentences: tuple[Sentences, Sentences] | None = None) -> dict[str, Any]:
    """Run everything; returns the results document. Files: results.json, page.html, strip.png if it may be shown."""
    experiment.open()
    tasks = run_tasks(experiment)
    text = None if sentences is None else run_text(sentences, experiment.folder, experiment.bar)
    _ = experiment.subjects
    experiment.attack()
    return finish(experiment, tasks, text, command)


def finish(
    experiment: Experiment, tasks: Mapping[str, Any], text: Mapping[str, Any] | None, command: str
) -> dict[str, Any]:
    """Judge the reconstructions so far, and write results and page."""
    results = document(experiment, tasks, text, command)
    written(experiment.folder / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    written(experiment.folder / "page.html", page(results, gallery(experiment)).encode())
    if experiment.photographs.publishable:
        written(experiment.folder / "strip.png", picture(experiment))
    return results


def run_tasks(experiment: Experiment) -> dict[str, Any]:
    """Run all tasks on plaintext and in stores under `sealed`, `sketch` and `sap`: task -> what -> figure."""
    drawn = tables(experiment.photographs, experiment.vectors.all, experiment.settings.seed)
    return everyday(drawn, experiment.folder, experiment.bar, experiment.settings.sap_beta)


def run_text(sentences: tuple[Sentences, Sentences], folder: Path, bar: Bar, targets: int = 1_000) -> dict[str, Any]:
    """What stolen sentence embeddings tell: victim's and thief's sentences."""
    path = folder / "text.json"
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    with bar("sentences", 7) as advance:
        found = invert_text(*sentences, targets, 0, lambda: advance(1))
    written(path, (json.dumps(found, indent=1) + "\n").encode())
    return found
