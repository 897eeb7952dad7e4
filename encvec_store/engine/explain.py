"""How a search would be answered, in words; imports handle, config, filters, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.filters import parse, pushdown
from ..data.metrics import as_array, as_vectors
from ..errors import ShapeError
from ..sealing.config import check_k
from ..storage import share
from .session import Handle

__all__ = ["explain"]


def explain(handle: Handle, query: Any, k: int, where: Mapping[str, Any] | None) -> str:
    """Describe a search of one query. See `Collection.explain`."""
    config = handle.refresh()
    wanted = check_k(k) * handle.oversample
    array = as_array(query, "query")
    if array.ndim != 1:
        raise ShapeError(f"query: expected shape ({config.dim},), got {array.shape}")
    matrix = as_vectors(array[None], config.dim, name="query")
    node = parse(where, config.policies)
    predicate = pushdown(node, config.policies, handle.vault.blind_terms)
    lines = []
    if node is not None and predicate is None:
        lines.append("filter: checked here, on opened records; the store is asked for more until enough pass")
    elif predicate is not None:
        lines.append("filter: blind and plain fields are checked by the store, all of it here, on opened records")
    if not config.index_dim:
        config.metric.check(matrix, None, "query")
        rows = handle.backend.count() if predicate is None else len(handle.backend.rows(predicate))
        return "\n".join([*lines, f"no index: {rows:,} vectors are opened and compared here"])
    points = config.metric.lift_query(matrix, config.max_norm or 1.0)
    lines.append(f"candidates: {wanted:,}, of which the nearest {k:,} by their exact vectors are returned")
    for version in handle.vault.live:
        probes = handle.vault.probes(version, config, points)
        space, encrypted = next(iter(probes.items()))
        each = share(wanted, len(probes))
        told = handle.backend.explain(space, encrypted[0], each, predicate)
        cells = f", {len(probes):,} cells, of each {each:,} candidates; the first" if len(probes) > 1 else ""
        lines.append(f"key version {version}{cells}: {told}")
    return "\n".join(lines)
