"""What schemes answer about a collection that grows: what is due, when, and in which words."""

import numpy as np
import pytest

from encvec_store.errors import CalibrationError, ProfileError, SchemeError
from encvec_store.schemes import SCHEMES, growth, scheme
from encvec_store.schemes.profile import LEAST_RECORDS, Profile
from encvec_store.schemes.sap import Sap
from encvec_store.schemes.sealed import Sealed
from encvec_store.schemes.sketch import NARROW_FLOOR, Sketch
from encvec_store.schemes.strategy import NEVER, Choice, Standing, Verdict
from tests.schemes.test_profile import points

K = 24
PROFILE = Profile(np.zeros(K, np.float32), np.eye(K, dtype=np.float32), np.ones(K, np.float32), 5000, K)
FITTED = Sketch().fitted(PROFILE)
STALE = Verdict(3.0, 0.0, 500, 2.0, 0.1, PROFILE.digest)


def standing(*counts, **given):
    usual = {"point_dim": K, "profile": PROFILE, "fitted": {"records": 5000, "sized": 10_000, "chosen": ["k", "beta"]}}
    return Standing(counts=counts, **{**usual, **given})


def soonest(of, at):
    return min((task.missing for task in of.after_write(at)), default=NEVER)


def test_a_first_fit():
    young = {"profile": None, "fitted": None}
    (task,) = Sketch().after_write(standing(4000, 900, **young))
    assert (task.missing, task.fits) == (100, True)
    assert task.name == "fit a profile: there are 5000 records or more"
    assert soonest(Sketch(k=400), standing(5000, **young)) == 3000
    assert soonest(Sketch(), standing(9000, point_dim=15, **young)) == NEVER, "too narrow to hide in"
    sealed = Sketch().state(standing(9000, point_dim=15, **young))
    assert {name: value for name, value in sealed.items() if value is not None} == {"state": "sealed"}
    assert "until" in sealed
    assert Sketch(k=2).state(standing(9, point_dim=15, **young))["until"] == LEAST_RECORDS


def test_later_ones():
    assert soonest(FITTED, standing(10_000)) == 1, "candidates were chosen for so many"
    assert soonest(FITTED, standing(10_000, calibrated=True)) == growth.BUDGET + 1 - 10_000
    (widen,) = [task for task in FITTED.after_write(standing(10_001)) if task.missing <= 0]
    assert (widen.name, widen.fits) == ("widen: the candidates of a search were chosen for 10000 records", False)
    (refit,) = [task for task in FITTED.after_write(standing(10_000, verdict=STALE)) if task.missing <= 0]
    assert (refit.name, refit.fits) == ("refit: recent records differ from those it was fitted on", True)
    assert soonest(FITTED, standing(9_000, verdict=STALE)) == 1000, "it has not doubled yet"
    many = {"fitted": {"records": 50_000, "sized": 10**7}, "verdict": STALE}
    assert soonest(Sketch(cells=9).fitted(PROFILE), standing(growth.REFIT_MOST + 1, **many)) > 0, "not unasked"
    (spread,) = [task for task in FITTED.after_write(standing(growth.BUDGET + 1, calibrated=True)) if task.missing <= 0]
    assert (spread.name, spread.fits) == (f"spread over more cells: one holds more than {growth.BUDGET} records", True)


def test_cells_are_ours_unless_asked_for():
    mine, asked = Sketch(cells=4).fitted(PROFILE), ("k", "beta")
    assert not mine.spreads(asked)
    assert mine.spreads((*asked, "cells"))
    assert mine.renewed((*asked, "cells")).cells is None
    assert mine.renewed(asked).cells == 4
    full = standing(growth.BUDGET + 1)
    assert mine.state(full)["advice"].startswith("more than 30,000 records under one rotation")
    assert FITTED.state(full)["advice"] is None


def test_fitting():
    sample = points(6000, 40, decay=0.9)
    found = Sketch().fit(sample, 100_000)
    assert (found.chosen, found.scheme.cells, found.scheme.beta) == (["k", "beta", "cells"], 7, NARROW_FLOOR)
    assert found.scheme.profile == found.profile.digest
    assert Sketch(k=20, beta=1.0, cells=2).fit(sample, 100_000).chosen == []
    again = found.scheme.renewed(found.chosen)
    assert again == Sketch()
    tuned = found.scheme.tuned(Choice(18, 0.25, 4.5), found.chosen)
    assert tuned == Sketch(k=18, gamma=0.25, beta=4.5)
    assert found.scheme.tuned(Choice(18, 0.25, 4.5)).cells == 7
    with pytest.raises(ProfileError, match="has no profile yet"):
        Sketch().trial(None, None)


def test_schemes_that_stay_as_they_are():
    for one in (Sap(), Sealed()):
        assert (one.needs_profile, one.profile, one.budget, one.least_records) == (False, None, None, 0)
        assert one.after_write(standing(10**9)) == []
        assert one.state(standing(10**9)) is one.watched(PROFILE) is None
        assert one.renewed(["k"]) == one
        one.check_new(1)
        with pytest.raises(CalibrationError, match=f"scheme '{one.name}' has no profile to fit"):
            one.fit(PROFILE.basis, 5)
    assert Sap(beta=1.0, query_beta=0.5).tuned(Choice(9, None, 3.0)) == Sap(3.0, 0.5)
    for ask in (lambda: Sealed().field(None), lambda: Sealed().tuned(Choice(1, None, 1.0))):
        with pytest.raises(CalibrationError, match="calibrate is for server-ranked schemes"):
            ask()
    assert {name: (one.needs_profile, one.noisy) for name, one in SCHEMES.items()} == {
        "sap": (False, True),
        "sealed": (False, False),
        "sketch": (True, True),
    }
    assert (Sap(3.0).noise, Sealed().noise, Sketch().noise, FITTED.noise) == (3.0, 0.0, 0.0, NARROW_FLOOR)


def test_arguments_of_a_new_collection():
    Sketch(k=16).check_new(16)
    with pytest.raises(SchemeError, match="sketch: k must be at most 16 here, got 17"):
        Sketch(k=17).check_new(16)
    with pytest.raises(SchemeError, match="must not be given"):
        scheme({"name": "sketch", **FITTED.parameters()}).check_new(K)


def test_what_is_watched():
    assert FITTED.watched(PROFILE) == NARROW_FLOOR / 4
    assert Sketch().watched(PROFILE) is FITTED.watched(None) is None
