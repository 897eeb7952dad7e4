"""Forked children: locks are free, and what was registered is made anew."""

import os

import pytest

from encvec_store.runtime.concurrency import Lock
from encvec_store.runtime.forks import Mutex, generation, renew_in_child
from tests.kits.forking import in_child
from tests.kits.threads import held


@pytest.mark.parametrize("kind", [Mutex, Lock])
def test_a_lock_that_another_thread_held_is_free_in_the_child(kind):
    lock = kind()

    def use():
        with lock:
            return "free"

    with held(lock):
        assert in_child(use) == "free"
    assert use() == "free"


def test_a_child_counts_its_forks_and_renews_what_lives():
    class Owner:
        pid = os.getpid()

        def renew(self):
            self.pid = os.getpid()

    owner = Owner()
    renew_in_child(owner)
    before = generation()
    assert in_child(lambda: (generation() - before, owner.pid == os.getpid())) == (1, True)
    assert generation() == before
    assert in_child(lambda: in_child(generation)) == before + 2
