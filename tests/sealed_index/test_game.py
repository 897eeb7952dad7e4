"""A thief with several copies of a sealed store learns nothing of its content. He plays a game, and must lose it.

Stores of equally many records are written, updated, merged and purged, and copied after each step. Some hold clusters,
some hold vectors without any order, and some hold the clusters one after the other. A classifier over all that the
copies show (names aside, which are random) must do no better than chance. The same classifier must win against three
ways of storing that leak: a blob for each list, a blob for each node, and links without padding.
"""

from __future__ import annotations

import functools
import os
import re
import sqlite3

import numpy as np
import psycopg
import pytest

import encvec_store as ev
from encvec_store.sealed_index import blocks, builder, index, listing
from encvec_store.sealed_index.saving import Shelf
from encvec_store.storage import Blob

DIM, CLUSTERS, RECORDS = 16, 6, 400
GAMES = 12
PLAYED = [("files", "hnsw", "cosine"), ("files", "ivf", "l2"), ("files", "lists", "l2"), ("postgresql", "hnsw", "ip")]
LUCK = 0.85
"""A share of right guesses, of 24, that chance reaches once in 500 times (seen in games of one content)."""
AGAIN, LUCK_AGAIN = 24, 0.75
"""So many new games of each content are played where chance may have helped, and the share that chance then reaches
once in 3,000 times: 36 of 48 coins."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Make graphs of a few records, so that a short life has everything that a long one has."""
    monkeypatch.setattr(builder, "FIRST", 60)
    monkeypatch.setattr(builder, "LAST", 10)
    monkeypatch.setattr(index, "COARSE", 1_000)
    monkeypatch.setattr("encvec_store.sealing.limits.STEP", 1 << 60)  # counts grow by chance, whatever the content
    monkeypatch.setattr(blocks, "BLOCK", 512)
    monkeypatch.setattr(listing, "_LEAST", 1_000)
    monkeypatch.setattr(listing, "_RUN", 1 << 60)


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


class Files:
    """A store in a folder."""

    def __init__(self, folder, name):
        self.folder = folder / name
        self.folder.mkdir()

    def connect(self, kind):
        return ev.connect(
            f"faiss://{self.folder}?index={kind}", keyset=ev.Keyset.create("memory:"), maintenance="manual"
        )

    def dump(self):
        """Return what a copy of the store shows: sizes, the tables, {name: {column: values}}, and all its bytes."""
        files = {file.name: file.read_bytes() for file in sorted(self.folder.iterdir())}
        with sqlite3.connect(f"file:{self.folder / 'records.sqlite3'}?mode=ro", uri=True) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = {name: _columns(connection.execute(f'SELECT * FROM "{name}"')) for name in sorted(names)}
        connection.close()
        return {name: len(content) for name, content in files.items()}, tables, b"".join(files.values())


class Schema:
    """A store in a schema of a database."""

    def __init__(self, place, name):
        self.dsn, self.schema = place.dsn, f"{place.schema}_{name}"

    def connect(self, kind):
        kind = "ivfflat" if kind == "ivf" else kind
        return ev.connect(self.dsn, schema=self.schema, index=kind, **_how())

    def dump(self):
        """Return what a copy of the database shows, rows as they lie in it, and the sizes of all that has a file."""
        sizes, tables, content = {}, {}, []
        with psycopg.connect(self.dsn) as connection:
            known = connection.execute(
                "SELECT c.oid::regclass::text, c.relname, c.relkind, pg_relation_size(c.oid),"
                " CASE WHEN c.reltoastrelid <> 0 THEN pg_relation_size(c.reltoastrelid) ELSE 0 END"
                " FROM pg_class AS c WHERE relnamespace = %s::regnamespace ORDER BY relname",
                [self.schema],
            ).fetchall()
            for place, name, sort, *size in known:
                name = re.sub(r"\d+", "", name)  # numbers of collections
                sizes[name] = size
                if sort == "r":
                    tables[name] = _columns(connection.execute(f"SELECT * FROM {place}", binary=True))
                    content += [cell for cells in tables[name].values() for cell in cells if isinstance(cell, bytes)]
        return (
            {f"{name} {n}": one for name, size in sizes.items() for n, one in enumerate(size)},
            tables,
            b"".join(content),
        )


def _how():
    return {"keyset": ev.Keyset.create("memory:"), "maintenance": "manual"}


def _columns(cursor):
    names = [column[0] for column in cursor.description]
    cells = zip(*cursor.fetchall(), strict=True)
    return dict(zip(names, map(list, cells), strict=False)) or {name: [] for name in names}


def sort_of(name):
    return {1: 0, 2: 1}.get(name.count("."), 2) if name.startswith("index.") else 3


def numbers(before, after):
    """Return what two copies show as numbers: sizes, orders, counts, what has changed, and bytes."""
    sizes, tables, content = after
    yield "files", [len(sizes), *sizes.values()]
    yield "tables", [len(next(iter(columns.values()))) for columns in tables.values()]
    lengths = {}
    for name, columns in tables.items():
        for column, cells in columns.items():
            numeric = [cell for cell in cells if isinstance(cell, int)]
            if numeric and column != "stamp":  # a random number
                yield f"{name}.{column}", _spread(numeric)
            elif not numeric and name != "blobs":
                lengths[f"{name}.{column}"] = [len(cell) for cell in cells if cell is not None]
    yield "lengths", [sum(found) for name, found in lengths.items() if name != "changes.rows"]
    for name, found in lengths.items():
        yield f"lengths of {name}", [*_spread(found), *_first(found, 16)]
    old, blobs = (_blobs(before[1]) if before else {}), _blobs(tables)
    order = [(sort_of(name), part, len(content)) for (name, part), content in blobs.items()]
    changed = [place for place, (key, content) in enumerate(blobs.items()) if old.get(key) != content]
    yield "blobs", [len(order), *_first(np.ravel(order), 60)]
    sealed = sorted(size for *_, size in order)
    yield "sizes of blobs", [*_spread(sealed), *_first(sealed, 40)]
    yield "changed blobs", [len(changed), len(old.keys() - blobs.keys()), *_spread(changed), *_first(changed, 40)]
    rows = _rows(tables)
    previous = _rows(before[1]) if before else rows
    yield "rows", [*_spread(rows), *_spread(np.setdiff1d(previous, rows)), *np.histogram(rows, 8)[0], *_first(rows, 16)]
    counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
    shares = counts / counts.sum()
    yield "bytes", [*shares.reshape(32, 8).sum(1), -(shares * np.log2(shares + 1e-12)).sum()]


def _blobs(tables):
    columns = tables["blobs"]
    return dict(zip(zip(columns["name"], columns["part"], strict=True), columns["content"], strict=True))


def _rows(tables):
    return np.array([row for name, columns in tables.items() if name.startswith("records") for row in columns["row"]])


def _spread(values):
    return [len(values), np.mean(values), np.std(values), min(values), max(values)] if len(values) else [0] * 5


def _first(values, count):
    return [*values[:count], *[-1] * (count - len(values))]


def play(place, kind, metric, content, rng):
    """Let a store live, and return what the copies of it show: {(step, what): numbers}."""
    vectors, texts = corpus(content, rng)
    if metric != "cosine":  # then lengths are content too
        vectors *= np.exp(rng.normal(size=(RECORDS, 1))).astype(np.float32) if content == "uniform" else 5
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
    with place.connect(kind) as store:
        things = store.collection("things", dim=DIM, metric=metric, scheme="sealed")
        for step, work in steps.items():
            work(things)
            things.maintain(purge=step == "deleted")
            after = place.dump()
            shown |= {(step, what): np.array(values, float) for what, values in numbers(before, after)}
            before = after
    return shown


CONTENTS = ("clustered", "uniform", "ordered")


@pytest.fixture(params=["files", "postgresql"])
def place(request, tmp_path):
    """Return a function that makes a place for a store, by a name."""
    if request.param == "files":
        return functools.partial(Files, tmp_path)
    return functools.partial(Schema, request.getfixturevalue("pg_place_alone"))


def games(place, kind, metric, count, contents=CONTENTS, first=0):
    """Play so many games with each content, in turn, from a number on: {content: what they show}."""
    played = {content: [] for content in contents}
    for game in range(first, first + count):
        for content in contents:
            rng = np.random.default_rng(game)
            played[content].append(play(place(f"{kind}_{metric}_{content}_{game}"), kind, metric, content, rng))
    return played


def accuracy(ones, others):
    """Return the share of right guesses, each in a game that the classifier was not trained on."""
    right = 0
    for fold in range(4):
        known = [[game for i, game in enumerate(games) if i % 4 != fold] for games in (ones, others)]
        right += guessed(known, [games[fold::4] for games in (ones, others)])
    return right / len([*ones, *others])


def again(played, place, kind, metric, pair):
    """Return the share of right guesses in new games, by a classifier that knows those that were played."""
    asked = games(place, kind, metric, AGAIN, pair, first=GAMES)
    return guessed([played[content] for content in pair], [asked[content] for content in pair]) / (2 * AGAIN)


def guessed(known, asked, chosen=5):
    """Return how many of the games asked are guessed right by a classifier that knows other games: a pair of both.

    It takes the numbers that differ most between the two sorts of games, and guesses the sort whose mean is nearer.
    """
    known, asked = (
        [np.array([np.concatenate([*game.values()]) for game in games]) for games in pair] for pair in (known, asked)
    )
    means = np.array([games.mean(0) for games in known])
    spread = np.sqrt(np.mean([games.var(0) for games in known], axis=0))
    spread = np.where(spread, spread, 1e-6 * (1 + np.abs(means).max(0)))
    best = np.argsort(-np.abs(means[0] - means[1]) / spread)[:chosen]
    far = [((((games[:, None] - means) / spread)[:, :, best]) ** 2).sum(-1) for games in asked]
    return sum(int((costs.argmin(1) == sort).sum()) for sort, costs in enumerate(far))


@pytest.mark.leakage
@pytest.mark.slow
@pytest.mark.parametrize(("place", "kind", "metric"), PLAYED, indirect=["place"])
def test_the_game_is_lost(place, kind, metric):
    """The thief guesses the content no better than chance. Where chance may have helped him, he plays on."""
    played = games(place, kind, metric, GAMES)
    for pair in (("clustered", "uniform"), ("clustered", "ordered")):
        share = accuracy(*(played[content] for content in pair))
        print(f"{kind}, {metric}: {' or '.join(pair)}: {share:.0%}")
        if share >= LUCK:
            later = again(played, place, kind, metric, pair)
            assert later < LUCK_AGAIN, f"{' or '.join(pair)}: {share:.0%}, then {later:.0%} of the guesses are right"


@pytest.mark.parametrize(("kind", "metric"), [("hnsw", "cosine"), ("ivf", "l2"), ("lists", "cosine"), ("hnsw", "ip")])
def test_sizes_and_orders_are_the_same_whatever_the_content(place, kind, metric):
    """To the byte: those of blobs and of all columns, their numbers, and which blobs a step changes."""
    first, *others = (each for (each,) in games(place, kind, metric, 1).values())
    for game in others:
        assert game.keys() == first.keys()
        for step, what in first:
            if what in ("tables", "lengths", "blobs", "changed blobs"):
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


@pytest.mark.leakage
@pytest.mark.parametrize(("kind", "contents"), [("ivf", lists), ("hnsw", nodes), ("hnsw", unpadded)])
def test_leaks_are_found(kind, contents, tmp_path, monkeypatch):
    """The same thief wins against stores that leak, so he would have found a leak of ours."""
    save, leaky = Shelf.save, {}

    def saved(shelf, records, keyring, state, *columns):
        result = save(shelf, records, keyring, state, *columns)
        leaky.setdefault(id(shelf), (shelf, Leaky(contents)))[1].save(records, state)
        return result

    monkeypatch.setattr(Shelf, "save", saved)
    place, pair = functools.partial(Files, tmp_path), ("clustered", "uniform")
    played = games(place, kind, "cosine", GAMES, pair)
    share = accuracy(*played.values())
    print(f"{contents.__name__}: {share:.0%}")
    assert share >= LUCK or again(played, place, kind, "cosine", pair) >= LUCK_AGAIN
