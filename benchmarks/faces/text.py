"""The same for sentences: learn intents, words and the nearest known sentence from stolen embeddings.

The thief holds other sentences of the same kind, with embeddings, intents and words. On them he trains a classifier of
intents and a ridge regression to words, and among them he looks for the nearest sentence. All of this runs on plaintext
and on index vectors, as they are and after what he can do without the key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from encvec_store.lab.leakage.probes import attributes
from encvec_store.schemes import LEAST_RECORDS

from .models import Matrix, unit
from .subjects import PAIRS, aligned, as_it_is, normalised, stolen, under_a_wrong_key

__all__ = ["Sentences", "invert_text"]

Labels = npt.NDArray[np.int64]
_WORDS = 800
_NAMED = 8
_RIDGE = 1e-2
_WORDING = 0.02
_STOP = frozenset(
    [
        "a",
        "about",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "d",
        "did",
        "do",
        "does",
        "for",
        "from",
        "get",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "ll",
        "m",
        "me",
        "my",
        "need",
        "not",
        "of",
        "on",
        "or",
        "s",
        "so",
        "t",
        "that",
        "the",
        "them",
        "there",
        "they",
        "this",
        "to",
        "up",
        "use",
        "ve",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


@dataclass(frozen=True, eq=False)
class Sentences:
    """Embeddings (n, d), their sentences, and a label for each."""

    vectors: Matrix
    texts: Sequence[str]
    labels: Labels

    def words(self) -> list[set[str]]:
        """Content words of each sentence."""
        return [set(re.findall(r"[a-z]+", text.lower())) - _STOP for text in self.texts]


def invert_text(
    victim: Sentences,
    thief: Sentences,
    targets: int,
    seed: int,
    done: Callable[[], None] = lambda: None,
    *,
    pairs: Sequence[int] = PAIRS,
) -> dict[str, Any]:
    """Store the victim's sentences under `sketch`, steal them, and measure what the thief learns of some.

    Args:
        victim: what is stored; at least 5,000, because fewer have no index vectors.
        thief: other sentences.
        targets: how many of the stored ones are attacked.
        seed: of which.
        done: called after each subject: four, and one for each of `pairs`.
        pairs: numbers of known pairs to align by.

    Two of the figures are floors. "chance" uses the embeddings of other stored sentences. "nothing" uses the thief's
    mean embedding, so that he names the commonest words; a guess that does worse has learnt nothing.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(victim.vectors), min(targets, len(victim.vectors)), replace=False))
    loot = stolen(victim.vectors)
    dim = victim.vectors.shape[1]
    taken = loot.ciphertexts[rows]
    own = thief.vectors
    while len(own) < LEAST_RECORDS:  # a collection needs as many: he adds noisy copies of his own embeddings
        own = np.concatenate([own, unit(own + np.float32(_WORDING) * rng.standard_normal(own.shape, np.float32))])
    learner = _Learner(thief)
    truth = Sentences(victim.vectors[rows], [victim.texts[row] for row in rows], victim.labels[rows])
    made: dict[str, Callable[[], Matrix]] = {
        "plaintext": lambda: victim.vectors[rows],
        "encrypted": lambda: as_it_is(taken, dim),
        "encrypted_normalised": lambda: normalised(loot, rows, thief.vectors),
        "wrong_key": lambda: under_a_wrong_key(taken, loot.scheme, own),
    }
    facts: dict[str, Any] = {}

    def align(known: int) -> Callable[[], Matrix]:
        def run() -> Matrix:
            found = aligned(loot, victim.vectors, rows, thief.vectors, known, seed=seed, attacks=_ATTACKS[bool(known)])
            facts[f"aligned_{known}"] = found.facts()
            return found.targets

        return run

    made |= {f"aligned_{known}": align(known) for known in pairs}
    figures = {}
    for name, make in made.items():
        figures[name] = learner.learns(make(), truth)
        done()
    mean = np.repeat(thief.vectors.mean(axis=0, keepdims=True), len(rows), axis=0)
    shuffled = truth.vectors[rng.permutation(len(rows))]
    scheme = {name: loot.scheme.get(name) for name in ("name", "k", "beta")}
    return {
        "stored": len(victim.vectors),
        "thief": len(thief.vectors),
        "attacked": len(rows),
        "scheme": scheme,
        "figures": {**figures, "chance": learner.learns(shuffled, truth), "nothing": learner.learns(mean, truth)},
        "alignments": facts,
    }


_ATTACKS = {False: ("pca-icp", "components", "density"), True: ("pairs-rotation", "pairs-ridge", "pairs-anchored")}


class _Learner:
    """What the thief has learnt from his own sentences."""

    def __init__(self, own: Sentences) -> None:
        self._own = own
        self._words = own.words()
        counts = Counter(word for words in self._words for word in words)
        self._vocabulary = [word for word, count in counts.most_common(_WORDS) if count > 1]
        place = {word: at for at, word in enumerate(self._vocabulary)}
        present = np.zeros((len(own.vectors), len(place)), np.float32)
        for row, words in enumerate(self._words):
            present[row, [place[word] for word in words if word in place]] = 1
        self._mean = own.vectors.mean(axis=0)
        away = own.vectors - self._mean
        gram = away.T @ away
        gram[np.diag_indices(len(gram))] += np.float32(_RIDGE * np.trace(gram) / len(gram))
        self._base = present.mean(axis=0)
        self._weights = np.linalg.solve(gram, away.T @ (present - self._base)).astype(np.float32)

    def learns(self, vectors: Matrix, truth: Sentences) -> dict[str, float]:
        """Return shares: right intents, content words among the eight guessed, nearest sentences of the same intent."""
        intents = attributes(vectors, truth.labels, self._own.vectors, self._own.labels)
        scores = (vectors - self._mean) @ self._weights + self._base
        guesses = np.argsort(-scores, axis=1)[:, :_NAMED]
        hit = total = 0
        shared = []
        nearest = (unit(vectors) @ unit(self._own.vectors).T).argmax(axis=1)
        for words, guessed, near in zip(truth.words(), guesses.tolist(), nearest.tolist(), strict=True):
            hit += len(words & {self._vocabulary[at] for at in guessed})
            total += len(words)
            both = words | self._words[near]
            shared.append(len(words & self._words[near]) / len(both) if both else 0.0)
        same = self._own.labels[nearest] == truth.labels
        return {
            "intent_accuracy": intents["accuracy"],
            "word_recall_at_8": hit / max(total, 1),
            "nearest_sentence_same_intent": float(same.mean()),
            "nearest_sentence_shared_words": float(np.mean(shared)),
        }
