"""Metrics and probes against answers known beforehand."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from encvec_store.lab.leakage import probes, subject
from encvec_store.lab.leakage.data import text_like
from encvec_store.lab.leakage.identities import accuracy
from encvec_store.lab.leakage.linking import linkage
from encvec_store.lab.leakage.metrics import (
    auc,
    decoder,
    equal_error_rate,
    hits,
    mean_cosine,
    recall_in_candidates,
    true_accept_rate,
    unlinkability,
    wilson,
)

pytestmark = pytest.mark.leakage

DIM = 40
VECTORS, TOPICS = text_like(2000, DIM, seed=1)


def test_wilson_has_textbook_values():
    assert np.allclose(wilson(0, 10), (0.0, 0.27753), atol=1e-4)
    assert np.allclose(wilson(5, 10), (0.23659, 0.76341), atol=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_hits_counts_own_records_only():
    points = np.eye(4, dtype=np.float32)
    assert hits(points, points).all()
    assert not hits(points[[1, 0, 3, 2]], points).any()


def test_cosine_of_the_mean_gains_nothing_once_centred():
    guess = np.broadcast_to(VECTORS.mean(axis=0), VECTORS.shape)
    assert mean_cosine(guess, VECTORS) > 0.05
    assert abs(mean_cosine(guess + 1e-6, VECTORS, VECTORS.mean(axis=0))) < 0.05


def test_decoder_inverts_what_is_linear():
    matrix, offset = decoder(VECTORS @ np.diag(np.arange(1, DIM + 1)).astype(np.float32), VECTORS)
    found = VECTORS @ np.diag(np.arange(1, DIM + 1)).astype(np.float32) @ matrix + offset
    assert mean_cosine(found, VECTORS) > 0.95


def test_recall_counts_candidates():
    plain = recall_in_candidates(VECTORS[:50] @ VECTORS.T, VECTORS, VECTORS[:50], [10, 50])
    assert plain == {10: 1.0, 50: 1.0}
    blind = np.random.default_rng(0).standard_normal(VECTORS.shape).astype(np.float32)
    lost = recall_in_candidates(VECTORS[:50] @ blind.T, VECTORS, VECTORS[:50], [10, 1000, 2000])
    assert lost[10] < 0.1
    assert 0.35 < lost[1000] < 0.65
    assert lost[2000] == 1.0


def test_unlinkability_of_separable_and_equal_distributions():
    rng = np.random.default_rng(0)
    apart = unlinkability(rng.normal(5, 0.5, 2000), rng.normal(-5, 0.5, 2000))
    assert apart.system > 0.999
    same = unlinkability(rng.normal(0, 1, 2000), rng.normal(0, 1, 2000))
    assert same.system < same.null + 0.01
    assert 0 < same.null < 0.2, "a histogram's floor is above zero"
    # two uniforms that share half of their range: D is 1 on the rest and 0 where they meet, so 1/2 in all
    half = unlinkability(rng.uniform(1, 3, 20_000), rng.uniform(0, 2, 20_000))
    assert abs(half.system - 0.5) < 0.03
    assert half.local.shape == half.scores.shape == (100,)


def test_error_rates():
    mated, others = np.array([1.0, 2, 3, 4]), np.array([-1.0, 0, 1.5, 2.5])
    assert equal_error_rate(mated, others) == pytest.approx(0.25, abs=0.13)
    assert equal_error_rate(np.arange(10.0) + 100, np.arange(10.0)) == 0
    assert true_accept_rate(mated, others, 0.25) == 0.75
    assert true_accept_rate(mated, others, 0.0) == 0.5


def test_equal_scores_have_one_threshold():
    """What a store did not fetch has no score: its right and wrong pairs cannot be told apart by order."""
    mated, others = np.array([0.9, 0.8, -2, -2]), np.array([0.1, -2, -2, -2])
    assert equal_error_rate(mated, others) == pytest.approx((0.5 + 0.25) / 2)
    assert equal_error_rate(np.zeros(5), np.zeros(5)) == 0.5


def test_accuracy_is_the_originals_where_all_are_re_ranked():
    rng = np.random.default_rng(0)
    enrolled, ids = VECTORS[:200], np.arange(200)
    people = ids[:100]
    probes_ = enrolled[:100] + 0.1 * rng.standard_normal((100, DIM)).astype(np.float32)
    probes_ /= np.linalg.norm(probes_, axis=1, keepdims=True)
    blind = rng.standard_normal(enrolled.shape).astype(np.float32)
    found = accuracy(probes_ @ blind.T, enrolled, probes_, (ids, people), [5, 100, 200, 500])
    assert found["mated_pairs"] == found["probes"] == 100
    assert found["plain"]["eer"] < 0.1
    assert found["plain"]["rank_1"] > 0.5
    assert found["ciphertexts"]["eer"] == pytest.approx(0.5, abs=0.1)
    assert found["reranked"].keys() == {"5", "100", "200"}
    assert found["reranked"]["200"] == found["plain"], "every record is a candidate"
    assert found["reranked"]["5"]["tar@0.01"] < 0.2, "what is not fetched is refused"


def test_auc():
    assert auc(np.array([2.0, 3]), np.array([0.0, 1])) == 1
    assert auc(np.array([1.0, 1]), np.array([1.0, 1])) == 0.5


def test_new_keys_are_no_renewal_for_a_rotation():
    """A naive linker sees nothing; an aligned one links every record."""
    dumps = [subject("haar", DIM).keyed(key, VECTORS).store(VECTORS[:600]) for key in (0, 1)]
    row = linkage(*dumps)
    assert row["linker"] != "none"
    assert row["rank_1"] > 0.9
    assert row["d_sys"] > 0.9 > row["d_sys_null"] + 0.5
    assert row["tried"]["none"] < 0.2
    assert max(d for _, d in row["curve"]) > 0.99


def test_membership_and_attributes_follow_alignment():
    member = probes.membership(VECTORS[:500], VECTORS[:200], VECTORS[500:700])
    assert member["auc"] > 0.99
    told = probes.attributes(VECTORS[:500], TOPICS[:500], VECTORS[500:], TOPICS[500:])
    assert told["accuracy"] > told["chance"] + 0.3
    rng = np.random.default_rng(0)
    blind = rng.standard_normal((500, DIM)).astype(np.float32)
    assert probes.membership(blind, VECTORS[:200], VECTORS[500:700])["auc"] == pytest.approx(0.5, abs=0.1)
    lost = probes.attributes(blind, TOPICS[:500], VECTORS[500:], TOPICS[500:])
    assert lost["accuracy"] < lost["chance"] + 0.1


def test_norms_leak_where_they_are_kept():
    kept = subject("norm-kept", DIM, k=20, beta=0.5).keyed(0, VECTORS).store(VECTORS)
    hidden = subject("sketch", DIM, k=20, beta=0.5).keyed(0, VECTORS).store(VECTORS)
    assert probes.norms(kept, VECTORS)["rank_correlation"] > 0.2
    assert abs(probes.norms(hidden, VECTORS)["rank_correlation"]) < 0.1


def test_averaging_gains_where_noise_is_fresh():
    fresh = probes.averaging(subject("shuffle-sap", DIM, beta=2.5).keyed(0, VECTORS), VECTORS[:100])
    assert fresh["repeats_equal"] == 0
    assert fresh["cosine"] > fresh["chance"] + 0.1


def test_chosen_plaintext_is_the_end():
    keyed = subject("sap", DIM, beta=2.5).keyed(0, VECTORS)
    assert probes.chosen_plaintext(keyed, VECTORS[:300])["identified"] > 0.5


def test_cells_tell_what_they_were_cut_by():
    told = probes.cell_leakage(TOPICS, TOPICS)
    assert told["information"] == pytest.approx(1)
    drawn = np.random.default_rng(0).integers(0, 40, len(TOPICS))
    blind = probes.cell_leakage(drawn, TOPICS)
    assert blind["information"] == pytest.approx(blind["chance"], abs=0.02)
