"""`explain`: say how a search would be answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data.filters import parse, pushdown
from ..data.metrics import as_array, as_vectors
from ..errors import ShapeError
from ..sealing.config import check_k
from .candidates import Sources
from .search import asked
from .session import Session

__all__ = ["explain"]


def explain(
    session: Session,
    sources: Sources,
    query: Any,
    k: int,
    where: Mapping[str, Any] | None,
    *,
    oversample: int | None = None,
) -> str:
    """Describe a search of one query. See `Collection.explain`."""
    config = session.refresh()
    k = check_k(k)
    array = as_array(query, "query")
    if array.ndim != 1:
        raise ShapeError(f"query: expected shape ({config.dim},), got {array.shape}")
    matrix = as_vectors(array[None], config.dim, name="query")
    node = parse(where, config.policies)
    ask = asked(session, sources, config, matrix, node)
    lines = []
    if node is None or not config.index_dim:
        pass  # an index in memory says itself how it filters
    elif pushdown(node, config.policies, session.keyring.blind_terms) is None:
        lines.append("filter: checked here, on opened records; the store is asked for more until enough of them pass")
    else:
        lines.append(
            "filter: the store checks blind and plain fields; the whole filter is checked here, on opened records"
        )
    wanted = ask.wanted(k, oversample or config.oversample)
    if wanted > k:
        lines.append(f"candidates: {wanted:,}, of which the nearest {k:,} by their exact vectors are returned")
    return "\n".join([*lines, *ask.explain(k, oversample or config.oversample)])
