"""Rows of results, put together for reading: contests, frontiers, growth, what noise does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .job import Row

__all__ = ["Contest", "Growth", "NoiseRow", "contests", "frontier", "growths", "largest", "noises", "series_of"]

GOOD = 0.99
"""The recall at which sides are compared."""
_OF_A_SIDE = ("build_cpu_s", "bytes", "peak_rss_mb")
"""Quantities that are the same however hard a search looks."""


@dataclass
class Contest:
    """Rows that were measured side by side on one data set, in one store, with one kind of index asked for."""

    title: str
    rows: list[Row] = field(default_factory=list)

    @property
    def plaintext(self) -> list[Row]:
        """The baseline's rows."""
        return [row for row in self.rows if row["scheme"] == "plaintext"]

    def series(self) -> dict[str, list[Row]]:
        """Rows by what the user would call them: plaintext, a scheme, a scheme's index alone."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(series_of(row), []).append(row)
        return found

    def cheapest(self, rows: Sequence[Row], recall: float = GOOD) -> Row | None:
        """Return the fastest row that reaches a recall@10."""
        good = [row for row in rows if (row.get("recall@10") or 0) >= recall]
        return min(good, key=lambda row: float(row["p50_ms"]), default=None)


def series_of(row: Mapping[str, Any]) -> str:
    """Name what was measured, apart from how hard it looked."""
    if row.get("peer"):
        return str(row["peer"])
    if row["scheme"] == "plaintext":
        return str(row["store"])
    parameters = row.get("scheme_parameters") or {}
    if "profile" in parameters and parameters["profile"] is None:
        return f"{row['scheme']}, still sealed"  # too few records to fit a profile
    noise = "" if row.get("beta") is None else f" beta {row['beta']:g}"
    return f"{row['scheme']}{noise}" + ("" if row["reranked"] else ", index alone")


def contests(rows: Iterable[Row]) -> list[Contest]:
    """Group rows by the job that measured them; a job's rows were taken by turns in one run."""
    found: dict[Any, Contest] = {}
    for row in rows:
        if not {"dataset", "scheme", "store", "p50_ms", "n", "d", "reranked"} <= row.keys():
            continue
        key = row.get("job") or (row["dataset"], row["n"], row["d"], row.get("run"))
        contest = found.setdefault(key, Contest(""))
        contest.rows.append(row)
    for contest in found.values():
        ours = [row for row in contest.rows if row["scheme"] != "plaintext"] or contest.rows
        first = ours[0]
        name = str(first["dataset"]).partition(":")[0]
        where = " on a GPU" if first.get("device") == "cuda" else ""
        contest.title = f"{name}, {first['n']:,} x {first['d']}, {first['store']} {first['index']}{where}"
    return list(found.values())


def largest(found: Sequence[Contest]) -> list[Contest]:
    """Leave out smaller sizes of data that one run measured at three sizes or more: `growths` tells of those."""
    sizes: dict[tuple[Any, ...], list[int]] = {}
    kinds = []
    for contest in found:
        last = contest.rows[-1]
        kinds.append((_series(last), last.get("run")))
        sizes.setdefault(kinds[-1], []).append(last["n"])
    return [
        contest
        for contest, kind in zip(found, kinds, strict=True)
        if len(set(sizes[kind])) < 3 or contest.rows[-1]["n"] == max(sizes[kind])
    ]


class _Series(NamedTuple):
    """What rows of one growth have in common."""

    data: str
    dim: int
    store: str
    device: str
    side: str
    candidates: int | None = None


def _series(row: Mapping[str, Any]) -> _Series:
    """Return a row's, whatever was re-ranked."""
    data, device = str(row["dataset"]).partition(":")[0], str(row.get("device") or "cpu")
    return _Series(data, int(row["d"]), str(row["store"]), device, series_of(row))


def frontier(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that no other beats in both recall@10 and queries a second, by rising recall."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (-(row.get("recall@10") or 0), -row["qps"])):
        if not best or row["qps"] > best[-1]["qps"]:
            best.append(row)
    return best[::-1]


@dataclass
class Growth:
    """One quantity of one series at several sizes."""

    name: str
    """What was measured; with the candidates, the data or the device where others of them are beside it."""
    row: Row
    """One of its rows."""
    points: list[tuple[int, float]]

    @property
    def exponent(self) -> tuple[float, float] | None:
        """(b, r squared) of value ~ n^b, by least squares on logarithms over the larger half of the sizes.

        Small collections are searched exactly and cost what is constant: they say nothing of how large ones grow.
        None for fewer than three sizes.
        """
        used = [(n, value) for n, value in self.points if value > 0][-max(3, math.ceil(len(self.points) / 2)) :]
        if len(used) < 3:
            return None
        x, y = np.log([n for n, _ in used]), np.log([value for _, value in used])
        slope, start = np.polyfit(x, y, 1)
        rest, whole = y - (slope * x + start), y - y.mean()
        return float(slope), 1 - float(rest @ rest) / float(whole @ whole) if float(whole @ whole) else 1.0


def growths(rows: Iterable[Row], quantity: str) -> list[Growth]:
    """Return a quantity by size of each series measured at three sizes or more, all else alike.

    Where several runs measured one size, that with the most sizes counts.
    """
    rows = [row for row in rows if "n" in row and "scheme" in row and not row.get("peer")]
    sizes: dict[Any, set[int]] = {}
    for row in rows:
        sizes.setdefault(row.get("run"), set()).add(int(row["n"]))
    found: dict[_Series, dict[int, float]] = {}
    last: dict[_Series, Row] = {}
    for row in sorted(rows, key=lambda row: len(sizes[row.get("run")])):
        value = row.get(quantity)
        if value is None or (quantity in _OF_A_SIDE and not row["reranked"] and row["scheme"] != "plaintext"):
            continue
        if quantity == "peak_rss_mb":
            value -= row.get("library_rss_mb") or 0
        series = _series(row)
        if quantity not in _OF_A_SIDE and row.get("oversample"):
            series = series._replace(candidates=row["oversample"] * int(row.get("k") or 10))
        found.setdefault(series, {})[int(row["n"])] = float(value)
        last[series] = row
    many = {series: values for series, values in found.items() if len(values) >= 3}
    return [Growth(_named(series, many), last[series], sorted(values.items())) for series, values in many.items()]


def _named(series: _Series, all_of_them: Iterable[_Series]) -> str:
    """Name a series by what tells it from the others."""
    told = [series.side]
    if any(other.side == series.side and other.candidates != series.candidates for other in all_of_them):
        told.append(f"{series.candidates:,} candidates")
    if len({(other.data, other.dim) for other in all_of_them}) > 1:
        told.append(f"{series.data} {series.dim}-d")
    if len({other.store for other in all_of_them if other.side != other.store}) > 1:  # plaintext is called by its store
        told.append(series.store)
    if series.device != "cpu":
        told.append("GPU")
    return ", ".join(told)


@dataclass
class NoiseRow:
    """What each noise costs the owner and the thief: one subject of the leakage lab."""

    subject: str
    recall: list[tuple[float, float]]
    """(beta, share of the true ten among 100 candidates)"""
    named: list[tuple[float, float]]
    """(beta, share of records that the best attack without pairs names)"""
    chance: float


def noises(rows: Iterable[Mapping[str, Any]], candidates: str = "100") -> list[NoiseRow]:
    """Read rows of the leakage lab: subjects with two noises or more, at the size with the most noises."""
    found: dict[str, dict[int, dict[float, list[Mapping[str, Any]]]]] = {}
    for row in rows:
        parameters = row.get("parameters")
        if row.get("pairs") or not isinstance(parameters, dict) or "beta" not in parameters or "identified" not in row:
            continue
        k = f" k={parameters['k']}" if "k" in parameters else ""
        by_size = found.setdefault(f"{row['subject']}{k}", {})
        by_size.setdefault(int(row["n"]), {}).setdefault(float(parameters["beta"]), []).append(row)
    out = []
    for name, by_size in found.items():
        n, by_beta = max(by_size.items(), key=lambda sized: (len(sized[1]), sized[0]))
        if len(by_beta) < 2:
            continue
        named = [(beta, max(float(row["identified"]) for row in some)) for beta, some in sorted(by_beta.items())]
        recall = [
            (beta, float(np.mean(shares)))
            for beta, some in sorted(by_beta.items())
            if (shares := [row["recall@10"][candidates] for row in some if candidates in (row.get("recall@10") or {})])
        ]
        chance = min(float(row["chance"]) for some in by_beta.values() for row in some)
        out.append(NoiseRow(f"{name}, {n:,} records", recall, named, chance))
    return out
