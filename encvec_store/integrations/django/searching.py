"""Searches over what a queryset selects, and sealing rows again under the primary key version."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from asgiref.sync import sync_to_async
from django.db import models, router, transaction

from ...data.metrics import as_vectors
from ...errors import InputError, StoreUnreachableError
from ...sealing.config import check_k
from ...storage.protocol import BUSY
from ..cipher import BOUND, plain_array
from .field import EncryptedVectorField, field_of

__all__ = ["Near", "anearest", "nearest", "reencrypt"]

_BATCH = 2_000
_ATTEMPTS = 16
_CELL = "encvec_cell"
_KIND, _VERSION = (19, 2), (25, 4)
"""Position in a cell, from 1, and size."""


class Near(NamedTuple):
    """An object with its exact score."""

    item: Any
    score: float
    """The exact cosine, Euclidean distance or inner product, by the metric of the field."""


def nearest(queryset: models.QuerySet, field: str, query: npt.ArrayLike, k: int) -> list[Near]:
    """Return the k objects of a queryset whose vectors are nearest to a query, with exact scores, nearest first.

        nearest(Item.objects.filter(draft=False), "embedding", query, k=10)

    It opens the vectors of all rows that the queryset selects, in batches, in this process. Objects come from one last
    statement, with the vectors that their scores are of.

    Args:
        queryset: of model instances, not sliced; its order is replaced. Rows without a vector are left out.
        field: name of the field.
        query: (dim,).
        k: number of objects to return.

    Raises:
        InputError: a bad query or k, or a queryset of another kind.
        AuthenticationError: a vector was altered or moved, or the keys are wrong.
        StoreUnreachableError: rows were replaced faster than they could be read.
    """
    kind = field_of(queryset.model, field)
    k = check_k(k)
    asked = as_vectors(plain_array(query, "query")[None], kind.dim, name="query")
    kind.config.metric.check(asked, None, "query")
    rows = _rows(queryset, field)
    for _ in range(_ATTEMPTS):
        best = _scanned(rows, kind, asked[0], k)
        chosen = rows.filter(pk__in=list(best)).annotate(**{_CELL: _cell(field)})
        found = {each.pk: each for each in chosen}
        if all(pk in found and bytes(found[pk].__dict__.pop(_CELL)) == cell for pk, (_, cell) in best.items()):
            return [Near(found[pk], score) for pk, (score, _) in best.items()]
    raise StoreUnreachableError(BUSY)


async def anearest(queryset: models.QuerySet, field: str, query: npt.ArrayLike, k: int) -> list[Near]:
    """Return what `nearest` returns, from a thread, as Django's own async queries do."""
    found: list[Near] = await sync_to_async(nearest)(queryset, field, query, k)
    return found


def _rows(queryset: models.QuerySet, field: str) -> models.QuerySet:
    """Return the rows of a queryset that have a vector. Raises InputError."""
    asked = queryset.query
    if asked.is_sliced or asked.combinator or asked.distinct_fields or queryset._fields is not None:
        raise InputError(
            "queryset must select model instances, without a slice, union, distinct(...) on fields, or values():"
            " nearest takes k of what its filter passes"
        )
    return queryset.order_by().filter(**{f"{field}__isnull": False})


def _cell(field: str) -> Any:
    """The cell as it is stored."""
    return models.ExpressionWrapper(models.F(field), output_field=models.BinaryField())


def _scanned(
    rows: models.QuerySet, kind: EncryptedVectorField, query: npt.NDArray[np.float32], k: int
) -> dict[Any, tuple[float, bytes]]:
    """Compare all rows: the k nearest, nearest first, as primary key -> (score, cell)."""
    scan = rows.values_list("pk", _cell(kind.name))
    scan.query.select_for_update = False
    metric, best = kind.config.metric, dict[Any, tuple[float, bytes]]()
    batch: dict[Any, bytes] = {}

    def ranked() -> dict[Any, tuple[float, bytes]]:
        scores = metric.scores(query, kind.opened(list(batch.values()), list(batch)))
        places = np.argsort(metric.order(scores), kind="stable")[:k]
        keys = list(batch)
        merged = {**best, **{keys[at]: (float(scores[at]), batch[keys[at]]) for at in places}}
        order = np.argsort(metric.order(np.array([score for score, _ in merged.values()])), kind="stable")[:k]
        names = list(merged)
        return {names[at]: merged[names[at]] for at in order}

    for pk, cell in scan.iterator(chunk_size=_BATCH):
        batch[pk] = bytes(cell)
        if len(batch) >= _BATCH:
            best = ranked()
            batch.clear()
    return ranked() if batch else best


def reencrypt(queryset: models.QuerySet, field: str, *, limit: int = 1000) -> int:
    """Seal again the rows that are not under the primary key version, or not bound to their primary key.

    Use it after `keyset.rotate()`, or to bind rows whose keys the database made. Call it until it returns 0. It locks
    the rows that it rewrites, all or none of them. Returns the number of rows.
    """
    kind = field_of(queryset.model, field)
    version = kind.cipher.live[0].to_bytes(4, "big")
    database = queryset._db or router.db_for_write(queryset.model)
    stale = ~models.Q(encvec_version=version) | ~models.Q(encvec_kind=BOUND.to_bytes(2, "big"))
    rows = _rows(queryset, field).using(database)
    rows = rows.alias(encvec_version=_part(field, *_VERSION), encvec_kind=_part(field, *_KIND)).filter(stale)
    with transaction.atomic(using=database):
        chosen = rows.order_by("pk").select_for_update().values_list("pk", _cell(field))[:limit]
        found = {pk: bytes(cell) for pk, cell in chosen}
        if not found:
            return 0
        vectors = kind.opened(list(found.values()), list(found), bound=False)
        sealed = kind.sealed(list(vectors), [kind.identity(pk) for pk in found])
        table = kind.model._base_manager.using(database)
        for pk, cell in zip(found, sealed, strict=True):
            table.filter(pk=pk).update(**{kind.attname: cell})
    return len(found)


def _part(field: str, start: int, size: int) -> Any:
    return models.Func(
        models.F(field), models.Value(start), models.Value(size), function="substr", output_field=models.BinaryField()
    )
