"""No passphrase of whoever runs the tests; a place for a keyset, and a clock."""

import pytest

from encvec_store.keys import lifetime


@pytest.fixture(autouse=True)
def _no_passphrase(monkeypatch):
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
