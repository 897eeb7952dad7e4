"""The directory of a temporary server, in a folder where everybody may have put something first."""

import os
import tempfile

import pytest

from encvec_store.localpg.account import Account, choose_account
from encvec_store.localpg.errors import LocalServerError
from encvec_store.localpg.home import temporary


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return where a shared server will be, which is no secret."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("encvec_store.localpg.home.obstacle", lambda path, account: None)
    return temporary(choose_account(), "tests")


def test_a_link_is_not_followed(home, tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o750)
    home.path.symlink_to(target)
    with pytest.raises(LocalServerError, match="must be a directory of ours"):
        home.make(choose_account())
    assert (target.stat().st_mode & 0o777, list(target.iterdir())) == (0o750, [])


def test_a_directory_that_others_write_to_is_refused(home):
    home.path.mkdir()
    home.path.chmod(0o777)
    with pytest.raises(LocalServerError, match="can be written to by others"):
        home.make(choose_account())
    assert home.path.stat().st_mode & 0o777 == 0o777


def test_a_directory_of_another_user_is_refused(home, monkeypatch):
    home.path.mkdir(mode=0o700)
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    with pytest.raises(LocalServerError, match="belongs to another user"):
        home.make(Account("somebody", os.getuid(), os.getgid(), switch=False))


def test_ones_own_is_taken(home):
    home.make(choose_account())
    home.make(choose_account())
    assert home.path.is_dir()
