"""Draw the two charts of the README from the results that are kept in the repository, and print their numbers.

    python -m benchmarks.charts

They are docs/images/latency.svg and docs/images/thief.svg. Run it again when the results have changed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from .report import RESULTS

__all__ = ["draw", "latency", "thief"]

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDTH = 720
INK, PALE, GRID, OURS, THEIRS, LOST = "#1c2733", "#5d6a7a", "#dfe4ea", "#2c7a4b", "#6b7686", "#b0413e"
NAMES = {
    "faiss": "FAISS + SQLite",
    "chroma": "Chroma",
    "lancedb": "LanceDB",
    "pgvector": "pgvector",
    "embedded": "encvec, folder",
    "pgsealed": "encvec, PostgreSQL",
}
PLACES = (("embedded", "embedded-20000"), ("pgsealed", "pgsealed"))
SCHEMES = ("plaintext", "sketch", "sealed")


def rows(name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a results file."""
    for line in (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("kind", "row") == "row":
            yield row


def latency() -> list[dict[str, Any]]:
    """Return name, records, p50 in milliseconds and recall@10 of each store."""
    found = []
    for bench, name in PLACES:
        for row in rows(name):
            what = bench if row["what"] == "encvec" else row["what"]
            if row["part"] == "search" and what in NAMES:
                one = {"name": NAMES[what], "n": row["n"], "d": row["d"], "ours": what == bench}
                found.append({**one, "p50_ms": row["p50_ms"], "recall@10": row["recall@10"]})
    return found


def thief() -> dict[str, dict[str, float]]:
    """Return the share of records named, by scheme and by what the thief holds, as `make demo` printed it."""
    found: dict[str, dict[str, float]] = {name: {} for name in SCHEMES}
    for row in rows("demo"):
        found[row["scheme"]][row["holds"]] = row["identified"]
    return found


def draw() -> dict[str, str]:
    """Return the charts as SVG, by file name."""
    return {"latency.svg": _latency(latency()), "thief.svg": _thief(thief())}


def _svg(height: int, title: str, about: str, body: list[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-labelledby="title desc" '
            "font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\">",
            f'  <title id="title">{escape(title)}</title>',
            f'  <desc id="desc">{escape(about)}</desc>',
            f'  <rect x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="10" fill="#ffffff" stroke="#b9c2cf"/>',
            _text(24, 36, title, 19, weight=600),
            *body,
            "</svg>\n",
        ]
    )


def _text(
    x: float, y: float, words: str, size: int = 16, *, fill: str = INK, at: str = "start", weight: int = 400
) -> str:
    return (
        f'  <text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{at}">{escape(words)}</text>'
    )


def _latency(points: list[dict[str, Any]]) -> str:
    left, right, top, bottom = 70, WIDTH - 24, 104, 348
    low = math.log10(min(point["p50_ms"] for point in points) / 1.6)
    high = math.log10(max(point["p50_ms"] for point in points) * 2.4)
    floor = math.floor(min(point["recall@10"] for point in points) * 500) / 500 - 0.002

    def place(point: dict[str, Any]) -> tuple[float, float]:
        across = (math.log10(point["p50_ms"]) - low) / (high - low)
        return left + across * (right - left), bottom - (point["recall@10"] - floor) / (1 - floor) * (bottom - top)

    body, levels = [], []
    for step in range(round((1 - floor) * 500) + 1):
        y = place({"p50_ms": 1, "recall@10": floor + step / 500})[1]
        levels.append(y)
        body.append(f'  <path d="M{left} {y:.0f}H{right}" stroke="{GRID}"/>')
        body.append(_text(left - 8, y + 5, f"{floor + step / 500:.3f}", 15, fill=PALE, at="end"))
    for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        if low <= math.log10(tick) <= high:
            x = place({"p50_ms": tick, "recall@10": 1})[0]
            body.append(f'  <path d="M{x:.0f} {top}V{bottom}" stroke="{GRID}"/>')
            body.append(_text(x, bottom + 22, f"{tick:g}", 15, fill=PALE, at="middle"))
    body.append(_text((left + right) / 2, bottom + 46, "p50 of a search, ms: further left is faster", at="middle"))
    body.append(_text(24, 62, "recall@10; 10 hits with their documents, one client", fill=PALE))
    for at, (colour, words) in enumerate([(OURS, "encrypted"), (THEIRS, "plaintext")]):
        body.append(f'  <circle cx="{WIDTH - 222 + 108 * at}" cy="57" r="6" fill="{colour}"/>')
        body.append(_text(WIDTH - 210 + 108 * at, 62, words))
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in map(place, points)]
    taken += [(0, y - 10, left, y + 10) for y in levels]
    for point in points:
        x, y = place(point)
        words, colour = f"{point['name']} {point['p50_ms']:.2g}", OURS if point["ours"] else THEIRS
        wide = 9.6 * len(words)  # of the widest of the fonts
        places = [(x + 12, y + 5, "start", x + 12), (x - 12, y + 5, "end", x - 12 - wide)]
        places += [(x, y + dy, "middle", x - wide / 2) for dy in (26, -14)]
        boxes = [(start, ty - 14, start + wide, ty + 4) for _, ty, _, start in places]
        cost = [
            sum(_meet(box, other) for other in taken) + 9 * (box[0] < 8) + 9 * (box[2] > WIDTH - 8) for box in boxes
        ]
        best = cost.index(min(cost))
        taken.append(boxes[best])
        tx, ty, anchor, _ = places[best]
        body.append(f'  <circle cx="{x:.0f}" cy="{y:.0f}" r="7" fill="{colour}"/>')
        body.append(_text(tx, ty, words, fill=colour, at=anchor, weight=600 if point["ours"] else 400))
    folder, server = points[0], points[-1]
    told = (
        f"In a folder: {folder['n']:,} x {folder['d']}; in PostgreSQL: {server['n']:,} x {server['d']}. One run each."
    )
    body.append(_text(24, bottom + 76, told, 15, fill=PALE))
    about = "; ".join(f"{p['name']}: {p['p50_ms']:.2f} ms, recall {p['recall@10']:.3f}" for p in points)
    return _svg(bottom + 94, "Recall against latency", about, body)


def _meet(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _thief(shares: dict[str, dict[str, float]]) -> str:
    columns = list(shares["plaintext"])
    left, wide, top, tall = 130, (WIDTH - 154) / len(columns), 128, 64
    body = [_text(24, 62, "share of 4,000 stolen records named, beside the stolen files he has ...", fill=PALE)]
    for at, column in enumerate(columns):
        for line, words in enumerate(column.split(", ")):
            body.append(_text(left + wide * (at + 0.5), 94 + 19 * line, words, 15, fill=PALE, at="middle"))
    for row, name in enumerate(shares):
        base = top + tall * (row + 1)
        body.append(_text(24, base - 8, name, 17, weight=600))
        body.append(f'  <path d="M{left} {base}H{WIDTH - 24}" stroke="{GRID}" stroke-width="1.5"/>')
        for at, column in enumerate(columns):
            share = shares[name][column]
            x, high = left + wide * at + 40, (tall - 24) * share
            box = f'x="{x:.0f}" y="{base - high:.1f}" width="{wide - 80:.0f}" height="{high:.1f}"'
            body.append(f'  <rect {box} fill="{OURS if name == "sealed" else LOST}"/>')
            words = f"{100 * share:.3g}%" if share > 0.99 else f"{100 * share:.2g}%"
            body.append(_text(left + wide * (at + 0.5), base - high - 5, words, 15, at="middle"))
    about = "; ".join(f"{name}: " + ", ".join(f"{k} {v:.2%}" for k, v in row.items()) for name, row in shares.items())
    return _svg(top + tall * len(shares) + 22, "Records named, by what the thief holds", about, body)


def main() -> None:
    """Write the pictures and print what they show."""
    for name, picture in draw().items():
        (IMAGES / name).write_text(picture, encoding="utf-8")
        print(f"docs/images/{name}")
    for point in latency():
        size = f"{point['n']:,} x {point['d']}"
        print(f"{point['name']:20s}{size:14s}p50 {point['p50_ms']:5.2f} ms  recall@10 {point['recall@10']:.4f}")
    for name, row in thief().items():
        print(f"{name:10s}" + "; ".join(f"{held} {share:.2%}" for held, share in row.items()))


if __name__ == "__main__":
    main()
