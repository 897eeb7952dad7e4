"""What a change of scheme stores before its end: pages that are read back as they were, and what their sizes tell."""

import math

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from encvec_store.data import Term
from encvec_store.lab.leakage import stolen, told
from encvec_store.maintenance import changing, staging
from encvec_store.storage import EncryptedBatch

TERMS = [
    (0, "n", Term("number", math.inf)),
    (0, "n", Term("number", -0.5)),
    (1, "text", Term("str", "\ud800 or ß")),
    (1, "blind", Term("token", bytes(range(16)))),
    (1, "other", Term("other", b"")),
]


class StoppedError(Exception):
    pass


def stop(done, total):
    raise StoppedError


@pytest.fixture
def things():
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        yield store.collection("things", dim=3)


@pytest.mark.parametrize(("width", "dtype"), [(0, np.float32), (3, np.float32), (2, np.float16)])
def test_a_page_is_read_as_it_was_written(things, width, dtype):
    rng = np.random.default_rng(0)
    batch = EncryptedBatch(
        partitions=np.array([1, 1 << 43], np.int64),
        tokens=rng.integers(256, size=(2, 16), dtype=np.uint8),
        index_vectors=rng.standard_normal((2, width)).astype(dtype),
        vectors=rng.integers(256, size=(2, 40), dtype=np.uint8),
        payloads=[b"", b"sealed"],
        terms=TERMS,
        rows=np.array([3, 1 << 50], np.int64),
    )
    session, page = low_level.session(things), staging.Page(2, 1 << 50, "00ff")
    blob = session.keyring.seal_change(page.name, staging.content(batch))
    session.records.keep([(page.name, 0, blob)])
    found = staging.opened(session, page)
    for name in ("partitions", "tokens", "index_vectors", "vectors", "rows"):
        np.testing.assert_array_equal(getattr(found, name), getattr(batch, name), strict=True)
    assert (found.payloads, found.terms) == (batch.payloads, TERMS)
    assert staging.opened(session, staging.Page(2, 3, "00ff")) is None


def test_names_that_are_no_pages_are_passed_over(things):
    session = low_level.session(things)
    plan = staging.begin(session, session.config, session.config)
    mine = f"change.{plan.number}"
    odd = [
        "change.plan",
        f"{mine}.1",
        f"{mine}.1.x",
        f"{mine}.1.{'9' * 5000}",
        f"{mine}.-1.5",
        f"{mine}.\u0661.5",
        "change.0.1.5",
    ]
    assert staging.listed([*odd, f"{mine}.7.9", f"{mine}.0.7"], plan) == [
        staging.Page(0, 7, plan.number),
        staging.Page(7, 9, plan.number),
    ]
    rows = np.array([1, 7, 8, 9, 10], np.int64)
    assert staging.outside(rows, [staging.Page(0, 7, ""), staging.Page(8, 9, "")]).tolist() == [8, 10]


@pytest.mark.parametrize("scheme", ["sealed", {"name": "sap", "beta": 3}])
def test_sizes_depend_on_counts_and_padded_sizes_only(tmp_path, monkeypatch, scheme):
    monkeypatch.setattr(changing, "PAGE_ROWS", 16)
    keyset, sizes = ev.Keyset.create("memory:"), []
    for seed in range(2):
        rng, folder = np.random.default_rng(seed), tmp_path / str(seed)
        with ev.connect(f"faiss:{folder}", keyset=keyset) as store:
            things = store.collection("things", dim=8, scheme="sap" if scheme == "sealed" else "sealed")
            words = ["".join(map(chr, rng.integers(97, 123, size=300))) for _ in range(40)]
            things.upsert(list(range(40)), rng.standard_normal((40, 8)) ** (1 + 2 * seed), None, words)
            monkeypatch.setattr(changing._Work, "put_in_place", stop)
            with pytest.raises(StoppedError):
                things.change(scheme=scheme)
        copy = stolen(folder)
        blobs = copy.rows_of("blobs", 1)
        sizes.append([len(content) for content in blobs["content"]])
        (line,) = [line for line in told(copy) if line.what == "sealed parts: change"]
        assert (line.amount.partition(",")[0], "how far that is" in line.tells) == ("4", True)
    assert sizes[0] == sizes[1]
