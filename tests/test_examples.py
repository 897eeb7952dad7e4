"""The programs in docs/examples over `search` and `scroll` find in an encrypted collection what is in the vectors."""

from collections import Counter

import numpy as np

from benchmarks.datasets import load
from docs.examples import anomalies, classify, cluster


def test_classification_is_that_of_the_plaintext(monkeypatch):
    answers = []
    monkeypatch.setattr(classify, "classify", lambda *args, of=classify.classify: answers.extend(of(*args)) or answers)
    share = classify.main(records=1_500, asked=100)
    bank = load("banking77", limit=1_500)
    scores = bank.queries[:100] @ bank.vectors.T
    for row, answer in zip(scores, answers, strict=True):
        votes = Counter()
        for at in np.argsort(-row)[:10]:
            votes[bank.label_names[bank.labels[at]]] += row[at]
        assert answer == votes.most_common(1)[0][0]
    assert share > 0.75, "one intent in 77 by luck"


def test_clusters_have_a_topic(capsys):
    assert cluster.main(records=1_500) > 0.5
    assert capsys.readouterr().out.count("questions around: ") == 3


def test_what_does_not_belong_is_found():
    auc, odd = anomalies.main(records=1_500, asked=100)
    assert auc > 0.8
    assert "what is the word?" in odd or len(set(odd)) == 3
