"""The models that a run attacks, and judges by. Models that need training are trained on the thief's half."""

from __future__ import annotations

from pathlib import Path

from encvec_store.errors import InputError

from .linear import Fisherfaces, Texture
from .models import Model, load_model
from .photographs import Photographs
from .setting import Settings, split

__all__ = ["recognisers"]


def recognisers(
    photographs: Photographs, settings: Settings, model: str, second: str, weights: Path | None = None
) -> tuple[Model, Model | None]:
    """Load the attacked model and the judge, by name; "none" means no judge.

    Raises:
        InputError: unknown model.
        MissingModelError: weights or libraries are not here; the message says what to type.
    """
    attacked: Model
    if model == "fisherfaces":
        own = split(photographs, settings.people, settings.seed).own
        attacked = Fisherfaces(photographs.images(own, settings.side), photographs.labels[own])
    else:
        attacked = load_model(model)
    if second == model:
        raise InputError("the second model must be another one")
    judge = None if second == "none" else Texture() if second == "texture" else load_model(second, weights)
    return attacked, judge
