"""A server that watches: attacks break the true graph, learn something of a real log, and nothing by luck."""

import numpy as np
import pytest

pytest.importorskip("scipy")

import encvec_store as ev
from encvec_store import low_level
from encvec_store.lab.leakage import graphs, watched, watching
from encvec_store.lab.leakage.data import text_like

pytestmark = pytest.mark.leakage

N, DIM, TOPICS, K = 600, 40, 12, 10
VECTORS, LABELS = text_like(N, DIM, seed=1, topics=TOPICS)
ASKED, ABOUT = text_like(300, DIM, seed=2, topics=TOPICS)
OWN = watching.neighbour_log(VECTORS, K)
NEAR = watching.neighbours(VECTORS, K)


def rng():
    return np.random.default_rng(0)


KNOWN = rng().choice(N, 80, replace=False)
MIXED = LABELS.copy()
MIXED[KNOWN] = rng().permutation(LABELS[KNOWN])


def named(log, known):
    order = rng().permutation(N)
    text = np.argsort(order)
    rows = rng().choice(N, known, replace=False)
    found = graphs.matched(log.graph, OWN.graph[order][:, order], rng(), (rows, text[rows]) if known else None)
    return float(np.delete(found == text, rows).mean())


def logged(url, keyset, **how):
    with ev.connect(url, keyset=keyset, **how) as store:
        things = store.collection("docs", DIM)
        if not things.count():
            things.upsert([str(i) for i in range(N)], VECTORS)
        places = {int(row): i for i, row in enumerate(low_level.places(things, [str(i) for i in range(N)]))}
        things.search(VECTORS[0], K)
        with watching.watched(things) as seen:
            for query in ASKED:
                things.search(query, K)
                seen.next()
        things.search(VECTORS[1], K)  # is not watched any more
    return seen.rows(places)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    return f"faiss:{folder}/store", ev.Keyset.create("memory:")


@pytest.mark.parametrize("known", [0, 30])
def test_the_true_graph_names_its_records(known):
    assert named(OWN, known) > 0.8
    assert named(OWN.shuffled(rng()), known) < 0.02


def test_the_true_graph_tells_topics_and_neighbours():
    assert watching.record_topics(OWN, LABELS, KNOWN) > 0.7
    assert watching.record_topics(OWN, MIXED, KNOWN) < 0.6
    assert watching.topics(OWN, LABELS, rng()) > 0.5
    assert abs(watching.topics(OWN.shuffled(rng()), LABELS, rng())) < 0.05
    assert watching.neighbour_pairs(OWN, NEAR)["recall"] > 0.6
    assert watching.neighbour_pairs(OWN.shuffled(rng()), NEAR)["recall"] < 0.1


def test_logs_of_a_store_tell_topics_unless_nothing_is_read(place):
    log = logged(*place, reads="candidates")
    assert len(log.reads) == len(ASKED)
    assert all(len(one) >= K for one in log.reads), "the search before and that after are not in the log"
    assert watching.record_topics(log, LABELS, KNOWN) > 1.5 * watching.record_topics(log, MIXED, KNOWN)
    assert watching.query_topics(log, LABELS, KNOWN, ABOUT) > 1.5 * watching.query_topics(log, MIXED, KNOWN, ABOUT)
    assert watching.topics_by_queries(log, ABOUT, np.arange(100)) > 0.5
    assert watching.topics(log, LABELS, rng()) > 0.3
    assert watching.neighbour_pairs(log, NEAR)["precision"] > 0.3
    assert logged(*place, reads="hits").each < log.each
    hidden = logged(*place, threat="watching-server")
    assert hidden.each == 0 == watching.record_topics(hidden, LABELS, KNOWN)
    assert watching.topics(hidden, LABELS, rng()) == 0
    assert watching.neighbour_pairs(hidden, NEAR)["recall"] == 0


def test_adjusted_information_is_one_for_equal_groups_and_nothing_for_luck():
    groups = rng().integers(0, 9, 900)
    assert watching.adjusted_information(groups, 8 - groups, rng()) == pytest.approx(1)
    assert abs(watching.adjusted_information(groups, np.random.default_rng(1).permutation(groups), rng())) < 0.02


def test_blocks_are_logged_too():
    seen = watching.ReadsSeen()
    for parts in ([0, 3], [3], []):
        seen.note("blob_parts", ("codes", parts))
        seen.next()
    assert seen.quiet == 1, "the last search read nothing"
    log = seen.blocks()
    assert (log.count, [one.tolist() for one in log.reads]) == (2, [[0, 1], [1], []])


def test_rows_of_a_server_that_watches_say_what_the_default_shows_and_what_the_threat_hides():
    shown, hidden = map(watched.Watched.of, watched.watched_rows(VECTORS, ASKED, name="docs", searches=200))
    assert (shown.records, shown.searches, hidden.searches) == (N, 200, 200)
    assert shown.neighbours > 0.1 > 0.05 > shown.neighbours_luck
    assert shown.rows_read >= K
    assert hidden.hidden
    assert hidden.rows_read == hidden.neighbours == hidden.named == 0


def test_triangles_are_the_same_in_sparse_and_in_dense_graphs(monkeypatch):
    sparse = graphs._triangles(OWN.graph)
    monkeypatch.setattr(graphs, "_DENSE", 0)
    np.testing.assert_allclose(graphs._triangles(OWN.graph), sparse, rtol=1e-5)
