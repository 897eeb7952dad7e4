"""Clients killed with SIGKILL at random moments: what was acknowledged is there, and nothing is half."""

import random
import signal
import sys

import numpy as np
import pytest

import encvec_store as ev
from encvec_store import low_level
from tests.kits.faults.common import (
    check,
    child,
    fill,
    kill_in_the_middle,
    open_again,
    records,
    settled,
    wait_for_the_end_of_sessions,
)
from tests.kits.faults.worker import (
    ALL,
    CHANGE_STEPS,
    DIM,
    FIELDS,
    PASSPHRASE,
    QUICK_SKETCHES,
    SIZE,
    SMALL_PAGES,
    batch,
)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by signal, limits by setrlimit"),
]


def test_killed_while_writing(keyset, url):
    rng, written = random.Random(1), 0
    for _ in range(5):
        acknowledged = kill_in_the_middle("upsert", url, written, rng)
        assert acknowledged == list(range(written, acknowledged[-1] + 1))
        store, things = open_again(url, keyset)
        written = acknowledged[-1] + 1
        written += settled(things, written) is not None  # committed, and killed before it said so
        check(things, records(range(written)))
        store.close()


def test_killed_while_updating(keyset, url):
    rng, version = random.Random(2), 0
    for _ in range(4):
        acknowledged = kill_in_the_middle("update", url, version + 1, rng)
        store, things = open_again(url, keyset)
        (version,) = {settled(things, n) for n in range(3)}
        assert version in (acknowledged[-1], acknowledged[-1] + 1), "all three batches are one write"
        check(things, records(range(3), version))
        store.close()


@pytest.mark.parametrize("scheme", ["sealed", "sap"])
def test_killed_while_changing_parts(keyset, url, scheme):
    """Vectors stay, and metadata and documents of all records are of one version."""
    rng, version = random.Random(9), 0
    with ev.connect(url, keyset=keyset) as store:
        fill(store.collection("things", dim=DIM, scheme=scheme, fields=FIELDS, oversample=10_000), range(3))
    expected = records(range(3))
    for _ in range(3):
        acknowledged = kill_in_the_middle("change_parts", url, version + 1, rng)
        store, things = open_again(url, keyset)
        (version,) = {settled(things, n) for n in range(3)}
        assert version in (acknowledged[-1], acknowledged[-1] + 1), "all three batches are one write"
        text = f"of {version - 1 + version % 2}"
        check(things, {id: (vector, {**fields, "v": version}, text) for id, (vector, fields, _) in expected.items()})
        store.close()


def test_killed_while_deleting(keyset, url):
    rng, left = random.Random(3), 0
    store, things = open_again(url, keyset)
    fill(things, range(60))
    store.close()
    for _ in range(5):
        acknowledged = kill_in_the_middle("delete", url, left, rng)
        store, things = open_again(url, keyset)
        left = acknowledged[-1] + 1
        left += left < 60 and settled(things, left) is None
        check(things, records(range(left, 60)))
        store.close()
        if left > 45:
            break


def test_killed_while_saving_the_index(keyset, url, caplog):
    """The cache is whole, or it is not used: it never answers for records that are gone, nor misses any."""
    rng, written = random.Random(4), 0
    for _ in range(5):
        acknowledged = kill_in_the_middle("flush", url, written, rng)
        store, things = open_again(url, keyset)
        written = acknowledged[-1] + 1
        written += settled(things, written) is not None
        check(things, records(range(written)))
        things.flush()
        assert "not used" not in caplog.text, "no half-written cache stood under the final name"
        store.close()


def test_killed_while_calibrating(keyset, url):
    rng = random.Random(5)
    store, things = open_again(url, keyset)
    fill(things, range(15))
    store.close()
    for n in range(4):
        kill_in_the_middle("calibrate", url, 10 * n, rng)
        store, things = open_again(url, keyset)
        stats = things.stats()
        assert stats["scheme"]["beta"] == stats["calibration"]["beta"], "settings are all old or all new"
        check(things, records(range(15)))
        store.close()


def test_killed_while_moving(keyset, url):
    """Settings, profile and index vectors are all sealed, all of one sketch, or all of the next."""
    rng, states = random.Random(7), set()
    for n in range(8):
        if n % 4 == 0:
            with ev.connect(url, keyset=keyset) as store:
                store.drop("things")
                fill(store.collection("things", dim=DIM, scheme="sketch", fields=FIELDS, oversample=10_000), range(14))
        kill_in_the_middle("move", url, 0, rng, within=1.0)
        store, things = open_again(url, keyset)
        stats = things.stats()
        states.add(stats["profile"]["state"])
        check(things, records(range(14 + (things.count() > 14 * SIZE))))
        width = things.index_vectors(["0/0"]).shape[1]
        assert width == (stats["scheme"]["k"] if stats["scheme"]["profile"] else 0)
        assert len(low_level.session(things).records.partitions()) == stats["scheme"].get("cells", 1), (
            "and all in cells, or none"
        )
        store.close()
    assert "sketch" in states, "it never got that far"


def test_killed_while_changing_the_scheme(keyset, url):
    """Settings, index vectors, profile and index are all of one scheme."""
    rng, last = random.Random(8), 0
    store, things = open_again(url, keyset)
    fill(things, range(14))
    store.close()
    for _ in range(3):
        last = kill_in_the_middle("change", url, last, rng)[-1] + 1
        store, things = open_again(url, keyset)
        check(things, records(range(14)))
        of_one_scheme(things)
        store.close()


@pytest.mark.parametrize("step", ["middle", "end", "after"])
def test_killed_at_a_step_of_a_change(keyset, url, step):
    """The last one comes after the commit, and leaves files of the old index behind: the next opening removes them."""
    store, things = open_again(url, keyset)
    fill(things, range(14))
    things.search(np.ones(DIM))
    things.flush()
    store.close()
    with child("change_and_die", url, step) as (_, process):
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    wait_for_the_end_of_sessions(url)
    store, things = open_again(url, keyset)
    assert things.stats()["scheme"]["name"] == ("sealed" if step == "after" else "sap")
    check(things, records(range(14)))
    of_one_scheme(things)
    store.close()


def test_killed_between_the_pages_of_a_change(keyset, url, monkeypatch):
    """The next call goes on with what is there, beside what was written between the two."""
    for module, name, value in (*QUICK_SKETCHES, *SMALL_PAGES):
        monkeypatch.setattr(module, name, value)
    store, things = open_again(url, keyset)
    fill(things, range(8))
    expected = records(range(8))
    store.close()
    for n, (scheme, plan, pages) in enumerate(CHANGE_STEPS):
        with child("change_by_pages", url, (scheme, plan)) as (_, process):
            process.join(30)
            assert process.exitcode == -signal.SIGKILL
        wait_for_the_end_of_sessions(url)
        store, things = open_again(url, keyset)
        check(things, expected)
        under = things.stats()["change"]
        if pages is None:
            assert (under, things.stats()["scheme"]["name"]) == (None, scheme), "it was committed"
        else:
            done = 2 * SIZE * pages if pages < ALL else len(expected)
            assert (under["to"], under["records"]) == (scheme, len(expected))
            assert done - SIZE // 2 * (pages == ALL) <= under["done"] <= done
        things.upsert(*batch(n % 8, n + 1))
        expected |= records([n % 8], n + 1)
        things.delete([f"{(n + 1) % 8}/{i}" for i in range(5)])
        things.upsert(*batch(20 + n))
        expected |= records([20 + n])
        expected = {id: rest for id, rest in expected.items() if id not in {f"{(n + 1) % 8}/{i}" for i in range(5)}}
        check(things, expected)
        done = 0 if pages is None else things.stats()["change"]["done"]
        found = things.change(scheme=scheme)
        assert (found.resumed, found.changed) == (done, pages is not None)
        check(things, expected)
        of_one_scheme(things)
        assert low_level.records(things).blobs("change.") == {}
        store.close()


def of_one_scheme(things):
    """Check that what is stored belongs to the scheme of the settings."""
    name, stored = things.stats()["scheme"]["name"], low_level.records(things)
    blobs = {blob.partition(".")[0] for blob in stored.blobs("")} - {"change"}
    assert blobs <= {"sealed": {"index"}, "sap": set(), "sketch": {"profile"}}[name]
    if hasattr(stored, "collection") and name == "sealed":
        folder = getattr(things._session.index, "_cache", None)  # noqa: SLF001
        files = [] if folder is None or not folder.folder.is_dir() else list(folder.folder.iterdir())
        assert [file for file in files if file.name != "writer.lock"] == []


def test_killed_while_writing_a_key_file(tmp_path):
    path, rng = tmp_path / "keys.json", random.Random(6)
    ev.Keyset.create(f"file:{path}", passphrase=PASSPHRASE)
    for _ in range(4):
        acknowledged = kill_in_the_middle("rotate", path, 0, rng)
        keyset = ev.Keyset.open(f"file:{path}", passphrase=PASSPHRASE)
        assert keyset.primary in (acknowledged[-1], acknowledged[-1] + 1)
        assert len(keyset.live) == keyset.primary, "no version is lost"
