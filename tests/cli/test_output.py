"""Tables: whole cells at any width of a terminal."""

import io
import re

import pytest

pytest.importorskip("rich")

from encvec_store.cli.bench import show
from encvec_store.cli.output import table
from tests.kits.bench import plain, row


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def screen(monkeypatch):
    """Call it to print within 80 columns; gives the lines."""

    def printed(work, *args):
        out = Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", "80")
            patch.setattr("sys.stdout", out)
            work(*args)
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()]

    return printed


def test_a_wide_table_is_turned_and_no_cell_is_folded(screen):
    names = [f"column {chr(97 + i)}" for i in range(12)]
    rows = [[f"value {i} of {n}" for i in range(12)] for n in range(7)]
    lines = screen(table, names, rows)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for i, name in enumerate(names):
        assert text.count(name) == text.count(names[0]) > 1, "a name in each group of rows"
        assert all(rows[n][i] in text for n in range(7))
    assert text.index("value 0 of 0") < text.index("value 0 of 6")


def test_a_table_that_fits_stays_as_it_is(screen):
    lines = screen(table, ["name", "count"], [["one", 1], ["three hundred", 300]])
    assert [line.split() for line in lines if "hundred" in line] == [["three", "hundred", "300"]]
    assert [line.index("1") for line in lines if "one" in line] == [len(" three hundred   count") - 1]


def test_a_cell_wider_than_the_screen_is_whole(screen):
    lines = screen(table, ["a", "b"], [["x" * 100, "y"]])
    assert any("x" * 100 in line for line in lines)


def test_the_bench_says_how_many_candidates_are_ranked(screen):
    lines = screen(show, [plain(), row(reranked=False, oversample=None), row(oversample=75, candidates=750)])
    assert max(map(len, lines)) <= 80
    (ranked,) = (line.split() for line in lines if line.split()[:1] == ["re-ranked"])
    assert ranked[1:] == ["no", "750"], "plaintext has nothing to re-rank"
    assert [line.split() for line in lines if line.strip().startswith("per hit")] == [["per", "hit", "75"]]
    assert any(line.split()[:3] == ["p50", "ms", "0.5"] for line in lines)
