"""What each process of the soak test does until its time is up: it counts what it did, or says what went wrong."""

import random
import time
import traceback
from collections import Counter

import numpy as np

from encvec_store import errors
from tests.faults.worker import DIM, opened

TASKS = {
    "write": ("upsert", "delete", "delete where", "get", "search", "scroll"),
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
    assert found == expected, f"{found} where {expected} should be"


def write(things, number, end):
    """Write, update and delete records of its own, and see that what is read is what was written last."""
    rng, log, versions, counts = random.Random(number), {}, Counter(), Counter()
    names = [f"{number}/{i}" for i in range(IDS)]
    while time.monotonic() < end:
        some = rng.sample(names, rng.randint(1, 25))
        task = rng.choice((*TASKS["write"], "upsert", "upsert"))
        if task == "upsert":
            for id in some:
                versions[id] += 1
            vectors, metadata, documents = zip(*(record(id, versions[id]) for id in some), strict=True)
            try:
                things.upsert(some, np.array(vectors), metadata, documents)
            except (errors.StoreLockedError, errors.StaleConfigError):
                counts["refused"] += 1  # nothing was written, it says
                continue
            log |= {id: versions[id] for id in some}
        elif task == "delete":
            some = some[:8]
            try:
                same(things.delete(some), len(log.keys() & set(some)))
            except errors.StoreLockedError:
                # the ids are looked for in turns, so some may be gone
                log = {found.id: found.metadata["v"] for found in things.scroll(where={"batch": number})}
                counts["refused"] += 1
                continue
            log = {id: version for id, version in log.items() if id not in some}
        elif task == "delete where":
            version = rng.choice(list(log.values()) or [0])
            gone = {id for id, v in log.items() if v == version}
            same(things.delete(where={"batch": number, "v": version}), len(gone))
            log = {id: v for id, v in log.items() if id not in gone}
        elif task == "get":
            found = things.get(some)
            same({one.id: one.metadata["v"] for one in found}, {id: log[id] for id in some if id in log})
            for one in found:
                whole(one)
        elif task == "search" and log:
            id = rng.choice(list(log))
            (hit,) = things.search(record(id, log[id])[0], k=1, include_vectors=True)
            assert hit.id == id, f"{id} is not found"
            whole(hit)
        elif task == "scroll":
            found = {one.id: one.metadata["v"] for one in things.scroll(where={"batch": number})}
            same(found, log)
        counts[task] += 1
    return {"log": log, **counts}


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
