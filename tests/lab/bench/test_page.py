"""The bench's page and pictures: figures are those of the rows, nothing runs or is loaded, text is escaped."""

import re
from html.parser import HTMLParser

import pytest
from click.testing import CliRunner

from encvec_store.cli.app import cli
from encvec_store.errors import InputError
from encvec_store.lab.bench.cost import Prices, cost
from encvec_store.lab.bench.figures import looks, peers_in
from encvec_store.lab.bench.pictures import draw
from encvec_store.lab.bench.reading import contests, frontier, growths, largest, noises, series_of
from encvec_store.lab.bench.report import page
from encvec_store.lab.pages.charts import SHAPES, marker
from tests.kits.bench import plain, row

HOSTILE = "</style><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;"
VOID = {"meta", "br"}


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def grown(quantity):
    sizes = (1_000, 10_000, 100_000, 1_000_000)
    name = "clustered:{}x8"
    return [
        item(dataset=name.format(n), n=n, job=str(n), **{quantity: 3.0 * n**0.5})
        for n in sizes
        for item in (plain, row)
    ]


def attack(beta, identified, **more):
    return {
        "subject": "sap", "parameters": {"beta": beta}, "n": 500, "pairs": 0, "identified": identified,
        "chance": 0.002, "recall@10": {"100": 0.9}, **more,
    }  # fmt: skip


def test_the_page_says_the_ratio_of_the_rows_and_stands_alone():
    rows = [
        plain(p50_ms=0.5, cpu_ms=0.4),
        row(p50_ms=1.6, cpu_ms=1.6),
        row(reranked=False, oversample=None, **{"recall@10": 0.6}),
    ]
    text = page(rows, [{"date": "2026-01-02", "cpu": "x", "cpus": 2, "versions": {"numpy": "2"}}], [])
    assert "3.2 times as long (1.60 ms, recall@10 0.9950; 4.0 times the processor)" in text
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    tags = {tag for tag, _ in parser.tags}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "default-src 'none'" in text


def test_rows_are_other_peoples_text():
    parser = Balanced()
    odd = [item(dataset=HOSTILE, store=HOSTILE, index=HOSTILE) for item in (plain, row)]
    parser.feed(page([*odd, row(scheme=HOSTILE, dataset="a")], [{"cpu": HOSTILE, "date": HOSTILE}], []))
    assert not any(tag in ("script", "img") for tag, _ in parser.tags)


def test_peers_have_colours_of_their_own():
    rows = [plain(), row(), *(row(peer=name, scheme=name) for name in ("b", "a", HOSTILE))]
    text = page(rows)
    for kind, name in (("peer1", "a"), ("peer2", "b")):
        assert re.search(rf'<span class="{kind}"><svg class="sign"[^>]*>.{{1,200}}</svg> {name}</span>', text)
    assert HOSTILE not in text


def test_a_side_that_misses_the_recall_is_said_to():
    text = page([plain(), row(**{"recall@10": 0.8})])
    assert "reaches recall@10 of 0.8000 at most" in text
    assert "times as long" not in text
    with pytest.raises(InputError):
        page([{"kind": "row"}])


def test_plaintext_that_misses_the_recall_is_said_to():
    text = page([plain(**{"recall@10": 0.9625}), row(p50_ms=1.5)])
    assert "Plaintext reaches recall@10 of 0.9625 at most. <b>sap beta 2</b> takes 1.50 ms at 0.9950." in text


def test_the_frontier_holds_what_nothing_beats():
    rows = [row(qps=qps, **{"recall@10": recall}) for recall, qps in ((0.9, 100), (0.95, 120), (0.99, 50), (0.97, 40))]
    assert [(item["recall@10"], item["qps"]) for item in frontier(rows)] == [(0.95, 120), (0.99, 50)]


@pytest.mark.parametrize("quantity", ["p50_ms", "build_cpu_s", "bytes"])
def test_growth_finds_the_exponent(quantity):
    for found in growths(grown(quantity), quantity):
        power, fit = found.exponent
        assert power == pytest.approx(0.5, abs=1e-6)
        assert fit == pytest.approx(1)
    rows = grown(quantity)
    assert [contest.rows[0]["n"] for contest in largest(contests(rows))] == [1_000_000]
    assert "n<sup>0.50</sup>" in page(rows)
    assert not growths(rows[:4], quantity), "two sizes make no curve"


def test_growth_names_what_tells_its_series_apart_and_takes_no_other_run():
    rows = [
        row(dataset=f"clustered:{n}x8", n=n, k=10, run="grown", job=str(n), oversample=wide, p50_ms=wide * n**0.5)
        for n in (1_000, 10_000, 100_000)
        for wide in (10, 50)
    ]
    other = {"dataset": "clustered:100000x8", "n": 100_000, "k": 10, "run": "other", "oversample": 10}
    rows = (
        [row(**other, p50_ms=9.0, device=device, job=device) for device in ("cpu", "cuda")]
        + rows
        + [row(**other, p50_ms=9.0, job="cpu")]
    )
    found = {each.name: each.points[-1][1] for each in growths(rows, "p50_ms")}
    assert found == {f"sap beta 2, {wide}0 candidates": pytest.approx(wide * 100_000**0.5) for wide in (10, 50)}
    assert [each.name for each in growths(rows, "bytes")] == ["sap beta 2"], "it is the same whatever is re-ranked"
    titles = [contest.title for contest in largest(contests(rows))]
    assert sum("on a GPU" in title for title in titles) == 1


def test_noise_counts_the_best_attack_without_pairs():
    rows = [attack(1.0, 0.5), attack(1.0, 0.9), attack(1.0, 1.0, pairs=50), attack(2.0, 0.1), attack(2.0, 0.1, n=9)]
    (found,) = noises(rows)
    assert found.named == [(1.0, 0.9), (2.0, 0.1)]
    assert found.recall == [(1.0, 0.9), (2.0, 0.9)]
    assert "What noise costs whom" in page([plain(), row()], [], rows)
    assert not noises(rows[:3])


def test_cost_by_hand():
    worked = cost(row(), Prices(memory=2, disk=0.5, core=10, rate=100))
    assert worked.memory == pytest.approx(100 / 1024 * 1000 * 2), "100 MiB for a thousand vectors"
    assert worked.disk == pytest.approx(0.5), "1 MB a thousand is 1 GB a million"
    assert worked.cores == pytest.approx(1.0), "100 queries of 1 ms keep a tenth of a core busy"
    assert worked.building == pytest.approx(2.0 * 1000 / 3600)
    assert cost(row(peak_rss_mb=None), Prices()).month is None


def test_pictures(tmp_path):
    rows = [*grown("p50_ms"), plain(job="x"), row(job="x")]
    made = draw(tmp_path / "new", rows, [attack(1.0, 0.5), attack(2.0, 0.1)])
    names = {path.name for path in made}
    assert {"growth-p50_ms.png", "growth-bytes.png", "noise-1.png", "pareto-1.png"} <= names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


def test_report_command(tmp_path):
    import json

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(item) + "\n" for item in (plain(), row())))
    out = tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["bench", "report", str(tmp_path), "--html", str(out), "--memory-price", "7"])
    assert done.exit_code == 0, done.output
    assert "$7.00 for a GiB" in re.sub(r"\s+", " ", out.read_text())


def test_every_series_of_a_plot_has_a_marker_of_its_own():
    """Colours are those of schemes, so markers must tell several noises, an index alone and peers apart."""
    rows = [
        plain(),
        *(row(scheme="sketch", beta=beta) for beta in (2.0, 3.6, 5.0)),
        row(scheme="sketch", beta=5.0, reranked=False, oversample=None),
        row(),
        row(scheme="sealed", beta=None),
        *(row(peer=name, scheme=name) for name in ("a", "b")),
    ]
    found = {series_of(item): item for item in rows}
    drawn = looks(found, peers_in(rows))
    assert len({(look.shape, look.hollow) for look in drawn.values()}) == len(found) == 9
    assert drawn["sketch beta 5, index alone"].shape == drawn["sketch beta 5"].shape
    assert len({marker(shape, 0, 0) for shape in SHAPES}) == len(SHAPES) >= 12
    text = page(rows)
    for look in drawn.values():
        assert marker(look.shape, 0, 0, hollow=look.hollow) in text, "in the legend"


def test_heads_stand_as_their_columns_do():
    """The position of a column of text differs from table to table: its head says so itself."""
    text = page([plain(), row()])
    for table in re.findall(r"<table>.*?</table>", text, re.S):
        heads = re.findall(r"<th( class=\"text\")?>", table[: table.index("</thead>")])
        line = table[table.index("<tbody>") :].partition("</tr>")[0]
        cells = re.findall(r"<(th|td)( class=\"text\")?>", line)
        assert [bool(head) for head in heads] == [kind == "th" or bool(text) for kind, text in cells]


def test_a_side_that_is_left_out_of_a_figure_is_named():
    text = page([plain(), row(), row(scheme="sketch", beta=5.0, **{"recall@10": 0.8})])
    (costs,) = re.findall(r"<h2>What encryption costs.*?</section>", text, re.S)
    (month,) = re.findall(r"<h2>A million vectors.*?</section>", text, re.S)
    said = "Not shown, because no setting reaches recall@10 of 99%: some, 1,000 x 8, faiss: hnsw: sketch beta 5."
    for section in (costs, month):
        assert said in section
    assert "Not shown" not in page([plain(), row()])
    assert "plaintext, and so all beside it" in page([plain(**{"recall@10": 0.9}), row()])


def test_amounts_have_their_currency():
    assert "<td>$0.10</td>" in page([plain(), row()])
    text = page([plain(), row()], prices=Prices(currency="EUR"))
    assert "EUR 25.00 for a core" in text
    assert "<td>EUR 0.10</td>" in text
    assert "$" not in text


def test_a_sketch_without_a_profile_is_called_sealed():
    assert series_of(row(scheme="sketch", beta=None, scheme_parameters={"profile": None})) == "sketch, still sealed"
    assert series_of(row(scheme="sketch", beta=5.0, scheme_parameters={"profile": "ab"})) == "sketch beta 5"
