"""Texts in place of vectors: a function of the caller's makes the vectors. It alone sees the texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from operator import length_hint
from typing import Any

import numpy as np

from ..data.arrays import Matrix
from ..data.ids import check_name
from ..data.metrics import as_array, as_vectors
from ..data.values import listed, text
from ..errors import InputError, ShapeError
from ..runtime.concurrency import awaited, in_thread
from ..sealing.config import CollectionConfig

__all__ = ["Embed", "Embedder", "are_texts", "check_texts", "embedder"]

Embed = Callable[[list[str]], Any]
"""Takes n texts, and returns (n, dim) numbers, or an awaitable of these."""


@dataclass(frozen=True)
class Embedder:
    """What an opening of a collection makes vectors with; without functions only the name of the model."""

    model: str | None = None
    embed: Embed | None = None
    embed_query: Embed | None = None

    def vectors(self, texts: list[str], config: CollectionConfig, name: str, *, queries: bool = False) -> Matrix:
        """Return the vectors of n texts, (n, dim).

        Args:
            texts: the texts.
            config: current settings.
            name: the collection's.
            queries: True if they are queries.

        Raises:
            InputError: the collection was opened without `embed`.
            ConfigMismatchError: others have written vectors of another model meanwhile.
            ShapeError: the vectors do not fit the collection or the texts.
        """
        if self.embed is None:
            made = f"; its vectors are of model {config.model!r}" if config.model else ""
            raise InputError(
                f"collection {name!r} was opened without embed, so it takes vectors, not texts{made}. Open it with"
                f" collection({name!r}, embed=..., model={config.model or '...'!r})"
            )
        config.check_model(self.model)
        if not texts:
            return np.empty((0, config.dim), np.float32)
        found = in_thread((self.embed_query if queries else None) or self.embed, texts)
        array = as_array(awaited(found) if inspect.isawaitable(found) else found, "embed's answer")
        if array.ndim != 2 or array.shape != (len(texts), config.dim):
            raise ShapeError(
                f"embed must return a vector of {config.dim} numbers for each of {len(texts)} texts, got shape"
                f" {array.shape}: is it of model {self.model!r}, and does that fit collection {name!r}?"
            )
        return as_vectors(array, config.dim, name="embed's answer")


def embedder(embed: Embed | None, embed_query: Embed | None, model: str | None) -> Embedder:
    """Check the arguments of an opening. Raises InputError."""
    for what, given in (("embed", embed), ("embed_query", embed_query)):
        if given is not None and not callable(given):
            raise InputError(f"{what} must be a function that takes a list of texts, got {type(given).__name__}")
    if embed is None and embed_query is not None:
        raise InputError("embed_query goes with embed, which makes the vectors of records")
    if embed is not None and model is None:
        raise InputError("embed needs model: the name of what makes the vectors, so that no others get among them")
    return Embedder(None if model is None else check_name("model", model, 1), embed, embed_query)


def are_texts(queries: Any) -> bool:
    """Say whether queries are words: a string, or a list of strings."""
    if isinstance(queries, str):
        return True
    if getattr(getattr(queries, "dtype", None), "kind", "O") not in "OTU":
        return False
    items = listed(queries) or []
    return bool(items) and isinstance(items[0], str)


def check_texts(texts: Any, ids: Any = None) -> list[str]:
    """Return texts as a list, one for each id if there are ids. Raises ShapeError or InputError."""
    items = listed(texts)
    n = None if ids is None else length_hint(ids)
    if items is None or (n is not None and len(items) != n):
        many = "" if n is None else f" of {n}, one for each id"
        got = type(texts).__name__ if items is None else len(items)
        raise ShapeError(f"texts must be a list of strings{many}, got {got}")
    strings = list(map(text, items))
    for position, (item, found) in enumerate(zip(items, strings, strict=True)):
        if found is None:
            raise InputError(f"texts[{position}] must be a string, got {type(item).__name__}")
    return [item for item in strings if item is not None]
