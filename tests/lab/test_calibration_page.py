"""The page of a calibration: in the shell of all pages, with every figure of the report."""

from encvec_store import Calibration
from encvec_store.lab.pages.calibration import page


def report(**more):
    frontier = [{"beta": b, "candidates": c, "recall": 0.9} for b in (0.0, 2.0, 6.0) for c in (10.0, 500.0)]
    choices = [{"dimensions": d, "gamma": 0.0, "beta": b} for d, b in ((20, None), (30, 4.0), (40, 4.6))]
    given = {
        "scheme": "sketch", "beta": 4.6, "dimensions": 40, "gamma": 0.0, "query_beta": 0.0, "oversample": 50, "k": 10,
        "target_recall": 0.99, "recall": 0.9931, "recall_low": 0.9902, "floor": 3.6, "least_dimensions": 40,
        "sample_size": 6000, "planned_size": 6000, "queries": 300, "seed": 0, "choices": choices, "frontier": frontier,
    }  # fmt: skip
    return Calibration(**{**given, **more})


def test_it_stands_alone_and_tells_what_was_chosen():
    text = page(report())
    assert "default-src 'none'" in text
    assert "Beta 4.6 with 40 dimensions finds 99.31% of the true 10 (at least 99.02%) when 500 candidates" in text
    assert "no noise meets the target: 20 dimensions, gamma 0." in text
    assert text.count('class="plot"') == 2
    assert "What attacks found" not in text


def test_attacks_have_a_plot_and_a_table_and_hostile_words_stay_text():
    row = {
        "beta": 2.0,
        "identified": 0.4,
        "ci_low": 0.3,
        "ci_high": 0.5,
        "chance": 0.001,
        "adversary": "same",
        "n": 900,
    }
    text = page(report(attack={"identified": 0.4, "by_beta": [{**row, "attack": "<script>", "adversary": "same"}]}))
    assert text.count('class="plot"') == 3
    assert "<td>40%</td>" in text
    assert "<script>" not in text


def test_a_scheme_with_nothing_else_to_choose_has_no_plot_of_it():
    text = page(report(scheme="sap", gamma=None, floor=0.0, choices=[{"dimensions": 40, "gamma": None, "beta": 1.0}]))
    assert "What else was tried" not in text
    weak = page(report(beta=1.0))
    assert "our own attacks succeed below beta 3.6" in weak


def test_a_scheme_without_gamma_is_described_without_it():
    """As a scheme of another package may be: it has a floor and dimensions to choose, but no exponent on queries."""
    tried = [{"dimensions": d, "gamma": None, "beta": b} for d, b in ((20, None), (30, 1.0))]
    found = report(scheme="own", gamma=None, beta=1.0, dimensions=30, choices=tried)
    assert "(20 dimensions: missed; 30 dimensions: beta 1.00)" in found.weakness()
    text = page(found)
    assert "no noise meets the target: 20 dimensions." in text
    assert "gamma 0" not in text
