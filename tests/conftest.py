"""What every test shares: a real PostgreSQL, and the hypothesis profiles (`ci` where CI is set, else `dev`).

Each folder tests the room of the package that has its name; CONTRIBUTING.md names the others. Helpers that test files
import lie in `tests/kits`. A contract is a class of tests that every implementation subclasses; it lies in its room, in
`contract.py` or `contract/`.
"""

import gc
import os
import signal

# Before numpy: BLAS threads of several tests and processes on few cores wait for each other more than they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before FAISS: its threads spin while they wait, which doubles the time of what uses it where all cores have tests.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
from hypothesis import settings

# Test files import kits and contracts. Rewritten, their asserts explain a failure as those of test files do.
pytest.register_assert_rewrite("tests.kits", "tests.stores.contract", "tests.storage", "tests.indexes.contract")

from encvec_store.keys.wrappers import passphrase  # noqa: E402
from encvec_store.maintenance import notices  # noqa: E402
from tests.kits.postgres import (  # noqa: E402
    pg_alone,  # noqa: F401
    pg_caretaker,  # noqa: F401
    pg_databases,  # noqa: F401
    pg_dsn,  # noqa: F401
    pg_place,  # noqa: F401
    pg_place_alone,  # noqa: F401
    pg_plain,  # noqa: F401
    pg_server,  # noqa: F401
    pg_shared,  # noqa: F401
    pg_template,  # noqa: F401
)

# Machines under load miss deadlines, and a CI run must fail the same way twice: no deadline, no chance.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# A shell's background job ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _Everything(set[object]):
    def __contains__(self, item: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def all_told(monkeypatch):
    """Say nothing that is said once a process: else a test's log would depend on the tests before it."""
    monkeypatch.setattr(notices, "_told", _Everything())


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    """Derive keys at the least cost there is, in this process. `keys/test_file.py` has the real one."""
    monkeypatch.setattr(passphrase, "_ARGON2ID", {"name": "argon2id", "iterations": 1, "lanes": 1, "memory_kib": 8})
    monkeypatch.setattr(passphrase, "_SCRYPT", {"name": "scrypt", "n": 2, "r": 1, "p": 1})


def pytest_collection_modifyitems(items):
    """Run slow tests first: what is left for the end is short, and no process waits long for another's last test."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection():
    """Look for no garbage among the tests while they are collected: that takes a third of the time and finds none."""
    gc.disable()


def pytest_collection_finish():
    """Keep the collected tests, 540,000 objects, out of every later garbage collection: each took .7 s for them."""
    gc.enable()
    gc.collect()
    gc.freeze()
