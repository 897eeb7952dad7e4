"""The lab on a sample of one's own: what it says of settings that break and of those that hold; inside calibrate."""

import json

import pytest

pytest.importorskip("scipy")

from encvec_store.errors import InputError
from encvec_store.lab.leakage import SampleAttack
from encvec_store.lab.leakage.data import text_like
from encvec_store.schemes import scheme

pytestmark = pytest.mark.leakage

POINTS = text_like(1600, 40, seed=5)[0]


def test_a_weak_setting_breaks_and_more_noise_mends_it():
    report = SampleAttack(("pca-icp",), others=(20.0,))(POINTS, scheme({"name": "sap", "beta": 0.4}))
    assert report["beta"] == 0.4
    assert report["identified"] > 0.9
    assert 0.8 < report["ci_low"] < report["ci_high"]
    assert (report["n"], report["chance"]) == (800, 1 / 800)
    weak, strong = report["by_beta"]
    assert {name: report[name] for name in weak} == weak
    assert (strong["beta"], strong["identified"] < 0.1) == (8.0, True)
    assert json.loads(json.dumps(report)) == report


def test_a_sketch_is_fitted_on_the_whole_sample():
    """Its half alone would be too small for so many dimensions."""
    attack = SampleAttack(("components", "density"), others=())
    report = attack(POINTS[:900], scheme({"name": "sketch", "k": 40, "beta": 6.0}))
    assert (report["n"], report["identified"] < 0.05) == (450, True)


def test_too_few():
    with pytest.raises(InputError, match="a sample of at least 80 vectors, got 79"):
        SampleAttack()(POINTS[:79], scheme("sap"))
