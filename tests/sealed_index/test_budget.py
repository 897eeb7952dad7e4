"""Memory of all indexes of a process together."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from encvec_store.errors import InputError
from encvec_store.sealed_index.budget import Budget


class Held:
    """Takes memory until it is told to give it up. Counts how often it is asked how much."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, 0

    @property
    def bytes(self) -> int:
        self.asked += 1
        return self.size

    def forget(self) -> None:
        self.size = 0


def test_the_one_unused_for_the_longest_time_is_dropped():
    budget, held = Budget(100), [Held(40), Held(40), Held(40)]
    budget.make_room(held[0])
    budget.make_room(held[1])
    budget.used(held[0])
    budget.make_room(held[2])
    assert [each.size for each in held] == [40, 0, 40]
    assert budget.total == 80


def test_the_one_in_use_stays_however_large():
    budget, small, large = Budget(10), Held(5), Held(1000)
    budget.make_room(small)
    budget.make_room(large)
    assert (small.size, large.size, budget.total) == (0, 1000, 1000)


def test_a_size_that_changed_is_noted_at_the_next_use():
    budget, first, second = Budget(100), Held(40), Held(40)
    budget.make_room(first)
    budget.make_room(second)
    second.size = 70
    budget.make_room(second)
    assert (first.size, budget.total) == (0, 70)
    second.size = 20
    budget.make_room(second)
    assert budget.total == 20


def test_a_holder_that_was_freed_counts_no_more():
    budget, first = Budget(100), Held(60)
    budget.make_room(first)
    del first
    gc.collect()
    assert budget.total == 0
    kept, more = Held(60), Held(40)
    budget.make_room(kept)
    budget.make_room(more)
    assert kept.size == 60, "room was made for a holder that is gone"


def test_a_use_looks_at_no_other_holder():
    """Among ten thousand tenants, the search in one must not ask all."""
    budget, held = Budget(10**9), [Held(10) for _ in range(1000)]
    for each in held:
        budget.make_room(each)
    before = sum(each.asked for each in held)
    for _ in range(10):
        budget.used(held[0])
        budget.make_room(held[0])
    assert sum(each.asked for each in held) - before == 10


def test_threads_leave_the_sum_right():
    budget = Budget(500)
    held = [Held(10) for _ in range(100)]

    def work(start: int) -> None:
        for n in range(2_000):
            each = held[(start + 7 * n) % 100]
            each.size = 10
            budget.make_room(each)
            budget.used(held[n % 100])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.total == 10 * len(budget._held) <= 500


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_counts_again():
    budget, held = Budget(100), Held(40)
    budget.make_room(held)
    budget._total = 7  # as a fork in the middle of a note would leave it
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(budget.total).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"40"


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1"])
def test_a_limit_is_a_number_of_bytes(limit):
    with pytest.raises(InputError, match="index_memory"):
        Budget().set(limit)
