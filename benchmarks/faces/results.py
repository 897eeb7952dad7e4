"""The figures of a run as one JSON document: acceptance, tasks, and how they were made.

The number of a subject under `accepted_at_far_1e-3` is that of the black-box loop at its last iteration, against
another photograph of the person than the stolen one. Everything else is in `details`.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from encvec_store.errors import InputError

from .experiment import Experiment
from .models import Matrix

__all__ = ["HEADLINES", "accepted", "details", "document", "reached"]

HEADLINES = {
    "plaintext": "plaintext",
    "encrypted": "encrypted",
    "encrypted_normalised": "encrypted_normalised",
    "wrong_key": "wrong_key",
    "aligned_without_key": "aligned_0",
}
"""Key of a headline -> its subject."""
_PACKAGES = ("encvec-store", "numpy", "scipy", "torch", "faiss-cpu", "cryptography", "pillow")


def reached(experiment: Experiment) -> dict[str, dict[str, Matrix]]:
    """Return latents (p, k) of every subject, by what made them: search@0 (the start), search@400, climb@60, ridge."""
    targets, _ = experiment.subjects
    found: dict[str, dict[str, Matrix]] = {}
    for name, wanted in targets.items():
        mine: dict[str, Matrix] = {}
        for loop in experiment.loops():
            trace = experiment.trace(name, loop)
            counts = (0, *experiment.settings.iterations) if loop == "search" else (experiment.settings.climb,)
            for count in counts:
                if trace is not None and count in trace.frames:
                    mine[f"{loop}@{count}"] = trace.frames[count]
        mine["ridge"] = experiment.inverter.latents(experiment.generator, wanted)
        found[name] = mine
    return found


def details(experiment: Experiment) -> dict[str, Any]:
    """Every judge's figures of every reconstruction."""
    out: dict[str, Any] = {}
    made = reached(experiment)
    with experiment.bar("judging", sum(map(len, made.values()))) as advance:
        for name, ways in made.items():
            out[name] = {}
            for way, latents in ways.items():
                out[name][way] = {judge: told.row() for judge, told in experiment.verdicts(latents).items()}
                advance(1)
    return out


def accepted(rows: Mapping[str, Any], chance: Mapping[str, Any], judge: str, way: str) -> dict[str, float]:
    """Return one number per headline, for the subjects that were attacked that way."""
    found = {
        key: rows[subject][way][judge]["accepted"]
        for key, subject in HEADLINES.items()
        if way in rows.get(subject, {}) and judge in rows[subject][way]
    }
    return found | {"chance": chance[judge]["accepted"]}


def document(
    experiment: Experiment, tasks: Mapping[str, Any], text: Mapping[str, Any] | None, command: str
) -> dict[str, Any]:
    """Return the whole document of a run whose attacks are done."""
    rows, chance = details(experiment), experiment.chance()
    settings, photographs = experiment.settings, experiment.photographs
    most = _iterations(rows, settings.iterations)
    way = f"search@{most}"
    judges = [judge for _, judge in experiment.judges]
    first, *others = judges
    _, facts = experiment.subjects
    out: dict[str, Any] = {
        "people": settings.people,
        "iterations": most,
        "accepted_at_far_1e-3": accepted(rows, chance, first.name, way),
        "second_model": None,
        "data": {
            "name": photographs.name,
            "photographs": len(photographs),
            "people": len(photographs.people),
            "stored": facts["stored"],
            "further_views": facts["further_views"],
            "thief": len(experiment.parts.own),
            "credit": photographs.credit,
        },
        "model": {"name": first.name, "threshold": first.threshold, "genuine_accepted": first.genuine},
        "aligned_without_key_by_pairs": {
            name.removeprefix("aligned_"): rows[name][way][first.name]["accepted"]
            for name in rows
            if name.startswith("aligned_") and way in rows[name]
        },
        "details": rows,
        "chance": chance,
        "subjects": facts,
        "tasks": tasks,
        "text": text,
        "settings": {
            "iterations": list(settings.iterations),
            "climb": settings.climb,
            "pool": settings.pool,
            "components": experiment.generator.k,
            "side": settings.side,
        },
        "seeds": {"all": settings.seed, "keys": "fresh in every run"},
        "versions": {
            **_versions(),
            "python": platform.python_version(),
            "arithmetic": getattr(experiment.model, "arithmetic", "float32"),
        },
        "command": command,
    }
    for judge in others:
        out["second_model"] = {
            "name": judge.name,
            "threshold": judge.threshold,
            "genuine_accepted": judge.genuine,
            "accepted_at_far_1e-3": accepted(rows, chance, judge.name, way),
        }
    return out


def _iterations(rows: Mapping[str, Any], asked: tuple[int, ...]) -> int:
    """Return the most iterations that all subjects of headlines have reached. Raises InputError if there are none."""
    for count in sorted(asked, reverse=True):
        if all(f"search@{count}" in rows[subject] for subject in HEADLINES.values()):
            return count
    raise InputError("the attack has not come far enough for figures: run it again, and it goes on")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    module: Any = sys.modules.get("encvec_store")
    return {"encvec-store": str(module.__version__), **found}
