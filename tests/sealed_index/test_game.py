"""A thief with several copies of a sealed store learns nothing of its content. He plays a game, and must lose it.

Stores of equally many records are written, updated, merged and purged, and copied after each step. Some hold clusters,
some hold vectors without any order, and some hold the clusters one after the other. A classifier over all that the
copies show (names aside, which are random) must do no better than chance. The same classifier must win against three
ways of storing that leak: a blob for each list, a blob for each node, and links without padding.
"""

from __future__ import annotations

import os
import sqlite3

import numpy as np
import pytest

import encvec_store as ev
from encvec_store.sealed_index import builder, index
from encvec_store.sealed_index.saving import Shelf
from encvec_store.storage import Blob

pytestmark = pytest.mark.leakage

DIM, CLUSTERS, RECORDS = 16, 6, 400
GAMES, CONTROLS = 12, 10
LUCK = 0.85
"""A share of right guesses, of 24, that is reached by chance once in 7,000 times."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make graphs of a few records, so that a short life has everything that a long one has."""
    monkeypatch.setattr(builder, "FIRST", 60)
    monkeypatch.setattr(builder, "LAST", 10)
    monkeypatch.setattr(index, "COARSE", 1_000)


def corpus(content, rng):
    """Return the vectors of a store, and a text for each."""
    if content == "uniform":
        return rng.normal(size=(RECORDS, DIM)).astype(np.float32), ["a text on nothing"] * RECORDS
    labels = rng.integers(CLUSTERS, size=RECORDS)
    if content == "ordered":
        labels.sort()
    centres = rng.normal(size=(CLUSTERS, DIM))
    vectors = centres[labels] + rng.normal(size=(RECORDS, DIM)) / 20
    return vectors.astype(np.float32), [f"a text on topic {label}" for label in labels]


def dump(folder):
    """Return what a copy of the store shows: the sizes of its files, all rows of its tables, and counts of bytes."""
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
    with sqlite3.connect(f"file:{folder / 'records.sqlite3'}?mode=ro", uri=True) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for name in sorted(names)}
    connection.close()
    counts = np.bincount(np.frombuffer(b"".join(files.values()), np.uint8), minlength=256)
    return {name: len(content) for name, content in files.items()}, tables, counts


def sort_of(name):
    return {1: 0, 2: 1}.get(name.count("."), 2) if name.startswith("index.") else 3


def numbers(before, after):
    """Return what two copies show as numbers: sizes, orders, counts, what has changed, and bytes."""
    sizes, tables, counts = after
    yield "files", [len(sizes), *sizes.values()]
    yield "tables", [len(rows) for rows in tables.values()]
    old = {blob[1:3]: blob[-1] for blob in before[1]["blobs"]} if before else {}
    blobs = {blob[1:3]: blob[-1] for blob in tables["blobs"]}
    order = [(sort_of(name), part, len(content)) for (name, part), content in blobs.items()]
    changed = [place for place, (key, content) in enumerate(blobs.items()) if old.get(key) != content]
    yield "blobs", [len(order), *_first(np.ravel(order), 60)]
    lengths = sorted(size for *_, size in order)
    yield "sizes of blobs", [*_spread(lengths), *_first(lengths, 40)]
    yield "changed blobs", [len(changed), len(old.keys() - blobs.keys()), *_spread(changed), *_first(changed, 40)]
    rows = np.array([record[0] for record in tables["records"]])
    previous = np.array([record[0] for record in before[1]["records"]]) if before else rows
    yield "rows", [*_spread(rows), *_spread(np.setdiff1d(previous, rows)), *np.histogram(rows, 8)[0]]
    yield "records", [sum(len(field) for record in tables["records"] for field in record[-2:])]
    yield "vectors", [sum(len(vector[-1]) for vector in tables["vectors"]), len(tables["terms"])]
    ranges = [len(change[-1]) for change in tables["changes"]]
    yield "changes", [*_spread(ranges), *_first(ranges, 16)]
    shares = counts / counts.sum()
    yield "bytes", [*shares.reshape(32, 8).sum(1), -(shares * np.log2(shares + 1e-12)).sum()]


def _spread(values):
    return [len(values), np.mean(values), np.std(values), min(values), max(values)] if len(values) else [0] * 5


def _first(values, count):
    return [*values[:count], *[-1] * (count - len(values))]


def play(folder, kind, content, rng):
    """Let a store live, and return what the copies of it show: {(step, what): numbers}."""
    vectors, texts = corpus(content, rng)
    names = [f"name-{i}" for i in range(RECORDS)]
    shown, before = {}, None

    def write(things, chosen):
        things.upsert(
            [names[i] for i in chosen],
            vectors[chosen],
            metadata=[{"text": texts[i]} for i in chosen],
            documents=[texts[i] for i in chosen],
        )

    steps = {
        "first": lambda things: write(things, range(200)),
        "more": lambda things: write(things, range(200, 240)),
        "updated": lambda things: write(things, range(20, 40)),
        "merged": lambda things: write(things, range(240, RECORDS)),
        "deleted": lambda things: things.delete(names[100:220]),
    }
    url = f"faiss://{folder}?index={kind}"
    with ev.connect(url, keyset=ev.Keyset.create("memory:"), maintenance="manual") as store:
        things = store.collection("things", dim=DIM, metric="cosine", scheme="sealed")
        for step, work in steps.items():
            work(things)
            things.maintain(purge=step == "deleted")
            after = dump(folder)
            shown |= {(step, what): np.array(values, float) for what, values in numbers(before, after)}
            before = after
    return shown


def games(root, kind, content, count):
    return [
        play(_made(root / f"{kind}-{content}-{game}"), kind, content, np.random.default_rng(game))
        for game in range(count)
    ]


def _made(folder):
    folder.mkdir()
    return folder


def accuracy(ones, others, chosen=5):
    """Return the share of right guesses in games that the classifier was not trained on.

    It takes the numbers that differ most between the two sorts of games, and guesses the sort whose mean is nearer.
    """
    assert len({len(game) for game in (*ones, *others)}) == 1
    data = np.array([np.concatenate([*game.values()]) for game in (*ones, *others)])
    labels = np.repeat([0, 1], [len(ones), len(others)])
    folds = np.concatenate([np.arange(len(ones)), np.arange(len(others))]) % 4
    right = 0
    for fold in range(4):
        known, asked = data[folds != fold], data[folds == fold]
        means = np.array([known[labels[folds != fold] == label].mean(0) for label in (0, 1)])
        spread = np.sqrt(np.mean([known[labels[folds != fold] == label].var(0) for label in (0, 1)], axis=0))
        spread = np.where(spread, spread, 1e-6 * (1 + np.abs(means).max(0)))
        best = np.argsort(-np.abs(means[0] - means[1]) / spread)[:chosen]
        costs = (((asked[:, None] - means) / spread)[:, :, best] ** 2).sum(-1)
        right += (costs.argmin(1) == labels[folds == fold]).sum()
    return right / len(data)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_the_game_is_lost(kind, tmp_path):
    """The thief guesses the content no better than chance."""
    played = {content: games(tmp_path, kind, content, GAMES) for content in ("clustered", "uniform", "ordered")}
    for one, other in (("clustered", "uniform"), ("clustered", "ordered")):
        share = accuracy(played[one], played[other])
        print(f"{kind}: {one} or {other}: {share:.0%}")
        assert share < LUCK, f"{one} or {other}: {share:.0%} of the guesses are right"
    # sizes, numbers and order of blobs, and which of them a step changes, are the same whatever the content is
    first = played["clustered"][0]
    for game in (game for each in played.values() for game in each):
        for step, what in first:
            if what in ("tables", "blobs", "changed blobs", "records", "vectors"):
                np.testing.assert_array_equal(game[step, what], first[step, what], err_msg=f"{step}: {what}")


class Leaky:
    """Stores beside the real segments what a careless save step would store, as random bytes of its size.

    A blob is written anew only where its content has changed.
    """

    def __init__(self, contents):
        self.contents, self.held = contents, {}

    def save(self, records, state):
        blobs = {}
        for part in state.parts:
            for name, content in self.contents(part):
                blobs[name, len(blobs)] = content
        changed = [key for key, content in blobs.items() if self.held.get(key) != content]
        records.keep([(*key, Blob(1, os.urandom(len(blobs[key])))) for key in changed])
        self.held = blobs


def lists(part):
    """Each list is a blob."""
    stored = part.graph.codes(0, part.graph.count)
    for number in range(len(part.graph.structure()["centroids"])):
        yield "list", stored["codes"][stored["lists"] == number].tobytes()


def nodes(part):
    """Each node is a blob with its links."""
    links = part.graph.structure()
    ends = np.cumsum(64 + 32 * (links["levels"] - 1))
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        yield "node", links["neighbors"][first:last].tobytes()


def unpadded(part):
    """All links are in one blob, without those that a node lacks."""
    links = part.graph.structure()["neighbors"]
    yield "links", links[links >= 0].tobytes()


@pytest.mark.parametrize(("kind", "contents"), [("ivf", lists), ("hnsw", nodes), ("hnsw", unpadded)])
def test_leaks_are_found(kind, contents, tmp_path, monkeypatch):
    """The same thief wins against stores that leak, so he would have found a leak of ours."""
    save, leaky = Shelf.save, {}

    def saved(shelf, records, keyring, state):
        result = save(shelf, records, keyring, state)
        leaky.setdefault(id(shelf), (shelf, Leaky(contents)))[1].save(records, state)
        return result

    monkeypatch.setattr(Shelf, "save", saved)
    played = {content: games(tmp_path, kind, content, CONTROLS) for content in ("clustered", "uniform")}
    share = accuracy(played["clustered"], played["uniform"])
    print(f"{contents.__name__}: {share:.0%}")
    assert share > LUCK
