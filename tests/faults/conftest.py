"""What the fault tests share: a keyset that children open too, and a store of each kind."""

import pytest

import encvec_store as ev
from tests.kits.faults.worker import FAISS, VARIABLE, postgres


@pytest.fixture
def keyset(monkeypatch):
    """A keyset that a child opens from the environment."""
    keyset = ev.Keyset.create("memory:")
    monkeypatch.setenv(VARIABLE, keyset.export(unsafe_cleartext=True))
    return keyset


@pytest.fixture
def faiss_url(tmp_path):
    """An empty store in a folder, by its URL."""
    return FAISS.format(tmp_path)


@pytest.fixture(params=["faiss", "postgresql"])
def url(request):
    """An empty store of each kind that processes can share, by its URL."""
    if request.param == "faiss":
        return request.getfixturevalue("faiss_url")
    return postgres(request.getfixturevalue("pg_dsn"))
