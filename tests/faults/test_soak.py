"""Eight processes on one store, for as long as ENCVEC_SOAK_SECONDS says: nothing is lost, and every read is whole.

Four write, each to ids of its own, with versions that only rise, and keep a log of what was acknowledged; they read
their own writes as they go. Three read everything. One calibrates and builds indexes. In the end every record must be
as the logs say, and the store sound.
"""

import contextlib
import os
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from tests.kits.faults import soak
from tests.kits.faults.common import child, open_again

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(0),
    pytest.mark.skipif(sys.platform == "win32", reason="its children come from a fork server"),
]

SECONDS = {"faiss": 10, "postgresql": 15}
KINDS = ["write"] * 4 + ["read"] * 3 + ["calibrate"]


def test_soak(keyset, url):
    seconds = float(os.environ.get("ENCVEC_SOAK_SECONDS") or SECONDS["faiss" if "faiss" in url else "postgresql"])
    url += "&lock_timeout=60"
    store, things = open_again(url, keyset)
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(child("soak", url, (kind, n, seconds)))[0] for n, kind in enumerate(KINDS)]
        logs, done = {}, defaultdict(Counter)
        for n, (kind, pipe) in enumerate(zip(KINDS, pipes, strict=True)):
            assert pipe.poll(seconds + 120), f"{kind} {n} hangs"
            said = pipe.recv()
            assert isinstance(said, dict), f"{kind} {n}: {said}"
            logs |= said.pop("log", {})
            done[kind] += Counter(said)
    for kind, counts in done.items():
        print(kind, dict(counts))
        assert all(counts[task] for task in soak.TASKS[kind]), f"{kind} did not come to everything: {counts}"
        assert counts["refused"] <= counts.total() / 4, f"{kind} was refused too often: {counts}"
    report = things.verify()
    assert report.ok, report
    found = {record.id: record for record in things.scroll()}
    assert {id: record.metadata["v"] for id, record in found.items()} == logs
    for id, record in found.items():
        vector, metadata, document = soak.record(id, logs[id])
        np.testing.assert_array_equal(record.vector, vector)
        assert (record.metadata, record.document) == (metadata, document)
    assert things.count() == len(logs)
    store.close()
