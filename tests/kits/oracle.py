"""Plaintext answers to compare with, made-up records, and the means to open one store twice."""

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np

METRICS = ("cosine", "ip", "l2")


def vectors(n, dim=8, seed=0):
    """Return (n, dim) float32 of different lengths."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, dim)) * rng.uniform(0.5, 2, (n, 1))).astype(np.float32)


def ids(n, start=0):
    return [f"id-{i}" for i in range(start, start + n)]


def exact(metric, query, stored):
    """Scores by definition, (n,), in double precision."""
    q, x = np.asarray(query, np.float64), np.asarray(stored, np.float64)
    if metric == "l2":
        return np.sqrt(((x - q) ** 2).sum(axis=1))
    scores = x @ q
    if metric == "cosine":
        scores = scores / (np.sqrt((x**2).sum(axis=1)) * np.sqrt((q**2).sum()))
    return scores


def nearest(metric, query, stored, k):
    """Return (positions, scores) of the k nearest, nearest first."""
    scores = exact(metric, query, stored)
    order = np.argsort(scores if metric == "l2" else -scores, kind="stable")[:k]
    return order, scores[order]


def assert_hits(hits, metric, query, names, stored, k):
    """Check that hits are the true k nearest with exact scores; records at equal distance may trade places."""
    order, scores = nearest(metric, query, stored, k)
    assert len(hits) == len(order)
    np.testing.assert_allclose([hit.score for hit in hits], scores, rtol=1e-9, atol=1e-12)
    own = dict(zip(names, exact(metric, query, stored), strict=True))
    assert len({hit.id for hit in hits}) == len(hits)
    np.testing.assert_allclose([hit.score for hit in hits], [own[hit.id] for hit in hits], rtol=1e-9, atol=1e-12)


def mixed_metadata(n):
    """Metadata with every type, missing fields, and values that only look alike."""
    odd = [
        1,
        1.0,
        True,
        "1",
        None,
        Decimal("1.00"),
        b"1",
        2**53 + 1,
        float(2**53),
        float("nan"),
        dt.date(2024, 1, 1),
        dt.datetime(2024, 1, 1),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        dt.datetime(2024, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        uuid.UUID(int=7),
        [1, "a"],
        (1, "a"),
        {"k": [1]},
        "",
        "\U0001f600",
        "\uffff",
        10**400,
        float("inf"),
        -5,
    ]
    out = []
    for i in range(n):
        item = {"n": i % 10, "word": ("red", "green", "blue", "Grün")[i % 4], "odd": odd[i % len(odd)]}
        if i % 7 == 0:
            del item["odd"]
        if i % 5 == 0:
            item["rare"] = i
        out.append(item)
    return out


FILTERS = [
    {"n": 3},
    {"n": 3.0, "word": "blue"},
    {"n": {"ne": 3}},
    {"n": {"in": [1, 2, True]}},
    {"n": {"nin": [1, 2]}},
    {"n": {"gte": 3, "lt": 6.5}},
    {"n": {"gt": Decimal("8.5")}},
    {"n": {"lte": 0}},
    {"word": "Grün"},
    {"word": {"gt": "blue", "lte": "green"}},
    {"word": {"$in": []}},
    {"rare": {"exists": True}},
    {"rare": {"exists": False}, "n": 1},
    {"odd": 1},
    {"odd": True},
    {"odd": None},
    {"odd": "1"},
    {"odd": b"1"},
    {"odd": float("nan")},
    {"odd": 2**53},
    {"odd": 2**53 + 1},
    {"odd": {"gte": 2**53 + 1}},
    {"odd": {"lt": 2**53 + 1}},
    {"odd": {"gt": 10**399}},
    {"odd": dt.datetime(2024, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))},
    {"odd": {"gte": dt.datetime(2023, 1, 1)}},
    {"odd": {"lt": dt.date(2025, 1, 1)}},
    {"odd": uuid.UUID(int=7)},
    {"odd": [1.0, "a"]},
    {"odd": {"eq": {"k": (1,)}}},
    {"odd": {"gte": "\uffff"}},
    {"odd": {"lt": "0"}},
    {"odd": {"lte": b"1"}},
    {"and": [{"n": {"gt": 2}}, {"$or": [{"word": "red"}, {"odd": True}]}]},
    {"or": [{"n": 1}, {"not": {"word": {"in": ["red", "green"]}}}]},
    {"not": {"or": [{"n": {"lt": 8}}, {"odd": {"exists": False}}]}},
    {"absent": 1},
    {"absent": {"ne": 1}},
]
