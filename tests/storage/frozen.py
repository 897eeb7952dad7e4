"""The part of the contract of `Records` that is about reading them as of one moment."""

import threading

import pytest

from encvec_store.errors import StoreLockedError, StoreReadOnlyError
from encvec_store.storage.protocol import Blob
from tests.kits.records import CONFIG, batch, content, kept, tokens
from tests.kits.threads import guarded


def everything(records):
    """What the records say of themselves."""
    facts = records.config(), records.generation(), records.count(), records.partitions(), records.newest()
    return content(records), facts, records.blobs(""), records.blob("a"), records.rows(after=1, limit=3).tolist()


class FrozenContract:
    """Has the fixtures of `RecordsContract`."""

    def test_frozen_records_stay_as_they_were(self, records, other):
        """Whatever this process and others write meanwhile. They need not wait."""
        records.put(batch(range(20)), under=CONFIG)
        records.keep([("a", 0, Blob(1, b"old"))])
        with records.frozen() as held:
            before = everything(held)
            assert before == everything(records)
            records.put(batch(range(10, 30), seed=1, partition=2), under=CONFIG, config=b"newer")
            records.keep([("a", 0, Blob(1, b"new"))])
            other.remove(other.find(tokens(range(5))))
            assert everything(held) == before
            with records.frozen() as later:
                new = everything(later)
                assert new == everything(records)
                other.remove(other.find(tokens([7])))
                assert (everything(held), everything(later)) == (before, new)
        assert everything(other) == everything(records)
        assert records.config() == b"newer"
        assert records.count() == 24

    def test_frozen_records_outlive_a_replacement(self, records, other):
        """PostgreSQL refuses it, in time."""
        records.put(batch("abc"), under=CONFIG)
        with records.frozen() as held:
            before = everything(held)
            try:
                other.replace([kept(other, "ab", seed=5)], b"newer", under=CONFIG)
            except StoreLockedError:
                assert other.config() == CONFIG
            assert everything(held) == before
        other.put(batch("d"), under=other.config())
        assert records.count() == other.count()

    def test_frozen_records_are_not_written(self, records):
        records.put(batch("abc"), under=CONFIG)
        with records.frozen() as held:
            writes = [
                lambda: held.put(batch("d"), under=CONFIG),
                lambda: held.remove(held.rows()),
                lambda: held.replace([kept(held, "abc")], CONFIG, under=CONFIG),
                lambda: held.keep([("a", 0, Blob(1, b""))]),
            ]
            for write in writes:
                with pytest.raises(StoreReadOnlyError):
                    write()
            assert held.count() == 3
        assert records.count() == 3

    def test_an_error_in_the_block_is_the_callers(self, records):
        with pytest.raises(ZeroDivisionError), records.frozen():
            raise ZeroDivisionError
        records.put(batch("abc"), under=CONFIG)

    def test_writers_of_every_kind_go_on(self, records, other):
        failed, stop = [], threading.Event()

        def write():
            n = 0
            while not stop.is_set():
                other.put(batch([n % 40], seed=n), under=CONFIG)
                other.remove(other.find(tokens([(n * 7) % 40])))
                n += 1

        records.put(batch(range(40)), under=CONFIG)
        thread = guarded(failed, write)
        thread.start()
        try:
            for _ in range(5):
                with records.frozen() as held:
                    first = everything(held)
                    for _ in range(3):
                        assert everything(held) == first
        finally:
            stop.set()
            thread.join()
        assert not failed, failed[0]
