"""Keyset files: wrapped, private, replaced whole or not at all, never lost to a second writer."""

import base64
import json
import os
import stat
import threading
import time

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from encvec_store.errors import KeysetError, KeyUnavailableError
from encvec_store.keys.storage import file as storage
from encvec_store.keys.wrappers import passphrase as wrapper
from tests.kits.key_files import PASSPHRASE, create, reopen


def no_argon2(*args, **kwargs):
    raise UnsupportedAlgorithm("no Argon2 here")


def test_round_trip(path):
    keyset = create(path)
    keyset.rotate()
    keyset.rotate()
    keyset.disable(2)
    keyset.destroy(1)
    again = reopen(path)
    assert again.root(3) == keyset.root(3)
    assert (again.versions, again.primary) == (keyset.versions, 3)
    again.enable(2)
    assert reopen(path).live == (3, 2)
    with pytest.raises(KeyUnavailableError, match="destroyed"):
        again.root(1)


def test_content_is_wrapped(path):
    keyset = create(path)
    content = path.read_bytes()
    for secret in (keyset.root(1), base64.b64encode(keyset.root(1)), PASSPHRASE.encode(), b"primary"):
        assert secret not in content
        assert base64.b64encode(secret).strip(b"=")[:-1] not in content
    fields = json.loads(content)
    assert fields["format"] == "encvec-keyset-wrapped/1"
    assert fields["wrapper"] == "passphrase"
    assert fields["header"]["name"] == "argon2id"


def test_each_save_has_a_fresh_nonce_each_file_a_fresh_salt(path, tmp_path):
    keyset = create(path)
    nonces = {json.loads(path.read_bytes())["nonce"]}
    for _ in range(20):
        keyset.rotate()
        nonces.add(json.loads(path.read_bytes())["nonce"])
    assert len(nonces) == 21
    create(tmp_path / "other.json")
    salts = {json.loads(place.read_bytes())["header"]["salt"] for place in (path, tmp_path / "other.json")}
    assert len(salts) == 2


def test_defaults_are_strong(monkeypatch):
    monkeypatch.undo()
    assert wrapper._ARGON2ID == {"name": "argon2id", "iterations": 3, "lanes": 4, "memory_kib": 65536}  # RFC 9106
    assert wrapper._SCRYPT == {"name": "scrypt", "n": 65536, "r": 8, "p": 1}


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_only_the_owner_may_read(path):
    old = os.umask(0)
    try:
        keyset = create(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        keyset.rotate()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(old)


@pytest.mark.parametrize("wrong", ["correct hors", "Correct horse", "correct horse ", "x", b"\xff"])
def test_wrong_passphrase(path, wrong):
    create(path)
    with pytest.raises(KeysetError, match="wrong passphrase, or the keyset was altered") as caught:
        reopen(path, wrong)
    assert caught.value.__cause__ is None
    assert PASSPHRASE not in str(caught.value)


@pytest.mark.parametrize("scrypt", [False, True])
def test_any_flipped_byte_is_refused(monkeypatch, path, scrypt):
    if scrypt:
        monkeypatch.setattr(wrapper, "Argon2id", no_argon2)
    create(path)
    monkeypatch.setattr(wrapper, "_MAX_WORK_KIB", 4096)  # a flip must not be able to make the test slow
    content = path.read_bytes()
    for position in range(len(content)):
        for flip in (0x01, 0x20):
            broken = bytearray(content)
            broken[position] ^= flip
            path.write_bytes(broken)
            with pytest.raises(KeysetError):
                reopen(path)


def test_any_other_length_is_refused(path):
    create(path)
    content = path.read_bytes()
    for wrong in [content[:length] for length in range(len(content))] + [content + b"\n", b" " + content, content * 2]:
        path.write_bytes(wrong)
        with pytest.raises(KeysetError):
            reopen(path)


def test_existing_file_is_refused(path):
    root = create(path).root(1)
    before = path.read_bytes()
    with pytest.raises(KeysetError, match="holds a keyset already"):
        create(path)
    assert path.read_bytes() == before
    assert reopen(path).root(1) == root


def test_existing_file_is_refused_at_the_last_moment(monkeypatch, path):
    """Another process creates the file while the key is derived."""
    monkeypatch.setattr(wrapper.PassphraseWrapper, "_secret", lambda self: path.write_text("first") and b"x")
    with pytest.raises(KeysetError, match="holds a keyset already"):
        create(path)
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "keys.json"
    create(path)
    assert reopen(path).primary == 1


def test_missing_and_unreadable(tmp_path, path):
    with pytest.raises(KeysetError, match="no keyset at"):
        reopen(path)
    with pytest.raises(KeysetError, match="cannot read"):
        reopen(tmp_path)
    (tmp_path / "plain").write_text("x")
    with pytest.raises(KeysetError, match="cannot write"):
        create(tmp_path / "plain" / "keys.json")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_save_leaves_all_as_before(monkeypatch, path, call):
    keyset = create(path)
    content, document = path.read_bytes(), keyset._document()

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage.os, call, fail)
        for change in (keyset.rotate, keyset.rotate):
            with pytest.raises(KeysetError, match=r"cannot write .*: No space left"):
                change()
    assert path.read_bytes() == content
    assert keyset._document() == document
    assert list(path.parent.iterdir()) == [path]  # no litter
    assert keyset.rotate() == 2
    assert reopen(path).root(2) == keyset.root(2)


def test_two_writers(path):
    """The second of two that both opened the file is told, and the first one's key is kept."""
    create(path)
    one, two = reopen(path), reopen(path)
    one.rotate()
    with pytest.raises(KeysetError, match="changed by another process: open it again"):
        two.rotate()
    assert (two.primary, two.live) == (1, (1,))
    assert reopen(path).root(2) == one.root(2)
    two = reopen(path)
    assert two.rotate() == 3
    with pytest.raises(KeysetError, match="changed by another process"):
        one.disable(1)


@pytest.mark.skipif(os.name != "posix", reason="the lock is POSIX")
def test_two_writers_at_once(monkeypatch, path):
    """Between the look at the old file and the new one's place nobody comes in: one of two fails, no key is lost."""
    create(path)
    keysets = [reopen(path), reopen(path)]
    replace, start = os.replace, threading.Barrier(2)

    def slow(source, target):
        time.sleep(0.2)  # wide enough a gap for the other to pass, were there no lock
        replace(source, target)

    monkeypatch.setattr(storage.os, "replace", slow)
    results = []

    def rotate(keyset):
        start.wait()
        try:
            results.append((keyset.rotate(), keyset.root(2)))
        except KeysetError as error:
            results.append(str(error))

    threads = [threading.Thread(target=rotate, args=(keyset,)) for keyset in keysets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (done,) = [result for result in results if isinstance(result, tuple)]
    (refused,) = [result for result in results if isinstance(result, str)]
    assert "changed by another process" in refused
    assert reopen(path).root(2) == done[1]


def test_scrypt_where_there_is_no_argon2(monkeypatch, path):
    with monkeypatch.context() as patch:
        patch.setattr(wrapper, "Argon2id", no_argon2)
        root = create(path).root(1)
        assert json.loads(path.read_bytes())["header"]["name"] == "scrypt"
        assert reopen(path).root(1) == root
    keyset = reopen(path)
    assert keyset.root(1) == root
    keyset.rotate()
    assert json.loads(path.read_bytes())["header"]["name"] == "scrypt"  # derived once, kept
    assert reopen(path).root(2) == keyset.root(2)


def test_argon2_file_where_there_is_none(monkeypatch, path):
    create(path)
    monkeypatch.setattr(wrapper, "Argon2id", no_argon2)
    with pytest.raises(KeysetError, match="OpenSSL lacks"):
        reopen(path)
