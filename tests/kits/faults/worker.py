"""What the killed process does: batches of records that both sides can make up, acknowledged on a pipe one by one."""

import itertools
import logging
import os
import resource
import signal
from pathlib import Path

import numpy as np

import encvec_store as ev
from encvec_store import low_level
from encvec_store.engine import update as engine_update
from encvec_store.maintenance import changing, rekey
from encvec_store.schemes import growth
from encvec_store.schemes import profile as profiles
from encvec_store.sealed_index import builder, index, lease, saving
from encvec_store.storage.postgres import PostgresStore
from encvec_store.storage.sqlite import SqliteStore
from tests.kits.faults.mapped import mapped_life  # noqa: F401 - a task
from tests.kits.sealed import Answers, vectors_of

DIM = 8
SIZE = 20
FIELDS = {"batch": "blind", "v": "plain", "*": "sealed"}
VARIABLE = "ENCVEC_TEST_KEYSET"
PASSPHRASE = "correct horse"
FAISS = "faiss:{}?flat_limit=50"  # so that a graph is built, saved and loaded


def postgres(dsn):
    """Return the URL of a store in a database, with a graph from 50 records on."""
    return f"{dsn}{'&' if '?' in dsn else '?'}index_above=50"


def dsn_of(url):
    """Return what `postgres` was given."""
    return url[: -len("?index_above=50")]


def batch(n, version=0):
    """Return (ids, vectors, metadata, documents) of batch n, as of a version."""
    vectors = np.random.default_rng([n, version]).standard_normal((SIZE, DIM)).astype(np.float32)
    metadata = [{"batch": n, "v": version, "i": i} for i in range(SIZE)]
    return [f"{n}/{i}" for i in range(SIZE)], vectors, metadata, [f"text {n} {version}"] * SIZE


# On a collection that holds the batches 0 to 9: each kind of write, in the middle of which something may happen.
WRITES = {
    "upsert": lambda things: things.upsert(*batch(20)),
    "delete": lambda things: things.delete(batch(9)[0]),
    "calibrate": lambda things: things.calibrate(k=2, target_recall=0.5, max_candidates=100),
    "change": lambda things: things.change(scheme="sealed"),
    "flush": lambda things: things.flush(),
}


def opened(url):
    """Open the store and its collection, which is made under `sap`: it has an index from the first record on."""
    store = ev.connect(url, keyset=ev.Keyset.open(f"env:{VARIABLE}"), maintenance="inline")
    scheme = None if store.collections() else "sap"
    return store, store.collection("things", dim=DIM, scheme=scheme, fields=FIELDS, oversample=10_000)


def write(pipe, url, kind):
    """Do one of the writes."""
    WRITES[kind](opened(url)[1])
    pipe.send("done")


def upsert(pipe, url, start):
    """Write batch after batch."""
    _, things = opened(url)
    for n in itertools.count(start):
        things.upsert(*batch(n))
        pipe.send(n)


def update(pipe, url, start):
    """Write the same three batches again and again, all of them at once, with rising versions."""
    _, things = opened(url)
    for version in itertools.count(start):
        parts = [batch(n, version) for n in range(3)]
        ids, vectors, metadata, documents = (list(itertools.chain(*part)) for part in zip(*parts, strict=True))
        things.upsert(ids, np.array(vectors), metadata, documents)
        pipe.send(version)


def change_parts(pipe, url, start):
    """Change the metadata of three batches again and again, by ids with documents and by filter in turn."""
    engine_update.WRITE_CHUNK = SIZE // 2  # several parts
    _, things = opened(url)
    ids = [id for n in range(3) for id in batch(n)[0]]
    for version in itertools.count(start):
        fields = {"v": version}
        if version % 2:
            changed = things.update(ids, metadata=fields, documents=[f"of {version}"] * len(ids))
        else:
            changed = things.update(where={"v": version - 1}, metadata=fields)
        assert changed == len(ids)
        pipe.send(version)


def delete(pipe, url, start):
    """Delete batch after batch, by filter and by ids in turn."""
    _, things = opened(url)
    for n in itertools.count(start):
        gone = things.delete(where={"batch": n}) if n % 2 else things.delete(batch(n)[0])
        if not gone:
            break
        pipe.send(n)
    pipe.recv()  # wait to be killed


def flush(pipe, url, start):
    """Write batches, search, and save the index after each."""
    logging.disable()
    _, things = opened(url)
    for n in itertools.count(start):
        things.upsert(*batch(n))
        pipe.send(n)
        things.search(np.ones(DIM), k=1)
        things.flush()


def calibrate(pipe, url, start):
    """Encrypt everything anew, over and over."""
    _, things = opened(url)
    for n in itertools.count(start):
        things.calibrate(k=2, target_recall=0.5 + 0.001 * (n % 100), max_candidates=100)
        pipe.send(n)


QUICK_SKETCHES = [
    (profiles, "LEAST_RECORDS", 2 * SIZE),
    (profiles, "PER_DIMENSION", 2),
    (profiles, "LEAST_DIMENSIONS", 2),
]
"""A sketch is fitted on few records of few dimensions."""
SMALL_PAGES = [(changing, "PAGE_ROWS", 2 * SIZE), (changing, "_FEW", SIZE // 2)]
"""A change of scheme stores pages of two batches, and encrypts at most half a batch in its last transaction."""


def quick_sketches():
    """Have a sketch fitted on few records of few dimensions."""
    for module, name, value in QUICK_SKETCHES:
        setattr(module, name, value)


def change(pipe, url, start):
    """Change the scheme, over and over."""
    quick_sketches()
    _, things = opened(url)
    pipe.send(start)
    for n in itertools.count(start):
        things.change(scheme=("sealed", "sketch", "sap")[n % 3])
        pipe.send(n)


def change_and_die(pipe, url, step):
    """Be killed at a step of a change from a saved index to `sealed`: in the middle, at the end, or just after it."""
    changing.PAGE_ROWS = 3 * SIZE
    _, things = opened(url)
    session = low_level.session(things)
    real = session.records.replace

    def replace(batches, *given, **how):
        def dying():
            for n, each in enumerate(batches):
                if step == "middle" and n == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield each
            if step == "end":
                os.kill(os.getpid(), signal.SIGKILL)

        real(dying(), *given, **how)
        os.kill(os.getpid(), signal.SIGKILL)

    session.records.replace = replace
    things.change(scheme="sealed")


def change_by_pages(pipe, url, task):
    """Change the scheme, and be killed at the n-th call of a step. `task` is (scheme, plan)."""
    scheme, plan = task
    for module, name, value in (*QUICK_SKETCHES, *SMALL_PAGES):
        setattr(module, name, value)
    _, things = opened(url)
    killed_by(things, plan)
    pipe.send(things.change(scheme=scheme).resumed)


ALL = 1 << 10
# A scheme, what kills the change to it, and how many pages are stored then; None if it has ended. The first `keep`
# stores the plan, each other one a page of two batches.
CHANGE_STEPS = [
    ("sealed", (("records", "keep", "after"), 2), 2),
    ("sketch", (("records", "keep", "before"), 4), 3),
    ("sealed", (("records", "replace", "before"), 0), ALL),
    ("sap", (("records", "keep", "after"), 0), 0),
    ("sealed", (("records", "replace", "after"), 0), None),
]


def change_on_a_full_disk(pipe, url, start):
    """Change the scheme where no file may get long; tell what comes of it, then change it with room again."""
    logging.disable()
    quick_sketches()
    store, things = opened(url)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (60_000, hard):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            things.change(scheme="sketch")
        except Exception as error:
            pipe.send((type(error).__name__, str(error)))
        pipe.send((things.stats()["scheme"]["name"], things.count(), things.verify().ok))
    store.close()
    pipe.send("done")


def serve(pipe, url, start):
    """Answer a search or do a write whenever asked, until told to stop."""
    quick_sketches()
    store, things = opened(url)
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        if isinstance(asked, int):
            things.upsert(*batch(asked))
            pipe.send("written")
        else:
            hits = things.search(asked, k=10)
            pipe.send(([hit.id for hit in hits], things.verify().ok, things.stats()["scheme"]["name"]))
    store.close()
    pipe.send("done")


def move(pipe, url, start):
    """Cross the threshold of a sketch, then fit it anew over and over."""
    profiles.LEAST_RECORDS, profiles.PER_DIMENSION, profiles.LEAST_DIMENSIONS = 15 * SIZE, 2, 2
    _, things = opened(url)
    pipe.send(start)
    for n in itertools.count(start):
        growth.BUDGET = 10_000 if n % 2 else 100  # one rotation, then cells, then one again
        if things.stats()["profile"]["state"] == "sealed":
            things.upsert(*batch(14))
        else:
            things.refit()
        pipe.send(n)


def rotate(pipe, path, start):
    """Add key versions to a key file, as fast as it goes."""
    keyset = ev.Keyset.open(f"file:{path}", passphrase=PASSPHRASE)
    while True:
        pipe.send(keyset.rotate())


def hold_the_lock(pipe, url, start):
    """Stop in the middle of a calibration until told to go on."""
    store, things = opened(url)

    def wait(done, total):
        pipe.send("holding")
        pipe.recv()

    things.calibrate(k=2, target_recall=0.5, max_candidates=100, progress=wait)
    store.close()
    pipe.send("done")


def write_twenty(pipe, url, start):
    """Write twenty batches and stop."""
    store, things = opened(url)
    for n in range(start, start + 20):
        things.upsert(*batch(n))
    store.close()
    pipe.send("done")


def fill_the_disk(pipe, url, start):
    """Write batches until no file may grow any more; report the error that comes."""
    logging.disable()
    store, things = opened(url)
    things.flush()
    folder = Path(url.removeprefix("faiss:").partition("?")[0])
    largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    limit = largest + 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    n = start
    try:
        for n in range(start, start + 500):
            things.upsert(*batch(n))
            pipe.send(n)
            if n % 10 == 0:
                things.flush()
    except Exception as error:
        pipe.send((type(error).__name__, str(error), things.count(), len(things.search(np.ones(DIM), k=1))))
    try:
        store.close()
    except Exception as error:
        pipe.send(("close", type(error).__name__, str(error)))
    pipe.send("done")


def fill_the_disk_with_an_index(pipe, url, room):
    """Build an index where no file may grow by more than `room` bytes; tell what is stored then, and with room again.

    Answers are checked in both states.
    """
    logging.disable()
    small_graphs()
    store, things = sealed(url)
    stored = {}
    for n in range(10):
        ids, vectors, *rest = batch(n)
        things.upsert(ids, vectors, *rest)
        stored.update(zip(ids, vectors, strict=True))
    answers = Answers("cosine", stored=stored)
    folder = Path(url.removeprefix("faiss:").partition("?")[0])
    largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (largest + room, hard):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        things.maintain()
        answers.search(things, vectors_of(40, 0, DIM))
        index = things.stats()["sealed_index"]
        pipe.send((index["rows"], index["stored_rows"], things.verify().ok))
    answers.enough()
    store.close()
    pipe.send("done")


def small_graphs():
    """Have a sealed index make graphs of a few records, so that little data goes through every step."""
    builder.FIRST, builder.LAST, builder.COARSE, index.COARSE = 60, 10, 150, 150


def sealed(url):
    """Open the store and its collection without index vectors."""
    store = ev.connect(url, keyset=ev.Keyset.open(f"env:{VARIABLE}"), maintenance="manual")
    return store, store.collection("things", dim=DIM, scheme="sealed", fields=FIELDS)


def killed_by(things, plan):
    """Have this process killed at the n-th call of a step, before it or after it: ((owner, name, when), n)."""
    (owner, name, when), n = plan
    owners = {"records": type(low_level.session(things).records), "index": index.SealedIndex, "shelf": saving.Shelf}
    real, left = getattr(owners[owner], name), itertools.count(n, -1)

    def step(*given, **how):
        last = next(left) == 0
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*given, **how)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owners[owner], name, step)


def sealed_life(pipe, url, plan):
    """Build, save, extend, merge, purge and load the index, and be killed at the n-th call of a step, if it comes."""
    small_graphs()
    store, things = sealed(url)
    killed_by(things, plan)
    for start in (0, 5):
        for number in range(start, start + 5):
            things.upsert(*batch(number))
            pipe.send(number)
        things.maintain()
    things.delete(batch(0)[0])
    pipe.send("deleted")
    things.maintain(purge=True)
    store.close()
    store, things = sealed(url)
    things.search(np.ones(DIM), k=1)
    store.close()
    pipe.send("done")


# What is killed, and at which of its calls: the last one of each never comes, so that the list is known to be whole.
SEALED_STEPS = [
    (("records", "keep", "before"), range(0, 100, 9)),
    (("records", "keep", "after"), range(4, 100, 9)),
    (("index", "publish", "before"), range(0, 100, 4)),
    (("index", "publish", "after"), range(2, 100, 4)),
    (("shelf", "load", "before"), range(100)),
    (("shelf", "load", "after"), range(100)),
]


def rekeying(pipe, url, plan):
    """Seal everything anew under the primary, and be killed at the n-th call of a step, if it comes."""
    small_graphs()
    rekey.PAGE = 2 * SIZE
    _, things = opened(url)
    killed_by(things, plan)
    pipe.send(things.rekey().sealed)


NEVER = ("records", "reseal", "before"), -1
"""A plan of `rekeying` that kills nobody."""
REKEY_STEPS = {
    "sealed": [
        (("records", "reseal", "before"), range(100)),
        (("records", "reseal", "after"), range(0, 100, 2)),
        (("records", "keep", "before"), range(0, 100, 2)),
        (("records", "keep", "after"), range(1, 100, 2)),
        (("shelf", "_swapped", "after"), range(100)),
    ],
    "sap": [(("records", "reseal", "after"), range(100))],
}


def sealed_builder(pipe, url, seconds):
    """Write, build and store again and again, beside others."""
    small_graphs()
    lease.SECONDS = seconds
    store, things = sealed(url)
    for n in range(3):
        things.upsert(*batch(200))
        things.maintain(purge=n == 2)
        pipe.send(n)
    store.close()
    pipe.send("done")


def sealed_churn(pipe, url, start):
    """Rewrite batches with rising versions, build and purge, until told to stop."""
    small_graphs()
    store, things = sealed(url)
    for version in itertools.count(1):
        for n in range(4):
            things.upsert(*batch(n, version))
        things.maintain(purge=version % 3 == 0)
        pipe.send(version)
        if pipe.poll(0):
            break
    store.close()


def sealed_names(pipe, url, die):
    """Begin to keep names sealed, or go on, and create collections, as often as told; or be killed at a step.

    `die` is (name of a method of the record store, "before" or "after"); None to live.
    """
    keyset = ev.Keyset.open(f"env:{VARIABLE}")
    if die is not None:
        kind, (name, when) = SqliteStore if url.startswith("faiss") else PostgresStore, die
        real = getattr(kind, name)

        def step(*given, **how):
            if when == "after":
                real(*given, **how)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(kind, name, step)
    with ev.connect(url, keyset=keyset, names="sealed", maintenance="manual") as store:
        pipe.send("open")
        while (names := pipe.recv()) is not None:
            for name in names:
                store.collection(name, dim=DIM, tenant="acme")
            pipe.send(store.collections("acme"))
    pipe.send("done")


def soak(pipe, url, task):
    """Take part in the soak test."""
    from tests.kits.faults.soak import run

    run(pipe, url, task)


def main(task, pipe, place, start):
    """Run a task by name."""
    globals()[task](pipe, place, start)
