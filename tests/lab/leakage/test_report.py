"""The report is one page that stands alone and says what the rows say, whatever stands in them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("scipy")

from encvec_store.cli.app import run as encvec
from encvec_store.errors import InputError
from encvec_store.lab.leakage import reference
from encvec_store.lab.leakage.reading import HELD, percent, read, schemes
from encvec_store.lab.leakage.report import page, write
from encvec_store.lab.leakage.watched import Watched, watchers

pytestmark = pytest.mark.leakage

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
VOID = {"meta", "br"}
DRAWN = {"polygon", "rect", "line", "path", "circle", "polyline"}  # written with a slash


def row(**changes):
    given = {
        "subject": "sap", "parameters": {"beta": 2.0}, "attack": "pca-icp", "view": "centred", "adversary": "disjoint",
        "pairs": 0, "corpus": "texts", "n": 1000, "key": 0, "identified": 0.613, "ci_low": 0.582, "ci_high": 0.643,
        "chance": 0.001, "cosine": 0.5, "cosine_centered": 0.4, "recall@10": {"10": 0.8, "200": 0.9931},
        "seconds": 1.0, "versions": {"numpy": "2.0"},
    }  # fmt: skip
    return given | changes


def quiet(**changes):
    return row(**({"subject": "sketch", "identified": 0.001, "ci_low": 0.0002, "ci_high": 0.0056} | changes))


class Page(HTMLParser):
    """Fails where tags do not nest; keeps what is there."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.values, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self.values.append(float(dict(attrs)["value"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in DRAWN, tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def everything():
    return [
        *(row(n=n, chance=1 / n, key=key, identified=0.5 + key / 10) for n in (500, 1000) for key in range(3)),
        *(quiet(n=n, chance=1 / n, identified=0.0, adversary=who) for n in (500, 1000) for who in HELD),
        *(row(pairs=pairs, attack="pairs-ridge", identified=pairs / 100) for pairs in (5, 20, 60)),
        row(subject="plain", parameters={}, attack="naive", identified=1.0, ci_high=1.0),
    ]


def test_the_page_is_whole_and_stands_alone():
    found = Page(page(everything(), "encvec leakage --quick"))
    names = {tag for tag, _ in found.tags}
    assert {"html", "main", "svg", "table", "details"} <= names
    assert not names & {"script", "link", "img", "iframe", "object", "embed"}
    assert not any(key in attrs for _, attrs in found.tags for key in ("src", "href", "onload", "onclick"))
    assert "url(" not in page(everything())
    assert "@import" not in page(everything())
    for words in ("What the thief held", "What it costs the owner", "How much may stand under one key",
                  "If the thief already knows", "does not prove", "Every attack",
                  "encvec leakage --quick"):  # fmt: skip
        assert words in found.text
    assert "numpy 2.0" in found.text


def test_figures_are_the_rows():
    rows = everything()
    found = Page(page(rows))
    known = {r["identified"] for r in rows} | {r["chance"] for r in rows}
    known |= {r.identified for r in reference.REFERENCE} | {r.neighbours for r in reference.WATCHED}
    assert set(found.values) <= known, "every figure is some row's (medians are of three keys here)"
    assert {0.7, 0.6, 0.0, 1.0} <= set(found.values)
    cells = re.findall(r"<tbody><tr>(.*?)</tr>", page([row(key=key, identified=0.1 * key) for key in range(3)]))
    assert [float(value) for value in re.findall(r'value="([^"]+)"', cells[-1])] == [0.2, 0.1], "worst, then median"


def test_verdicts_in_plain_words():
    text = Page(page(everything())).text
    assert "In 1 of 2 settings tried, a thief without the key puts the right name to more than 1%" in text
    assert "A thief who has other data of the same kind names 70.0% of 500 records." in text
    assert "A thief does no better than chance in anything that was tried, with up to 1,000 records." in text
    assert "With 60 known pairs" in text
    assert "1 of 1 controls broke" in text
    assert "99.31% of the true ten (200 of 1,000 fetched)" in text


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([quiet(identified=0.001)], "chance"),
        ([quiet(identified=0.003)], "chance"),
        ([quiet(identified=0.01)], "little"),
        ([quiet(identified=0.011)], "leaks"),
        ([quiet(identified=0.5)], "broken"),
        # 5 of 1,000 where 1 is expected: rare in one trial, ordinary in a hundred
        ([quiet(identified=0.005)], "little"),
        ([quiet(identified=0.005, key=0), *(quiet(identified=0.0, key=key) for key in range(1, 100))], "chance"),
        # more by number, less against chance
        ([quiet(n=10, chance=0.1, identified=0.2), quiet(n=4000, chance=1 / 4000, identified=0.05)], "leaks"),
        ([quiet(pairs=5)], "untried"),
    ],
)  # fmt: skip
def test_verdicts(rows, verdict):
    (scheme,) = schemes(read(rows)[0])
    assert scheme.verdict == verdict


def cell(text, who, scheme):
    """Return what the first screen says of a theft under a scheme."""
    (line,) = re.findall(rf"<tr><th>{who}<small>.*?</tr>", text)
    (found,) = re.findall(rf'<td data-of="{scheme}[^"]*"><(?:b|span)[^>]*>(.*?)</(?:b|span)>', line)
    return re.sub("<[^>]+>", "", found)


COPY = {"copied": "texts", "records": 1000, "index_vectors": 0, "plain": False, "blind": False}
NOTHING = "nothing beyond sizes and counts"


def test_the_first_screen_has_the_figures_of_rows_and_says_what_was_not_tried():
    rows = [
        COPY, quiet(), row(), row(adversary="same", identified=0.2), row(adversary="same", identified=0.1),
        row(pairs=50, identified=0.97), quiet(beside="classes", adversary="disjoint", identified=0.88),
        row(attack="naive", view="raw", identified=0.002),
    ]  # fmt: skip
    text = page(rows)
    for who in ("A copy of the store", "The copy, and other texts of the kind", "The copy, and some known pairs",
                "The copy, and labels"):  # fmt: skip
        assert cell(text, who, "sealed") == NOTHING, who
    assert cell(text, "The copy, and the very same texts", "sealed") == "nothing beyond sizes, counts and order"
    for scheme in ("sketch", "sap"):
        assert cell(text, "A copy of the store", scheme) == "which records are alike", "naming none says little"
    assert cell(text, "The copy, and other texts of the kind", "sap") == "broken: 61.3%"
    assert cell(text, "The copy, and other texts of the kind", "sketch") == "not broken: 0.1%"
    assert cell(text, "The copy, and the very same texts", "sap") == "measured: 20.0%"
    assert "elsewhere 98.8% of 8,000" in text, "a run that broke nothing is no proof"
    assert cell(text, "The copy, and the very same texts", "sketch") == "broken elsewhere: 99.44%"
    assert cell(text, "The copy, and some known pairs", "sap") == "broken: 97.0%"
    assert cell(text, "The copy, and labels", "sketch") == "broken: 88.0%"
    assert cell(text, "A server that watches searches", "sketch") == "broken elsewhere: 98.8%"
    assert cell(text, "A server that watches searches", "sap") == "broken: 61.3%", "it has the copy"
    assert "Several copies over time" not in text, "it is shown where it was tried"
    found = Page(text)
    assert "Under sealed, a stolen copy of 1,000 stored records gives nothing" in found.text
    assert "sketch and sap are broken: up to 97.0% of 1,000 records are named." in found.text


SEEN = Watched("texts", False, 1000, 500, 10.0, 0.4, 0.01, 0.002)


def test_a_server_that_watches_is_shown_as_measured_or_as_measured_elsewhere():
    hidden = SEEN.row() | {"hidden": True, "rows_read": 0, "neighbours": 0}
    for rows, said in (
        ([SEEN.row(), hidden], "40.0% of neighbours found by 500"),
        ([COPY], "elsewhere 69.1% of neighbours found by 100,000"),
    ):
        text = page([COPY, *rows])
        assert cell(text, "A server that watches searches", "sealed") == "which records are alike"
        assert said in Page(text).text
        assert 'With threat="watching-server" : nothing' in Page(text).text
    assert "For your own vectors: encvec leakage --data" in Page(page([COPY])).text
    assert "For your own vectors: larger -n" in Page(page([COPY, row()])).text
    assert watchers([SEEN.row() | {"neighbours": 2}, SEEN.row()])[0] == [SEEN]


def test_what_was_measured_elsewhere_is_what_the_results_files_have():
    kept = {
        name: [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]
        for name in ("leakage", "properties", "stolen", "watching")
    }
    for trial in reference.REFERENCE:
        same = {"subject": trial.subject, "attack": trial.attack, "adversary": trial.adversary, "pairs": trial.pairs,
                "n": trial.n, "key": trial.key, "identified": trial.identified}  # fmt: skip
        there = [r for r in kept["leakage"] if all(r.get(name) == value for name, value in same.items())]
        there = [r for r in there if dict(trial.parameters).items() <= r["parameters"].items()]
        fell = [r for r in kept["properties"] if r.get("what") == "banking77" and r["of_50"] == trial.identified]
        assert there or (trial.subject == "sketch" and fell), same
    for what, share in reference.IN_ORDER.items():
        word = f"{what.split()[0]}, by order and sizes"
        assert share == max(r["named"] for r in kept["stolen"] if r.get("what") == word)
    for one in reference.WATCHED:
        (found,) = (
            r for r in kept["watching"]
            if (r.get("what"), r.get("searches")) == ("prefetched" if one.hidden else "candidates", one.searches)
        )  # fmt: skip
        assert Watched.of(
            found | {"watched": found["dataset"], "hidden": one.hidden, "records": found["n"],
                     "neighbours": found["pairs"], "neighbours_luck": found["pairs_luck"]}
        ) == one  # fmt: skip


def test_nothing_is_said_of_sealed_that_no_copy_shows():
    for rows in ([row()], [row(), COPY | {"index_vectors": 1000}]):
        assert cell(page(rows), "A copy of the store", "sealed") == "not tried here"
    named = {"subject": "sealed", "attack": "order-and-sizes", "adversary": "same", "beside": "order"}
    text = page([COPY, row(**named, identified=0.28, chance=0.01)])
    assert cell(text, "The copy, and the very same texts", "sealed") == "measured: 28.0%"
    shown = page([COPY | {"plain": True}])
    assert "and what its plain and blind fields show" in Page(shown).text
    assert "sketch and sap were not tried on these records. Elsewhere they are broken" in Page(shown).text
    text = Page(page([json.dumps(COPY), json.dumps(COPY | {"records": -1}), row(corpus=HOSTILE)])).text
    assert "1; 1 lines were no rows" in text


def test_a_page_says_what_it_did_not_try():
    text = Page(page([quiet(), row(subject="plain", identified=0.001)])).text
    assert "Tried: 1 attack, 1 key." in text
    assert "not tried: a thief who has the very same data (unordered)" in text
    assert "should have broken and did not: plain" in text
    assert "No control was run" in Page(page([quiet()])).text


HOSTILE = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"


@pytest.mark.parametrize("field", ["subject", "attack", "view", "adversary", "corpus"])
def test_text_of_rows_stays_text(field):
    rows = [row(), row(corpus="other"), row(n=500), row(pairs=5), row(pairs=9)]
    found = Page(page([{**r, field: HOSTILE} if at != 1 else r for at, r in enumerate(rows)], HOSTILE))
    assert not any(tag in ("script", "img") for tag, _ in found.tags)
    assert HOSTILE in found.text


def test_hostile_keys_and_versions_stay_text():
    found = Page(page([row(parameters={HOSTILE: 1}, versions={HOSTILE: HOSTILE})]))
    assert not any(tag in ("script", "img") for tag, _ in found.tags)


def test_one_subject_one_row():
    found = Page(page([row()]))
    assert "sap beta=2: A thief who has other data of the same kind names 61.3% of 1,000 records." in found.text
    assert "How much may stand under one key" not in found.text, "one size is no curve"
    assert "If the thief already knows" not in found.text


def test_only_pairs():
    assert "Tried only against a thief who already knows some records" in Page(page([row(pairs=5)])).text


def test_only_controls():
    assert "1 of 1 controls broke" in Page(page([row(subject="haar")])).text


def test_rows_with_little_in_them():
    found = Page(page([{"subject": "mine", "attack": "own", "n": 50, "identified": 0.98}]))
    assert "98.0%" in found.text
    assert "A thief who has data not stated" in found.text


BAD = [
    "{", "[]", "null", "{}", '"row"', json.dumps(row(identified=1.5)), json.dumps(row(identified="x")),
    json.dumps(row(n=0)), json.dumps(row(pairs=1000)), json.dumps(row(chance=0)),
    json.dumps(row(identified=float("nan"))),
    json.dumps(row(cosine_centered=float("inf"))), json.dumps(row(parameters=[1])), '{"n": 1e999}', "[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[:12])
def test_what_is_no_row_is_left_out_and_told(bad):
    text = Page(page([bad, json.dumps(row()), ""])).text
    assert "1; 1 lines were no rows and are left out" in text
    with pytest.raises(InputError):
        page([bad])


def test_percent_says_all_and_nothing_only_where_it_is_so():
    assert [percent(x) for x in (0, 2e-17, 1, 0.999999, 0.99775, 0.613, 0.0123, 0.00025)] == [
        "0%", "0%", "100%", "99.99%", "99.78%", "61.3%", "1.2%", "0.025%",
    ]  # fmt: skip


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    write(path, [row()])
    before = path.read_bytes()
    with pytest.raises(InputError):
        write(path, [])
    path.with_name("folder.html").mkdir()
    with pytest.raises(OSError, match="folder"):
        write(tmp_path / "folder.html", [row()])
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.html", "report.html"], "nothing is left behind"


def test_command_line(tmp_path, capsys):
    rows, html = tmp_path / "rows.jsonl", tmp_path / "report.html"
    given = "--subject shuffle --attack coordinates --records 100 --trials 1 --jobs 1"
    arguments = ["leakage", *given.split()]
    assert encvec([*arguments, "--out", str(rows), "--html", str(html)]) == 0
    found = Page(html.read_text())
    assert f"encvec leakage {given} --out {rows}" in found.text
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    assert max(r["identified"] for r in kept) in found.values
    html.unlink()
    with rows.open("a") as file:
        file.write('{"subject": "shuf')  # cut off
    assert encvec(["leakage", "--rows", str(rows), "--html", str(html)]) == 0
    assert "1 lines were no rows" in Page(html.read_text()).text
    copied = COPY | {"copied": "docs"}
    with rows.open("a") as file:
        file.write("\n" + json.dumps(copied) + "\n")
    assert encvec(["leakage", "--rows", str(rows), "--html", str(html)]) == 0
    assert cell(html.read_text(), "A copy of the store", "sealed") == NOTHING
    capsys.readouterr()
    assert encvec(["leakage", "--rows", str(rows)]) == 2
    assert encvec([*arguments, "--html", str(tmp_path / "no" / "report.html")]) == 2
    assert "no folder" in capsys.readouterr().err
