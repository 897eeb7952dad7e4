"""Stolen sentence embeddings tell intents and words; stolen index vectors tell no more than nothing does."""

import pytest

pytest.importorskip("scipy")

from benchmarks.datasets import load
from benchmarks.faces.text import Sentences, invert_text

pytestmark = [pytest.mark.leakage, pytest.mark.slow]


@pytest.fixture(scope="module")
def figures():
    bank = load("banking77")
    victim = Sentences(bank.vectors, bank.texts, bank.labels)
    thief = Sentences(bank.queries, bank.query_texts, bank.query_labels)
    return invert_text(victim, thief, 500, 0, pairs=())["figures"]


def test_plaintext_tells_intents_and_words(figures):
    plain = figures["plaintext"]
    assert plain["intent_accuracy"] > 0.75
    assert plain["nearest_sentence_same_intent"] > 0.75
    assert plain["word_recall_at_8"] > 3 * figures["nothing"]["word_recall_at_8"]


@pytest.mark.parametrize("subject", ["encrypted", "encrypted_normalised", "wrong_key"])
def test_ciphertexts_tell_nothing(figures, subject):
    found = figures[subject]
    assert found["word_recall_at_8"] < figures["nothing"]["word_recall_at_8"] + 0.03
    for figure in ("intent_accuracy", "nearest_sentence_same_intent"):
        assert found[figure] < 0.1, "77 intents; keys are fresh each time"
