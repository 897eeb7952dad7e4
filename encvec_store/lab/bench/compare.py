"""Compare two runs variant by variant, together with the change of the plaintext baseline."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from .job import Row
from .results import variant_of

__all__ = ["SHOWN", "compared"]

SHOWN = (
    ("dataset", "data"),
    ("n", "n"),
    ("store", "store"),
    ("index", "index"),
    ("scheme", "scheme"),
    ("beta", "beta"),
    ("reranked", "re-rank"),
    ("effort", "effort"),
    ("recall@10", "recall@10"),
    ("recall_change", "change"),
    ("p50_ms", "p50 ms"),
    ("p50_ratio", "p50 ratio"),
    ("plaintext_ratio", "plaintext's"),
    ("net_ratio", "net"),
    ("qps_ratio", "queries/s"),
    ("build_ratio", "build"),
    ("ingest_ratio", "ingest/s"),
    ("bytes_ratio", "bytes"),
    ("rss_ratio", "RSS"),
)
"""Key of a row -> title of a column."""
_RATIOS = {
    "p50_ratio": "p50_ms",
    "qps_ratio": "qps",
    "build_ratio": "build_s",
    "ingest_ratio": "ingest_per_s",
    "bytes_ratio": "bytes",
    "rss_ratio": "peak_rss_mb",
}


def compared(before: Iterable[Row], after: Iterable[Row]) -> list[Row]:
    """Return a row for each variant in both: values of `after`, and ratios after / before.

    `net_ratio` is the median latency's ratio over that of plaintext on the same data in the same runs (the median over
    its efforts): a slower or busier machine cancels out of it. Of a variant measured several times the last counts.
    """
    old = {variant_of(row): row for row in before}
    new = {variant_of(row): row for row in after}
    both = [(old[key], new[key]) for key in new if key in old]
    drift: dict[Any, list[float]] = {}
    for was, now in both:
        if now["scheme"] == "plaintext" and (ratio := _ratio(was, now, "p50_ms")):
            drift.setdefault(_place(now), []).append(ratio)
    out = []
    for was, now in both:
        row: Row = {key: now.get(key) for key, _ in SHOWN if key in now}
        change = None
        if now.get("recall@10") is not None and was.get("recall@10") is not None:
            change = now["recall@10"] - was["recall@10"]
        row["recall_change"] = change
        row |= {name: _ratio(was, now, key) for name, key in _RATIOS.items()}
        others = drift.get(_place(now))
        row["plaintext_ratio"] = statistics.median(others) if others else None
        net = row["p50_ratio"] and others and row["p50_ratio"] / row["plaintext_ratio"]
        row["net_ratio"] = net if net and now["scheme"] != "plaintext" else None
        out.append({key: row.get(key) for key, _ in SHOWN})
    return out


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    store = "postgresql:" if "pgvector" in str(row["store"]) or row["store"] == "postgresql:" else "faiss:"
    return row["dataset"], row["n"], row["d"], store, row["index"] if store == "postgresql:" else None


def _ratio(was: Mapping[str, Any], now: Mapping[str, Any], key: str) -> float | None:
    first, second = was.get(key), now.get(key)
    return float(second) / float(first) if first and second is not None else None
