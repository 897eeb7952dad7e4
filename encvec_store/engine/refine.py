"""Searches that pick among the nearest: a threshold, groups, diversity, an offset. All build on `search`.

The steps come in one order: filter, leave out the examples of `recommend`, threshold, groups, diversity, offset, k.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.fields import MISSING, canonical, field_value
from ..data.filters import check_fields
from ..data.ids import Id, check_ids
from ..data.metrics import Metric, as_array, norms
from ..data.records import Hit
from ..data.values import check_limit, check_offset, number, text
from ..errors import InputError
from ..runtime.concurrency import offload
from ..sealing.config import check_k
from .candidates import Sources
from .read import get
from .search import search
from .session import Session

__all__ = ["Refinement", "recommend", "refined"]

_POOL = 4
"""Times the hits asked for: the nearest that diversity picks from."""


@dataclass(frozen=True)
class Refinement:
    """What is picked from the nearest. See `Collection.search`. Raises InputError."""

    offset: int = 0
    threshold: float | None = None
    group_by: str | None = None
    group_size: int = 1
    diversity: float | None = None
    pool: int | None = None
    without: frozenset[Id] = frozenset()

    def __post_init__(self) -> None:
        check_offset(self.offset)
        check_limit(self.group_size, "group_size")
        found = 0.0 if self.threshold is None else number(self.threshold)
        if found is None or found != found:
            raise InputError(f"threshold must be a number, got {self.threshold!r}")
        if self.group_by is not None and not text(self.group_by):
            raise InputError(f"group_by must be the name of a field, got {self.group_by!r}")
        if self.group_by is None and self.group_size != 1:
            raise InputError("group_size is for group_by: name the field too")
        share = 0.0 if self.diversity is None else number(self.diversity)
        if share is None or not 0 <= share <= 1:
            raise InputError(f"diversity must be a number from 0 to 1, got {self.diversity!r}")
        if self.pool is not None:
            check_limit(self.pool, "pool")
            if self.diversity is None:
                raise InputError("pool is for diversity: give it too")

    @property
    def plain(self) -> bool:
        """True if the nearest are returned as they are."""
        return self == Refinement()


def refined(
    session: Session,
    sources: Sources,
    queries: Any,
    k: int,
    where: Mapping[str, Any] | None,
    wish: Refinement,
    *,
    oversample: int | None = None,
    include_vectors: bool = False,
) -> list[Hit] | list[list[Hit]]:
    """Find the k records of each query that a refinement picks. See `Collection.search`."""
    matrix = as_array(queries, "queries")
    single, k, metric = matrix.ndim == 1, check_k(k), session.config.metric
    need = wish.offset + k
    if wish.diversity is not None:
        need = max(need, _POOL * need if wish.pool is None else wish.pool)
    how = {"oversample": oversample, "include_vectors": include_vectors or wish.diversity is not None}
    if wish.group_by is not None:
        check_fields({wish.group_by}, session.config.policies, "group_by")

    def ask(query: Any, size: int, where: Mapping[str, Any] | None) -> Any:
        return search(session, sources, query, size + len(wish.without), where, **how)  # type: ignore[arg-type]

    answers = ask(matrix, need, where)
    lists = []
    for query, hits in zip(matrix[None] if single else matrix, [answers] if single else answers, strict=True):
        found = hits
        if wish.group_by is not None:
            found = _grouped(lambda size, where, query=query: ask(query, size, where), metric, hits, need, where, wish)
        found = [hit for hit in found if hit.id not in wish.without and _within(metric, hit.score, wish.threshold)][
            :need
        ]
        if wish.diversity is not None:
            found = offload(len(found) * k, _diverse, metric, found, wish.offset + k, wish.diversity)
            for hit in () if include_vectors else found:
                hit.vector = None
        lists.append(found[wish.offset : wish.offset + k])
    return lists[0] if single else lists


def _grouped(
    ask: Any, metric: Metric, hits: list[Hit], need: int, where: Mapping[str, Any] | None, wish: Refinement
) -> list[Hit]:
    """Return the nearest hits, at most `group_size` of a group.

    Groups that are full are left out by the filter of the next search, which asks for more. So a large group near the
    query costs one more search, and not its size.
    """
    size, known = need, dict[Id, Hit]()
    while True:
        known.update((hit.id, hit) for hit in hits if hit.id not in wish.without)
        ranked = sorted(known.values(), key=lambda hit: _cost(metric, hit.score))
        chosen, full = _cut(ranked, str(wish.group_by), wish.group_size)
        if len(hits) < size + len(wish.without):
            return chosen
        bound = hits[-1].score  # everything nearer is known, but for what full groups have more
        sure = sum(_cost(metric, hit.score) <= _cost(metric, bound) for hit in chosen)
        if sure >= need or not _within(metric, bound, wish.threshold):
            return chosen
        size *= 2
        hits = ask(size, _beside(str(wish.group_by), full, where))


def _cut(ranked: Iterable[Hit], field: str, most: int) -> tuple[list[Hit], list[Any]]:
    """Return the first `most` hits of each group, and the values of the groups that are full."""
    counts: dict[bytes | None, int] = {}
    chosen, full = [], []
    for hit in ranked:
        value = field_value(hit.metadata, field)
        key = None if value is MISSING else canonical(value)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= most:
            chosen.append(hit)
        if counts[key] == most:
            full.append(value)
    return chosen, full


def _beside(field: str, full: list[Any], where: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a filter that also leaves out the records of groups that are full."""
    values = [value for value in full if value is not MISSING]
    parts: list[Mapping[str, Any]] = [where] if where else []
    parts += [{field: {"nin": values}}] if values else []
    parts += [{field: {"exists": True}}] if len(values) < len(full) else []
    return {"and": parts} if parts else {}


def _diverse(metric: Metric, hits: list[Hit], count: int, diversity: float) -> list[Hit]:
    """Pick hits by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), the nearest first."""
    if not hits:
        return hits
    vectors = np.array([hit.vector for hit in hits])
    near = -np.array([_cost(metric, hit.score) for hit in hits])
    alike = np.full(len(hits), -np.inf)
    left, picked = np.ones(len(hits), np.bool_), [0]
    while len(picked) < min(count, len(hits)):
        last = picked[-1]
        left[last] = False
        alike = np.maximum(alike, -metric.order(metric.scores(vectors[last], vectors)))
        worth = np.where(left, (1 - diversity) * near - diversity * alike, -np.inf)
        picked.append(int(np.argmax(worth)))
    return [hits[place] for place in picked]


def _cost(metric: Metric, score: float) -> float:
    return -score if metric.descending else score


def _within(metric: Metric, score: float, threshold: float | None) -> bool:
    return threshold is None or _cost(metric, score) <= _cost(metric, threshold)


def recommend(
    session: Session, positive: Sequence[Id], negative: Sequence[Id]
) -> tuple[npt.NDArray[np.float64], frozenset[Id]]:
    """Return the query that examples stand for, (dim,), and the ids of these. See `Collection.recommend`."""
    wanted, unwanted = check_ids(positive, unique=False), check_ids(negative, unique=False)
    if not wanted:
        raise InputError("recommend takes at least one positive id")
    names = list(dict.fromkeys([*wanted, *unwanted]))
    records = {record.id: record.vector for record in get(session, names, include_vectors=True)}
    for name in names:
        if name not in records:
            raise InputError(f"no record {name!r}")
    matrix = np.array([records[name] for name in names], np.float32)
    points = matrix.astype(np.float64)
    if session.config.metric.name == "cosine":
        points /= norms(matrix)[:, None]
    at = {name: place for place, name in enumerate(names)}
    target: npt.NDArray[np.float64] = points[[at[name] for name in wanted]].mean(axis=0)
    if unwanted:
        target = 2 * target - points[[at[name] for name in unwanted]].mean(axis=0)
    return target, frozenset(names)
