"""Plaintext answers to compare with, made-up records, and the means to open one store twice."""

import datetime as dt
import itertools
import uuid
from decimal import Decimal

import numpy as np

from tests.kits.strategies import same

METRICS = ("cosine", "ip", "l2")
ABSENT = object()


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


def target(metric, positive, negative):
    """Return what examples stand for, by definition."""
    sides = []
    for side in filter(len, map(list, (positive, negative))):
        points = np.array(side, np.float64)
        if metric == "cosine":
            points = points / np.sqrt((points**2).sum(axis=1, keepdims=True))
        sides.append(points.mean(axis=0))
    return sides[0] if len(sides) == 1 else 2 * sides[0] - sides[1]


def diverse(metric, scores, points, order, count, diversity):
    """Return the ids that maximal marginal relevance picks from `order`, by definition."""
    sign, order, picked = (1 if metric == "l2" else -1), list(order), []
    while order and len(picked) < count:
        worth = [
            (1 - diversity) * -sign * scores[id]
            - diversity
            * max((-sign * float(exact(metric, points[id], points[other][None])[0]) for other in picked), default=0)
            for id in order
        ]
        picked.append(order.pop(int(np.argmax(worth)) if picked else 0))
    return picked


def assert_refined(hits, metric, scores, points, metadata, k, how):
    """Check hits that a threshold, groups, diversity and an offset have picked from records with these scores.

    Records at equal distances may trade places, so what they are is checked step by step, and their scores as a list.
    """
    sign = 1 if metric == "l2" else -1
    order = sorted(scores, key=lambda id: sign * scores[id])
    if (threshold := how.get("threshold")) is not None:
        order = [id for id in order if sign * scores[id] <= sign * threshold]
    group_by, counts, kept = how.get("group_by"), [], []
    for id in order if group_by else ():
        value = metadata[id].get(group_by, ABSENT)
        group = next(
            (each for each in counts if value is each[0] or (ABSENT not in (value, each[0]) and same(value, each[0]))),
            None,
        )
        if group is None:
            counts.append(group := [value, 0])
        group[1] += 1
        kept += [id] if group[1] <= how["group_size"] else []
    order = kept if group_by else order
    names = [hit.id for hit in hits]
    assert len(set(names)) == len(names)
    for hit in hits:
        assert abs(hit.score - scores[hit.id]) <= 1e-6 * max(1, abs(hit.score))
        assert hit.vector is None
    offset, diversity = how.get("offset", 0), how.get("diversity")
    if diversity is not None:
        order = order[: max(offset + k, how["pool"] or 4 * (offset + k))]
        order = diverse(metric, scores, points, order, offset + k, diversity)
    expected = order[offset : offset + k]
    assert len(hits) == len(expected)
    if diversity is None:
        np.testing.assert_allclose([hit.score for hit in hits], [scores[id] for id in expected], rtol=1e-6, atol=1e-6)
    elif not tied(scores, order, points):
        assert names == expected


def tied(scores, order, points):
    """Say whether two records may trade places: they have about the same score, or the same distance of others."""
    values = sorted(scores.values())
    return any(b - a < 1e-6 for a, b in itertools.pairwise(values))


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
    {"n": {"between": [2, 4.5]}},
    {"word": {"prefix": "gr"}},
    {"word": {"like": "_r%n"}},
    {"word": {"ilike": "_R%N"}},
    {"word": {"contains": "re"}},
    {"not": {"word": {"contains": "e"}}},
    {"odd": {"contains": "a"}},
    {"odd": {"any": ["a", "b"]}},
    {"odd": {"all": [1.0, "a"]}},
    {"odd": "2024-01-01"},
    {"odd": {"gte": "2023-12-31", "lt": "2024-01-01T12:00Z"}},
]
