"""What each process of the soak test does until its time is up: it counts what it did, or says what went wrong."""

import random
import time
import traceback
from collections import Counter

import numpy as np

from encvec_store import errors
from tests.kits.faults.worker import DIM, opened

TASKS = {
    "write": ("upsert", "delete", "delete_where", "get", "search", "scroll"),
    "read": ("search", "filter", "get", "scroll", "verify"),
    "calibrate": ("calibrate", "flush"),
}
IDS = 60
"""Of each writer."""


def record(id, version):
    """Return (vector, metadata, document) of an id as of a version."""
    writer, i = map(int, id.split("/"))
    vector = np.random.default_rng([writer, i, version]).standard_normal(DIM).astype(np.float32)
    return vector, {"batch": writer, "v": version, "i": i}, f"text {id} {version}"


def whole(found):
    """Check that a record is all of one version."""
    vector, metadata, document = record(found.id, found.metadata["v"])
    assert (found.metadata, found.document) == (metadata, document), f"{found.id} is mixed"
    np.testing.assert_array_equal(found.vector, vector)


def same(found, expected):
    """Compare, with both sides told: asserts are not rewritten here."""
    assert found == expected, f"{found} where {expected} should be"


class Writer:
    """Writes, updates and deletes records of its own, and sees that what is read is what was written last."""

    def __init__(self, things, number):
        self.things, self.number, self.rng = things, number, random.Random(number)
        self.names = [f"{number}/{i}" for i in range(IDS)]
        self.versions = Counter()  # that were given out, to be written or not
        self.log = {}  # id -> version acknowledged

    def some(self, most):
        return self.rng.sample(self.names, self.rng.randint(1, most))

    def upsert(self):
        some = self.some(25)
        self.versions.update(some)
        vectors, metadata, documents = zip(*(record(id, self.versions[id]) for id in some), strict=True)
        self.things.upsert(some, np.array(vectors), metadata, documents)
        self.log |= {id: self.versions[id] for id in some}

    def delete(self):
        chosen = set(self.some(8))
        self.gone(chosen, ids=list(chosen))

    def delete_where(self):
        version = self.rng.choice(list(self.log.values()) or [0])
        chosen = {id for id, v in self.log.items() if v == version}
        self.gone(chosen, where={"batch": self.number, "v": version})

    def gone(self, chosen, **how):
        same(self.things.delete(**how), len(chosen & self.log.keys()))
        self.log = {id: version for id, version in self.log.items() if id not in chosen}

    def get(self):
        some = self.some(25)
        found = self.things.get(some)
        same({one.id: one.metadata["v"] for one in found}, {id: self.log[id] for id in some if id in self.log})
        for one in found:
            whole(one)

    def search(self):
        for id in self.rng.sample(list(self.log), min(1, len(self.log))):
            (hit,) = self.things.search(record(id, self.log[id])[0], k=1, include_vectors=True)
            same(hit.id, id)
            whole(hit)

    def scroll(self):
        same({one.id: one.metadata["v"] for one in self.things.scroll(where={"batch": self.number})}, self.log)


def write(things, number, end):
    """Be a writer; what is refused was not done, and is counted."""
    writer, counts = Writer(things, number), Counter()
    while time.monotonic() < end:
        task = writer.rng.choice((*TASKS["write"], "upsert", "upsert"))
        try:
            getattr(writer, task)()
        except (errors.StoreLockedError, errors.StaleConfigError):
            task = "refused"
        counts[task] += 1
    return {"log": writer.log, **counts}


def read(things, number, end):
    """Read in every way; records are whole, their versions never go back, and no id comes twice in one answer."""
    rng, seen, counts = random.Random(number), Counter(), Counter()
    ways = {
        "search": lambda: things.search(np.array([rng.gauss(0, 1) for _ in range(DIM)]), k=20, include_vectors=True),
        "filter": lambda: things.search(np.ones(DIM), k=20, where={"batch": rng.randrange(4)}, include_vectors=True),
        "get": lambda: things.get([f"{rng.randrange(4)}/{rng.randrange(IDS)}" for _ in range(20)]),
        "scroll": lambda: list({one.id: one for one in things.scroll()}.values()),
    }
    while time.monotonic() < end:
        for task, way in ways.items():
            try:
                found = way()
            except errors.StaleConfigError:
                counts["refused"] += 1
                continue
            if task != "get":
                assert len({one.id for one in found}) == len(found), f"{task}: an id twice"
            for one in found:
                whole(one)
                assert one.metadata["v"] >= seen[one.id], f"{task}: {one.id} goes back in time"
                seen[one.id] = one.metadata["v"]
            counts[task] += 1
        report = things.verify()
        assert not report.damaged, report
        counts["verify"] += 1
    return dict(counts)


def calibrate(things, number, end):
    """Encrypt everything anew and build indexes."""
    counts = Counter()
    while time.monotonic() < end:
        try:
            things.calibrate(k=2, target_recall=0.5 + 0.01 * (counts["calibrate"] % 40), max_candidates=100)
            counts["calibrate"] += 1
        except errors.CalibrationError:
            pass  # too few records yet
        except (errors.StoreLockedError, errors.StaleConfigError):
            counts["refused"] += 1
        things.flush()
        counts["flush"] += 1
        time.sleep(0.3)
    return dict(counts)


def run(pipe, url, task):
    """Run (kind, number, seconds) and tell what was counted, or what went wrong."""
    kind, number, seconds = task
    store, things = opened(url)
    try:
        said = {"write": write, "read": read, "calibrate": calibrate}[kind](things, number, time.monotonic() + seconds)
    except Exception as error:
        said = "".join(traceback.format_exception(error))
    pipe.send(said)
    store.close()
