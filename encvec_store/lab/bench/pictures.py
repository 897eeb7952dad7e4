"""The bench's charts as PNG files, by matplotlib (extra `bench`)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..pages.charts import SHAPES
from .figures import Look, looks, peers_in
from .job import Row
from .reading import contests, frontier, growths, noises

__all__ = ["draw"]

# Okabe and Ito's colours, as in the page
COLOURS = {
    "plaintext": "#59626d",
    "sketch": "#0072b2",
    "sap": "#c04a00",
    "sealed": "#00795a",
    "cells": "#a8517f",
    "peer0": "#8a6d00",
    "peer1": "#009e73",
    "peer2": "#6a51a3",
    "peer3": "#b0306a",
    "peer4": "#1b1f24",
}
_MARKS = dict(zip(SHAPES, "os^Dv*PX<>ph", strict=True))
_SIZE = (6.4, 4.2)


def draw(folder: Path, rows: Sequence[Row], attacks: Sequence[Row] = ()) -> list[Path]:
    """Write pareto-N.png, growth-QUANTITY.png, noise-N.png into a folder; returns the paths. Raises InputError."""
    try:
        pyplot: Any = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise InputError("pictures need matplotlib: pip install 'encvec-store[bench]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    made, peers = [], peers_in(rows)
    for number, contest in enumerate(contests(rows), 1):
        if len(contest.rows) < 2:
            continue
        figure, axes = _axes(pyplot, contest.title, "1 - recall@10", "queries a second")
        axes.invert_xaxis()
        drawn = looks({name: some[0] for name, some in contest.series().items()}, peers)
        for name, some in contest.series().items():
            best = frontier(some)
            x, y = [max(1e-4, 1 - (row.get("recall@10") or 0)) for row in best], [row["qps"] for row in best]
            _line(axes, x, y, name, drawn[name])
        made.append(_saved(figure, axes, folder / f"pareto-{number}.png"))
    for quantity in ("p50_ms", "cpu_ms", "build_cpu_s", "bytes", "peak_rss_mb"):
        found = growths(rows, quantity)
        if found:
            figure, axes = _axes(pyplot, f"{quantity} by records", "records", quantity)
            drawn = looks({each.name: each.row for each in found})
            for each in found:
                fitted = each.exponent
                label = f"{each.name}, n^{fitted[0]:.2f}" if fitted else each.name
                _line(axes, *_xy(each.points), label, drawn[each.name])
            made.append(_saved(figure, axes, folder / f"growth-{quantity}.png"))
    for number, subject in enumerate(noises(attacks), 1):
        figure, axes = _axes(pyplot, subject.subject, "noise, beta", "share")
        if subject.recall:
            _line(axes, *_xy(subject.recall), "true ten among 100 candidates", Look("sealed", "square"))
        _line(axes, *_xy(subject.named), "records that an attack names", Look("sap", "up"))
        axes.axhline(subject.chance, color="#59626d", linestyle=":", label="chance")
        made.append(_saved(figure, axes, folder / f"noise-{number}.png"))
    return made


def _axes(library: Any, title: str, x: str, y: str) -> tuple[Any, Any]:
    figure = library.Figure(figsize=_SIZE, dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", color="#d9dee4")
    return figure, axes


def _line(axes: Any, x: Sequence[float], y: Sequence[float], label: str, look: Look) -> None:
    kind, _, thin = look.kind.partition(" ")
    style = {"linestyle": "--", "linewidth": 1.2} if thin else {"linewidth": 2}
    inside = "none" if look.hollow else "full"
    axes.plot(
        x, y, label=label, color=COLOURS.get(kind, "#8a8f98"), marker=_MARKS[look.shape], markersize=5,
        fillstyle=inside, **style,
    )  # fmt: skip


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _saved(figure: Any, axes: Any, path: Path) -> Path:
    axes.legend(fontsize=8)
    figure.savefig(path)
    return path
