"""What commands print: JSON, tables, progress.

stdout carries the answer and nothing else; bars and notes go to stderr.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

__all__ = ["Advance", "emit", "facts", "note", "printable", "progress", "snippet", "table"]

Advance = Callable[[int, int | None], None]
"""Called with (steps done since the last call, steps in all, if known)."""

_bars: list[Any] = []
"""The bar on the terminal, if there is one."""
_JOINERS = "\u200c\u200d"  # parts of words and emoji in many scripts
_GAP = 3  # between two columns of a table
_WIDE = 10_000  # columns of a table that goes to a file or pipe: no line is folded


def emit(document: Any) -> None:
    """Print one JSON document on one line of stdout."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(document, ensure_ascii=ascii_only, allow_nan=False))


def note(text: str) -> None:
    """Say something beside the answer, on stderr; above the bar, while there is one."""
    line = f"encvec: {printable(text)}"
    if _bars:
        _bars[-1].console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)
    else:
        click.echo(line, err=True)


def printable(text: str) -> str:
    """Escape what could steer a terminal: stored text is other people's text."""
    return "".join(
        char if char.isprintable() or char in _JOINERS else " " if char.isspace() else ascii(char)[1:-1]
        for char in text
    )


def snippet(value: Any, width: int = 60) -> str:
    """Shorten a value to one printable line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = printable(text[: 4 * width])  # before anything that costs by the length of a document
    return text if len(text) <= width else text[: width - 1] + "…"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table on stdout. Columns of numbers only are set to the right.

    Where a terminal is too narrow, each row becomes a column, as many side by side as fit. No cell is ever folded.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    class Direct(Console):
        def on_broken_pipe(self) -> None:
            """Let the error pass: rich would exit with 1, which is a bad answer here."""
            raise

    content = [list(row) for row in rows]
    numeric = [
        bool(content) and all(isinstance(row[position], int | float) for row in content)
        for position in range(len(columns))
    ]
    cells = [[_cell(value) for value in row] for row in content]
    terminal = sys.stdout.isatty()
    console = Direct(file=sys.stdout, width=_WIDE, highlight=False)

    def draw(heads: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
        drawn = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
        for name, to_right in zip(heads, right, strict=True):
            drawn.add_column(name, justify="right" if to_right else "left", no_wrap=True)
        for line in lines:
            drawn.add_row(*map(Text, line))
        console.print(drawn)

    widths = [max(cell_len(line[position]) for line in [columns, *cells]) for position in range(len(columns))]
    room = shutil.get_terminal_size().columns if terminal else _WIDE
    if not cells or sum(widths) + _GAP * len(widths) <= room:
        draw(columns, cells, numeric)
        return
    names = max(map(cell_len, columns)) + _GAP
    for group in _groups(cells, room - names):
        first, *lines = ([name, *(row[position] for row in group)] for position, name in enumerate(columns))
        draw(first, lines, [False] * len(first))


def _groups(rows: Sequence[Sequence[str]], width: int) -> Iterator[list[Sequence[str]]]:
    """Cut rows into groups that stand side by side as columns within a width, one at least."""
    from rich.cells import cell_len

    group: list[Sequence[str]] = []
    used = 0
    for row in rows:
        wide = max(map(cell_len, row)) + _GAP
        if group and used + wide > width:
            yield group
            group, used = [], 0
        group.append(row)
        used += wide
    if group:
        yield group


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case bool():  # before int, which it is too
            return "yes" if value else "no"
        case int() | str():
            return printable(str(value))
    return printable(json.dumps(value, ensure_ascii=False))


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print `name  value` lines on stdout."""
    lines = [(name, _cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        click.echo(f"{name:<{width}}  {text}".rstrip())


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Advance]:
    """Draw a bar on stderr while the block runs, on a terminal only. Gives the function that moves it on.

    Within the block of another bar it is a second line of that one.
    """
    if not sys.stderr.isatty():
        yield lambda steps, total: None
        return
    if _bars:
        yield from _task(_bars[-1], label, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            """Show steps a second."""
            return Text("" if task.speed is None else f"{task.speed:,.0f}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        _bars.append(bar)
        try:
            yield from _task(bar, label, total)
        finally:
            _bars.remove(bar)


def _task(bar: Any, label: str, total: int | None) -> Iterator[Advance]:
    task = bar.add_task(printable(label), total=total)

    def advance(steps: int, total: int | None = None) -> None:
        bar.update(task, advance=steps, total=total)

    try:
        yield advance
    finally:
        bar.remove_task(task)
