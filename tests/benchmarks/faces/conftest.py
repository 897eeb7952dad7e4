"""A reduced run of the whole experiment, once a session: Olivetti faces, Fisherfaces, no torch; all else is real."""

from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("PIL")

from benchmarks.faces import mapping
from benchmarks.faces.experiment import Experiment
from benchmarks.faces.photographs import load
from benchmarks.faces.recognisers import recognisers
from benchmarks.faces.running import whole
from benchmarks.faces.setting import Settings

OLIVETTI = Path(__file__).resolve().parents[3] / "benchmarks/data/olivetti-64.npz"
LAB = ("fobi", "coordinates", "pairs-rotation")  # of the lab's attacks the quickest; it has tests of its own
SETTINGS = Settings(people=20, iterations=(100, 300), climb=30, pool=300, components=120)


@contextmanager
def no_bar(title, total):
    yield lambda steps: None


def experiment(folder, settings=SETTINGS, model="fisherfaces", second="texture", **rest):
    photographs = load(OLIVETTI)
    attacked, judge = recognisers(photographs, settings, model, second)
    return Experiment(folder, photographs, attacked, judge, settings, no_bar, **rest)


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """The experiment after a run, and its results document."""
    made = experiment(tmp_path_factory.mktemp("faces"), lab=LAB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapping, "LEARNT", 600)  # its time grows with the cube
        return made, whole(made, "make test")
