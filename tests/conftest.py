"""What every test shares: the hypothesis profiles, `ci` where CI is set and `dev` elsewhere."""

import os
import signal

# Before numpy: BLAS threads of several tests and processes on few cores wait for each other more than they work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Contracts and kits are modules that test files import: their asserts tell as much as those of test files.
pytest.register_assert_rewrite("tests.stores", "tests.storage", "tests.indexes", "tests.backends")

# Machines under load miss deadlines, and a CI run must fail the same way twice: no deadline, no chance.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

# A shell's background job ignores Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
