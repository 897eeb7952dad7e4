"""Charts as hand-written SVG, coloured by the page's style sheet.

Bars use percentages and so fit any width; plots have a view box, small enough that a telephone shows it at full size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["SHAPES", "Axis", "Line", "Point", "bar", "marker", "plot", "scale", "sign"]

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 340, 230, 62, 20, 12, 42


@dataclass(frozen=True)
class Axis:
    """Where values lie: from `low` to `high`, logarithmic (both above 0) or linear; values outside go to the edge."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    reverse: bool = False
    linear: bool = False

    def at(self, value: float) -> float:
        """0 to 1."""
        inside = min(max(value, self.low), self.high)
        if self.linear:
            part = (inside - self.low) / (self.high - self.low)
        else:
            part = math.log(inside / self.low) / math.log(self.high / self.low)
        return 1 - part if self.reverse else part


@dataclass(frozen=True)
class Point:
    """A value with its interval and the words shown over it."""

    x: float
    y: float
    low: float
    high: float
    title: str
    label: str = ""


@dataclass(frozen=True)
class Line:
    """Points joined by a line (or not), drawn in a class of the style sheet."""

    kind: str
    points: Sequence[Point]
    joined: bool = True
    marked: bool = True
    shape: str = ""
    """Of SHAPES; by default what the class has."""
    hollow: bool = False


def scale(title: str, smallest: float) -> Axis:
    """Axis of shares from below the smallest chance level to 100%."""
    low = 10.0 ** math.floor(math.log10(max(1e-9, min(0.1, smallest * 0.7))))
    decades = [10.0**power for power in range(round(math.log10(low)), 1)]
    return Axis(title, low, 1.0, [(tick, f"{100 * tick:g}%") for tick in decades])


def bar(axis: Axis, value: float, low: float, high: float, chance: float, kind: str, title: str) -> str:
    """One bar on `axis` from its left edge, with whiskers from low to high and a mark where chance is."""
    v, a, b, c = (f"{100 * axis.at(number):.2f}%" for number in (value, low, high, chance))
    grid = "".join(
        f'<line class="grid" x1="{100 * axis.at(tick):.2f}%" x2="{100 * axis.at(tick):.2f}%" y1="0" y2="22"/>'
        for tick, _ in axis.ticks
    )
    return (
        f'<svg class="bar" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>{grid}'
        f'<rect class="{kind}" x="0" y="5" width="{v}" height="12" rx="2"/>'
        f'<line class="whisker" x1="{a}" x2="{b}" y1="11" y2="11"/>'
        f'<line class="whisker" x1="{a}" x2="{a}" y1="7" y2="15"/>'
        f'<line class="whisker" x1="{b}" x2="{b}" y1="7" y2="15"/>'
        f'<line class="chance" x1="{c}" x2="{c}" y1="0" y2="22"/></svg>'
    )


def plot(x: Axis, y: Axis, lines: Iterable[Line], title: str) -> str:
    """A plot of lines and labelled points."""
    out = [f'<svg class="plot" viewBox="0 0 {_W} {_H}" role="img" aria-label="{escape(title)}">']
    for tick, text in y.ticks:
        at = _y(y, tick)
        out.append(f'<line class="grid" x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for tick, text in x.ticks:
        at = _x(x, tick)
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_H - _BOTTOM}"/>')
        out.append(f'<text x="{at:.1f}" y="{_H - _BOTTOM + 15}" text-anchor="middle">{escape(text)}</text>')
    middle = (_LEFT + _W - _RIGHT) / 2
    out.append(f'<text class="axis" x="{middle}" y="{_H - 8}" text-anchor="middle">{escape(x.title)}</text>')
    height = (_TOP + _H - _BOTTOM) / 2
    out.append(
        f'<text class="axis" transform="translate(11 {height}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text>"
    )
    lines = list(lines)
    taken = [(_x(x, point.x), _y(y, point.y) + 4) for line in lines for point in line.points]
    for line in lines:
        out += _line(x, y, line, taken)
    return "".join([*out, "</svg>"])


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.at(value) * (_W - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return _H - _BOTTOM - axis.at(value) * (_H - _TOP - _BOTTOM)


def _line(x: Axis, y: Axis, line: Line, taken: list[tuple[float, float]]) -> list[str]:
    placed = [(_x(x, point.x), _y(y, point.y), point) for point in line.points]
    out = [f'<g class="{line.kind}">']
    if line.joined and len(placed) > 1:
        out.append('<polyline points="' + " ".join(f"{at:.1f},{up:.1f}" for at, up, _ in placed) + '"/>')
    for at, up, point in placed if line.marked else ():
        if line.joined:
            ends = _y(y, point.low), _y(y, point.high)
            out.append(f'<line class="whisker" x1="{at:.1f}" x2="{at:.1f}" y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>')
        out.append(f"<g><title>{escape(point.title)}</title>{marker(_shape(line), at, up, hollow=line.hollow)}</g>")
        if point.label:
            out.append(_label(at, up, point.label, taken))
    return [*out, "</g>"]


def marker(shape: str, x: float, y: float, *, hollow: bool = False) -> str:
    """Return a marker of a shape of SHAPES; filled, or its outline only. Its colour is that of the group it is in."""
    drawn = "mark hollow" if hollow else "mark"
    if shape == "circle":
        return f'<circle class="{drawn}" cx="{x:.1f}" cy="{y:.1f}" r="4.2"/>'
    points = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in _CORNERS[shape])
    return f'<polygon class="{drawn}" points="{points}"/>'


def sign(kind: str, shape: str, words: str, *, hollow: bool = False) -> str:
    """Return an entry of a legend: the marker, and words that are escaped here."""
    drawn = f'<svg class="sign" viewBox="-7 -7 14 14" aria-hidden="true">{marker(shape, 0, 0, hollow=hollow)}</svg>'
    return f'<span class="{kind}">{drawn} {escape(words)}</span>'


def _shape(line: Line) -> str:
    return line.shape or _SHAPE_OF.get(line.kind.partition(" ")[0], "circle")


def _turned(corners: int, radius: float, inner: float | None = None) -> list[tuple[float, float]]:
    """Return a regular polygon that stands on its tip upwards; with an inner radius, a star."""
    steps = corners if inner is None else 2 * corners
    radii = [radius if inner is None or not step % 2 else inner for step in range(steps)]
    angles = [2 * math.pi * step / steps for step in range(steps)]
    return [(r * math.sin(angle), -r * math.cos(angle)) for r, angle in zip(radii, angles, strict=True)]


_PLUS = [(-1.6, -5), (1.6, -5), (1.6, -1.6), (5, -1.6), (5, 1.6), (1.6, 1.6), (1.6, 5), (-1.6, 5), (-1.6, 1.6),
         (-5, 1.6), (-5, -1.6), (-1.6, -1.6)]  # fmt: skip
_CORNERS: dict[str, list[tuple[float, float]]] = {
    "square": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
    "up": [(0, -5), (5, 4), (-5, 4)],
    "diamond": [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)],
    "down": [(0, 5), (5, -4), (-5, -4)],
    "star": _turned(5, 6.2, 2.6),
    "plus": _PLUS,
    "cross": [((x - y) * math.sqrt(0.5), (x + y) * math.sqrt(0.5)) for x, y in _PLUS],
    "left": [(-5, 0), (4, -5), (4, 5)],
    "right": [(5, 0), (-4, -5), (-4, 5)],
    "pentagon": _turned(5, 5),
    "hexagon": _turned(6, 5),
}
SHAPES = ("circle", *_CORNERS)
"""Names of markers. They differ as colours do, for those who see no colours."""
_SHAPE_OF = {
    **dict.fromkeys(("same", "little", "sealed"), "square"),
    **dict.fromkeys(("superset", "leaks", "sap"), "up"),
    **dict.fromkeys(("pairs", "broken", "plaintext"), "diamond"),
}


def _label(x: float, y: float, text: str, taken: list[tuple[float, float]]) -> str:
    """Beside the point: at the first place around it that no label has yet."""
    offsets = [(8 + 15 * (step // 6), 4 + 12 * (step % 6)) for step in range(36)]
    sign = -1 if x > _W * 0.7 else 1
    for right, down in offsets:
        at, up = x + sign * right, y + down
        if all(abs(at + sign * 5 - a) > 10 or abs(up - b) > 10 for a, b in taken):
            taken.append((at + sign * 5, up))
            anchor = "end" if sign < 0 else "start"
            return f'<text class="label" x="{at:.1f}" y="{up:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    return ""
