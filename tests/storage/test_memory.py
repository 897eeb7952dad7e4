"""The contract, kept by records in memory."""

from contextlib import contextmanager

import numpy as np
import pytest

from encvec_store.storage.memory import MemoryStore
from tests.kits.records import CONFIG, SPEC, Follower, batch, by_partition
from tests.storage.contract import RecordsContract


@contextmanager
def place():
    store = MemoryStore(lock_timeout=0.1)
    yield lambda: store  # there is no other process
    store.close()


class TestMemory(RecordsContract):
    @pytest.fixture
    def fresh(self):
        return place

    def test_who_is_far_behind_lists_everything(self, records, monkeypatch):
        one = Follower()
        one.follow(records)
        for turn in range(1_002):
            records.put(batch([turn % 7], seed=turn), under=CONFIG)
            if turn in (997, 1_001):
                assert one.copy().follow(records).whole == (turn > 1_000)
        one.follow(records)
        assert one.partitions == by_partition(records)

    def test_a_row_twice_in_replace_is_refused(self, records):
        records.put(batch("ab"), under=CONFIG)
        row = records.rows()[:1]
        with pytest.raises(ValueError, match="twice"):
            records.replace([batch("ab", rows=np.repeat(row, 2))], CONFIG, under=CONFIG)
        assert records.count() == 2
        assert records.spec == SPEC
