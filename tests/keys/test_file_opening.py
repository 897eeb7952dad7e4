"""Keyset files that someone else wrote: hostile, malformed, and all the ways to a passphrase."""

import base64
import contextlib
import json
import os
import time

import pytest

from encvec_store.errors import KeysetError
from encvec_store.keys import StoredKeyset
from encvec_store.keys.keyset import Keyset
from encvec_store.keys.stored import _canonical
from encvec_store.keys.wrappers.passphrase import PassphraseWrapper
from tests.kits.key_files import PASSPHRASE, create, reopen

ARGON2ID = {"name": "argon2id", "iterations": 1, "lanes": 1, "memory_kib": 8}
SCRYPT = {"name": "scrypt", "n": 2, "r": 1, "p": 1}


@pytest.mark.parametrize(
    "kdf",
    [
        {**ARGON2ID, "memory_kib": 1 << 30},
        {**ARGON2ID, "memory_kib": (1 << 20) + 1},
        {**ARGON2ID, "memory_kib": 1 << 20, "iterations": 5},
        {**ARGON2ID, "iterations": 1 << 31},
        {**ARGON2ID, "lanes": 65, "memory_kib": 8 * 65},
        {**ARGON2ID, "memory_kib": 7},
        {**ARGON2ID, "memory_kib": 0},
        {**ARGON2ID, "iterations": 0},
        {**ARGON2ID, "iterations": -1},
        {**ARGON2ID, "iterations": 1.5},
        {**ARGON2ID, "iterations": True},
        {**ARGON2ID, "iterations": "1"},
        {**ARGON2ID, "iterations": None},
        {**ARGON2ID, "iterations": 10**400},
        {**ARGON2ID, "more": 1},
        {"name": "argon2id"},
        {**ARGON2ID, "name": "scrypt"},
        {**ARGON2ID, "name": "argon2d"},
        {**ARGON2ID, "name": []},
        {**SCRYPT, "n": 1 << 24},
        {**SCRYPT, "n": 1 << 20, "r": 9},
        {**SCRYPT, "n": 1 << 20, "r": 8, "p": 5},
        {**SCRYPT, "n": 3},
        {**SCRYPT, "n": 1},
        {**SCRYPT, "n": 2, "r": 1 << 29, "p": 1},
        {**SCRYPT, "p": 1 << 20},
        {},
    ],
    ids=lambda kdf: json.dumps(kdf)[:70],
)
def test_hostile_key_derivation_is_refused_at_once(path, kdf):
    create(path)
    fields = json.loads(path.read_bytes())
    fields["header"] = {**kdf, "salt": fields["header"]["salt"]}
    path.write_bytes(_canonical(fields) + b"\n")
    started = time.process_time()  # of deriving a key: the machine has other work, too
    with pytest.raises(KeysetError, match="key derivation is malformed, or costs more than is allowed"):
        reopen(path)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        [],
        {"format": "encvec-keyset-wrapped/2"},
        {"format": "encvec-keyset/1"},
        {"format": None},
        {"wrapper": "none"},
        {"wrapper": ""},
        {"wrapper": "other"},
        {"wrapper": ["passphrase"]},
        {"wrapper": None},
        {"extra": 1},
        {"nonce": base64.b64encode(bytes(11)).decode()},
        {"nonce": 5},
        {"sealed": ""},
        {"sealed": "YQ=="},
        {"header": {**ARGON2ID, "salt": base64.b64encode(bytes(4)).decode()}},
        {"header": {**ARGON2ID, "salt": "YR=="}},
        {"header": []},
        {"header": None},
        {"header": {**ARGON2ID, "salt": 5}},
    ],
    ids=json.dumps,
)
def test_other_content_is_refused(path, fields):
    create(path)
    whole = {**json.loads(path.read_bytes()), **fields} if isinstance(fields, dict) and fields else fields
    path.write_bytes(_canonical(whole) + b"\n")
    with pytest.raises(KeysetError):
        reopen(path)


def test_passphrase_sources(monkeypatch, tmp_path, path):
    """The argument, or ENCVEC_PASSPHRASE, or the file that ENCVEC_PASSPHRASE_FILE names."""
    root = create(path).root(1)
    with pytest.raises(KeysetError, match=r"a passphrase is needed: .*ENCVEC_PASSPHRASE or ENCVEC_PASSPHRASE_FILE"):
        reopen(path, None)
    secret = tmp_path / "secret"
    for content in (b"correct horse", b"correct horse\n", b"correct horse\r\n"):
        secret.write_bytes(content)
        monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", str(secret))
        assert reopen(path, None).root(1) == root
    monkeypatch.delenv("ENCVEC_PASSPHRASE_FILE")
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "wrong")
    with pytest.raises(KeysetError, match="wrong passphrase"):
        reopen(path, None)
    assert reopen(path, PASSPHRASE).root(1) == root
    assert reopen(path, PASSPHRASE.encode()).root(1) == root
    monkeypatch.setenv("ENCVEC_PASSPHRASE", PASSPHRASE)
    assert reopen(path, None).root(1) == root
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", str(tmp_path / "none"))
    with pytest.raises(KeysetError, match="cannot read the passphrase file"):
        reopen(path, None)


@pytest.mark.parametrize("empty", ["", b""])
def test_empty_passphrase_is_refused(monkeypatch, tmp_path, path, empty):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "another")  # must not step in for an argument that is there
    with pytest.raises(KeysetError, match="a passphrase is needed"):
        Keyset.create(f"file:{path}", passphrase=empty)
    assert not path.exists()


def test_passphrase_that_is_not_utf8(monkeypatch, path):
    """An environment may hold any bytes; Python shows them as lone surrogates."""
    monkeypatch.setenv("ENCVEC_PASSPHRASE", os.fsdecode(b"gr\xfc\xdfe"))
    root = Keyset.create(f"file:{path}").root(1)
    assert reopen(path, b"gr\xfc\xdfe").root(1) == root


def test_passphrase_does_not_show(path):
    wrapper = PassphraseWrapper(passphrase=PASSPHRASE)
    stored = StoredKeyset(f"file:{path}", passphrase=PASSPHRASE)
    with contextlib.suppress(KeysetError):
        stored.load()
    for thing in (wrapper, stored, create(path)):
        assert PASSPHRASE not in repr(thing)
