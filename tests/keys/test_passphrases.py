"""Passphrases: where they come from, which bytes they stand for, how one is changed, and how an old key is renewed."""

import logging
import os
import stat
import unicodedata

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from encvec_store.errors import KeysetError
from encvec_store.keys import Keyset
from encvec_store.keys.wrappers import passphrase
from tests.kits.key_files import PASSPHRASE, create, reopen

COMPOSED = unicodedata.normalize("NFC", "Grüße, Ångström")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def test_a_passphrase_is_the_same_however_it_is_composed(path, tmp_path, monkeypatch):
    """A Mac types it in other code points than Linux does."""
    assert COMPOSED != DECOMPOSED
    root = Keyset.create(f"file:{path}", passphrase=COMPOSED).root(1)
    assert reopen(path, DECOMPOSED).root(1) == root
    assert reopen(path, DECOMPOSED.encode()).root(1) == root
    monkeypatch.setenv("ENCVEC_PASSPHRASE", DECOMPOSED)
    assert reopen(path, None).root(1) == root
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    (tmp_path / "secret").write_text(DECOMPOSED + "\n", encoding="utf-8-sig")
    monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", str(tmp_path / "secret"))
    assert reopen(path, None).root(1) == root


@pytest.mark.parametrize("before", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_what_editors_add_is_no_part_of_it(path, tmp_path, monkeypatch, before, end):
    root = create(path).root(1)
    monkeypatch.setenv("ENCVEC_PASSPHRASE", before + PASSPHRASE + end)
    assert reopen(path, None).root(1) == root
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    (tmp_path / "secret").write_bytes((before + PASSPHRASE + end).encode())
    monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", str(tmp_path / "secret"))
    assert reopen(path, None).root(1) == root


def test_only_one_line_end_and_no_space_is_stripped(path, monkeypatch):
    create(path)
    for other in (PASSPHRASE + "\n\n", PASSPHRASE + " ", " " + PASSPHRASE):
        monkeypatch.setenv("ENCVEC_PASSPHRASE", other)
        with pytest.raises(KeysetError, match="wrong passphrase"):
            reopen(path, None)


def test_both_variables_are_an_error(path, tmp_path, monkeypatch):
    create(path)
    monkeypatch.setenv("ENCVEC_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", str(tmp_path / "secret"))
    with pytest.raises(KeysetError, match="both ENCVEC_PASSPHRASE and ENCVEC_PASSPHRASE_FILE are set: unset one"):
        reopen(path, None)
    assert reopen(path, PASSPHRASE).primary == 1, "the argument is read first"
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "")
    with pytest.raises(KeysetError, match="cannot read the passphrase file"):
        reopen(path, None)


@pytest.mark.parametrize("variable", ["ENCVEC_PASSPHRASE_FILE", None], ids=["passphrase", "keyset"])
def test_a_file_that_never_ends_is_not_read(path, monkeypatch, variable):
    if variable:
        create(path)
        monkeypatch.setenv(variable, "/dev/zero")
    with pytest.raises(KeysetError, match="must have at most"):
        reopen(path if variable else "/dev/zero", None)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "secret").write_text(PASSPHRASE)
    monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", "~/secret")
    root = Keyset.create("file:~/keys.json").root(1)
    assert reopen(tmp_path / "keys.json").root(1) == root


def test_change_passphrase(path):
    keyset = create(path)
    before = path.read_bytes()
    keyset.change_passphrase("another")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert reopen(path, "another").root(1) == keyset.root(1)
    with pytest.raises(KeysetError, match="wrong passphrase"):
        reopen(path)
    keyset.rotate()
    assert reopen(path, "another").primary == 2, "later changes are under the new one too"
    path.write_bytes(before)
    assert reopen(path).primary == 1, "an earlier copy opens with the old one"


def test_a_change_of_passphrase_that_fails_changes_nothing(path, monkeypatch):
    keyset = create(path)
    before = path.read_bytes()
    with pytest.raises(KeysetError, match="a passphrase is needed"):
        keyset.change_passphrase("")
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(KeysetError, match="No space left"):
            keyset.change_passphrase("another")
    assert path.read_bytes() == before
    keyset.rotate()
    assert reopen(path).primary == 2


def test_where_no_passphrase_is_there_is_none_to_change():
    with pytest.raises(KeysetError, match="is not wrapped by a passphrase"):
        Keyset.create("memory:").change_passphrase("another")


@pytest.mark.parametrize("name", ["argon2id", "scrypt"])
def test_a_key_derivation_of_former_times_is_raised_at_the_next_save(path, monkeypatch, caplog, name):
    with monkeypatch.context() as older:
        if name == "scrypt":
            older.setattr(passphrase, "Argon2id", lambda **_: (_ for _ in ()).throw(UnsupportedAlgorithm("argon2id")))
        create(path)
    assert f'"name": "{name}"'.encode() in path.read_bytes()
    monkeypatch.setattr(passphrase, "_ARGON2ID", {"name": "argon2id", "iterations": 2, "lanes": 1, "memory_kib": 16})
    monkeypatch.setattr(passphrase, "_SCRYPT", {"name": "scrypt", "n": 4, "r": 1, "p": 1})
    keyset = reopen(path)
    assert not caplog.records, "reading changes nothing"
    caplog.set_level(logging.INFO)
    keyset.rotate()
    assert [record.getMessage() for record in caplog.records] == [
        f"file:{path}: its key was derived at a lower cost than is usual today; it is derived anew"
    ]
    assert b'"iterations": 2' in path.read_bytes()
    caplog.clear()
    reopened = reopen(path)
    reopened.rotate()
    assert (reopened.primary, caplog.records) == (3, [])
