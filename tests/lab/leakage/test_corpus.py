"""What of a corpus decides: clusters are told from a spread-out cloud, and said in a sentence."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.errors import InputError
from encvec_store.lab.leakage import corpus
from encvec_store.lab.leakage.algebra import unit

pytestmark = pytest.mark.leakage


def clustered(spread, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((30, 64))
    return unit((centres[rng.integers(0, 30, 900)] + spread * rng.standard_normal((900, 64))).astype(np.float32))


def test_tight_clusters_are_near_and_a_cloud_is_not():
    tight, loose = (corpus.properties(clustered(spread), k=48) for spread in (0.3, 3.0))
    assert tight["shown_nearest"] > 0.6 > 0.45 > loose["shown_nearest"]
    assert tight["effective_dimension"] < loose["effective_dimension"]
    assert tight["noise_ratio"] > loose["noise_ratio"]
    assert 1 >= tight["nearest"] > tight["tenth"] > 0
    assert tight["vectors"] == 900


@pytest.mark.parametrize("measured", corpus.MEASURED, ids=lambda one: one.name)
def test_the_sentence_tells_what_was_measured_and_calls_no_corpus_safe(monkeypatch, measured):
    monkeypatch.setattr(corpus, "MEASURED", (measured,))
    sentence = corpus.properties(clustered(0.3), k=48)["sentence"]
    assert measured.name in sentence
    assert f"{measured.of_50:.1%}" in sentence
    assert ("broken yet" in sentence) == (measured.of_50 <= 0.5)


def test_a_few_vectors_are_refused():
    with pytest.raises(InputError, match="at least 50, got 49"):
        corpus.properties(clustered(1.0)[:49])


def test_both_properties_say_which_corpus_is_most_alike():
    def like(nearest, dimension):
        return min(corpus.MEASURED, key=lambda one: one.apart(nearest, dimension)).name

    assert like(0.65, 40) == "Banking77"
    assert like(0.65, 85) == "CLINC150"
    assert like(0.54, 50).startswith("faces")
    assert like(0.30, 130) == "WordNet glosses"
