"""A home for servers that these tests start themselves."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from encvec_store.localpg import LocalServer, processes

# In memory where that can be had: servers whose data stay wait for the disk.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/var/tmp"


@pytest.fixture(autouse=True)
def _temporary_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", FAST)
    monkeypatch.setenv("TMPDIR", FAST)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the server's user can enter, as pytest's own is not; servers left in it are stopped."""
    path = Path(tempfile.mkdtemp(prefix="encvec-test-", dir=FAST))
    path.chmod(0o755)
    yield path
    for pgdata in path.rglob("pgdata"):
        processes.kill(pgdata)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def kept() -> Iterator[LocalServer]:
    """A server whose data stay, already running; tests may stop or kill it and must leave it running."""
    path = Path(tempfile.mkdtemp(prefix="encvec-test-", dir=FAST))
    path.chmod(0o755)
    server = LocalServer(path / "db", tcp=True)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(path)
