"""Key derivation at the least cost there is; and no passphrase of whoever runs the tests."""

import pytest

from encvec_store.keys import lifetime
from encvec_store.keys.wrappers import passphrase


@pytest.fixture(autouse=True)
def _cheap(monkeypatch):
    monkeypatch.setattr(passphrase, "_ARGON2ID", {"name": "argon2id", "iterations": 1, "lanes": 1, "memory_kib": 8})
    monkeypatch.setattr(passphrase, "_SCRYPT", {"name": "scrypt", "n": 2, "r": 1, "p": 1})
    monkeypatch.delenv("ENCVEC_PASSPHRASE", raising=False)
    monkeypatch.delenv("ENCVEC_PASSPHRASE_FILE", raising=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is moved. Timers are not moved by it."""
    now = [1000.0]
    monkeypatch.setattr(lifetime, "_now", lambda: now[0])

    def move(seconds):
        now[0] += seconds

    return move
