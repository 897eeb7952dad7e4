"""`encvec init` and `encvec keys`: keys that last, asked for and never shown."""

import base64
import io
import json
import os
import stat
import sys

import numpy as np
import pytest

from encvec_store import Keyset

SECRET = "correct horse battery staple"


@pytest.fixture
def wrapped(home, encvec, vectors, monkeypatch):
    """A folder as `encvec init` makes it, with a collection."""
    (home / "store").rmdir()
    monkeypatch.delenv("ENCVEC_KEYS")
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    assert encvec("init").code == 0
    np.save("a.npy", vectors[:20])
    assert encvec("ingest", "docs", "a.npy").code == 0
    return home


def versions(answer):
    assert answer.code == 0, answer.err
    assert answer.document.keys() == {"uri", "primary", "versions"}
    assert all(item.keys() == {"version", "state", "primary", "created"} for item in answer.document["versions"])
    return {item["version"]: item["state"] for item in answer.document["versions"]}, answer.document["primary"]


def test_init_makes_keys_and_store_in_a_folder(home, encvec, monkeypatch):
    monkeypatch.delenv("ENCVEC_KEYS")
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    answer = encvec("init", "some/where", "--json")
    assert answer.code == 0
    assert answer.document.keys() == {"dir", "keys", "store"}
    assert (home / "some/where/store").is_dir()
    if sys.platform != "win32":
        assert stat.S_IMODE((home / "some/where/keys.json").stat().st_mode) == 0o600
    assert SECRET not in (home / "some/where/keys.json").read_text()
    assert encvec("collections", "--dir", "some/where", "--json").document == {"collections": []}


def test_init_tells_what_comes_next(home, encvec, monkeypatch):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    answer = encvec("init", "x")
    assert "encvec ingest my-collection FILE --dir x" in answer.out
    assert SECRET not in answer.out + answer.err


def test_init_never_replaces_keys(wrapped, encvec):
    before = (wrapped / "keys.json").read_bytes()
    answer = encvec("init", "--json")
    assert (answer.code, answer.error["type"]) == (2, "KeysetError")
    assert (wrapped / "keys.json").read_bytes() == before
    (wrapped / "keys.json").rename("elsewhere.json")
    answer = encvec("init")
    assert answer.code == 2
    assert "holds a store, but" in answer.err
    assert not (wrapped / "keys.json").exists()


def test_versions_live_and_die(wrapped, encvec):
    assert versions(encvec("keys", "list", "--json")) == ({1: "enabled"}, 1)
    assert versions(encvec("keys", "rotate", "--json")) == ({1: "enabled", 2: "enabled"}, 2)
    assert encvec("count", "docs").out == "20\n"
    assert versions(encvec("keys", "disable", "1", "--json")) == ({1: "disabled", 2: "enabled"}, 2)
    answer = encvec("get", "docs", "a:1")
    assert (answer.code, answer.out) == (1, "")
    assert "not found: 'a:1'" in answer.err  # it cannot be opened; the settings can, so the collection works on
    assert versions(encvec("keys", "enable", "1", "--json")) == ({1: "enabled", 2: "enabled"}, 2)
    assert encvec("get", "docs", "a:1").code == 0
    assert versions(encvec("keys", "destroy", "1", "--yes", "--json")) == ({1: "destroyed", 2: "enabled"}, 2)
    assert encvec("get", "docs", "a:1").code == 1
    assert encvec("drop", "docs", "--yes").code == 0


def test_list_is_readable(wrapped, encvec):
    out = encvec("keys", "list").out
    assert "keyset  file:keys.json" in out
    assert "enabled  primary" in out


def test_destroy_asks_and_tells_what_is_lost(wrapped, encvec, monkeypatch):
    encvec("keys", "rotate")
    assert encvec("keys", "destroy", "1").code == 2
    terminal = io.StringIO("no\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    answer = encvec("keys", "destroy", "1")
    assert answer.code == 1
    assert "20 records are under it" in answer.err
    assert versions(encvec("keys", "list", "--json"))[0] == {1: "enabled", 2: "enabled"}


@pytest.mark.parametrize("command", ["disable", "destroy"])
def test_the_primary_is_kept(wrapped, encvec, command):
    answer = encvec("keys", command, "1", *(["--yes"] if command == "destroy" else []), "--json")
    assert (answer.code, answer.error["type"]) == (2, "KeysetError")
    assert "rotate the keyset first" in answer.error["message"]


def test_an_unknown_version_is_refused(wrapped, encvec):
    for args in (["enable", "7"], ["disable", "7"], ["destroy", "7", "--yes"]):
        answer = encvec("keys", *args)
        assert answer.code == 2
        assert "key version 7 is not in" in answer.err
    assert encvec("keys", "destroy", "x").code == 2


def test_export_says_unsafe_and_gives_what_env_holds(wrapped, encvec, monkeypatch):
    answer = encvec("keys", "export")
    assert (answer.code, answer.out) == (2, "")
    text = encvec("keys", "export", "--unsafe-cleartext").out.strip()
    assert encvec("keys", "export", "--unsafe-cleartext", "--json").document == {"keyset": text}
    assert json.loads(base64.b64decode(text))["primary"] == 1
    monkeypatch.setenv("MY_KEYS", text)
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    assert encvec("count", "docs", "--keys", "env:MY_KEYS").out == "20\n"


@pytest.mark.parametrize("uri", ["env:SOME_KEYS", "memory:"])
def test_keys_that_would_not_last_are_not_made_or_changed(home, encvec, monkeypatch, uri):
    answer = encvec("keys", "create", "--keys", uri)
    assert answer.code == 2
    assert "lost when it ends" in answer.err
    monkeypatch.setenv("SOME_KEYS", "")
    Keyset.create("env:SOME_KEYS")
    for args in (["rotate"], ["disable", "1"], ["destroy", "1", "--yes"]):
        assert encvec("keys", *args, "--keys", uri).code == 2


def test_a_keyset_elsewhere(home, encvec, monkeypatch):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    uri = "file:sub/my keys.json"
    assert versions(encvec("keys", "create", "--keys", uri, "--json")) == ({1: "enabled"}, 1)
    assert encvec("keys", "create", "--keys", uri).code == 2
    monkeypatch.setenv("ENCVEC_KEYS", uri)
    assert encvec("keys", "list", "--json").document["uri"] == uri


def test_a_wrong_passphrase_says_so_and_no_more(wrapped, encvec, monkeypatch):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "tr0ub4dor")
    answer = encvec("count", "docs")
    assert (answer.code, answer.out) == (2, "")
    assert "wrong passphrase, or the keyset was altered" in answer.err
    assert "tr0ub4dor" not in answer.err


def test_the_passphrase_may_be_in_a_file(wrapped, encvec, monkeypatch):
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    (wrapped / "secret").write_text(SECRET + "\n")
    monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", "secret")
    assert encvec("count", "docs").out == "20\n"
    monkeypatch.setenv("ENCVEC_PASSPHRASE_FILE", "nope")
    answer = encvec("count", "docs")
    assert "cannot read the passphrase file nope" in answer.err


def test_without_passphrase_and_terminal_it_says_where_to_put_one(wrapped, encvec, monkeypatch):
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    answer = encvec("count", "docs", "--json")
    assert (answer.code, answer.error["type"]) == (2, "KeysetError")
    for name in ("ENCVEC_PASSPHRASE", "ENCVEC_PASSPHRASE_FILE"):
        assert name in answer.error["message"]


def test_missing_keys_or_store_point_to_init(home, encvec, monkeypatch):
    monkeypatch.delenv("ENCVEC_KEYS")
    answer = encvec("collections")
    assert answer.code == 2
    assert "no keyset at keys.json: say where it is with --dir or --keys" in answer.err
    (home / "store").rmdir()
    answer = encvec("collections")
    assert "no store at store: make one with `encvec init`" in answer.err
    assert not (home / "store").exists()


def test_other_keys_open_nothing(wrapped, encvec, monkeypatch):
    assert encvec("keys", "create", "--keys", "file:other.json", "--beside-full-store").code == 0
    answer = encvec("get", "docs", "a:1", "--keys", "file:other.json", "--json")
    assert (answer.code, answer.out, answer.error["type"]) == (2, "", "AuthenticationError")


def test_a_password_in_a_url_belongs_in_the_environment(home, encvec):
    answer = encvec("collections", "--store", "postgresql://me:hunter2@host/db")
    assert answer.code == 2
    assert "put the URL in ENCVEC_STORE" in answer.err
    assert "hunter2" not in answer.err


def test_another_wrapper_is_named_in_the_uri(home, encvec):
    """In clear it is made, listed and changed without a passphrase; without its wrapper's name it is refused."""
    uri = "file:clear.json?wrap=none"
    assert versions(encvec("keys", "create", "--keys", uri, "--json")) == ({1: "enabled"}, 1)
    assert encvec("keys", "list", "--keys", uri, "--json").document["uri"] == uri
    assert versions(encvec("keys", "rotate", "--keys", uri, "--json"))[1] == 2
    answer = encvec("keys", "list", "--keys", "file:clear.json", "--json")
    assert (answer.code, answer.error["type"]) == (2, "KeysetError")
    assert "must be wrapped, but is in clear" in answer.error["message"]
    answer = encvec("keys", "list", "--keys", "file:clear.json?wrap=magic", "--json")
    assert (answer.code, answer.error["type"]) == (2, "UriError")


def test_what_to_back_up(home, encvec, monkeypatch):
    answer = encvec("keys", "create", "--keys", "file:clear.json?wrap=none")
    assert "back up clear.json, and keep it secret" in answer.err
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    answer = encvec("keys", "create", "--keys", "file:wrapped.json")
    assert "back up wrapped.json, and remember its passphrase: without both" in answer.err


def test_a_wrapped_variable_needs_its_passphrase(home, encvec, monkeypatch):
    monkeypatch.setenv("WRAPPED", "")
    Keyset.create("env:WRAPPED", wrap="passphrase", passphrase=SECRET)
    answer = encvec("keys", "list", "--keys", "env:WRAPPED")
    assert answer.code == 2
    assert "ENCVEC_PASSPHRASE_FILE" in answer.err
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    assert versions(encvec("keys", "list", "--keys", "env:WRAPPED", "--json")) == ({1: "enabled"}, 1)


def test_change_the_passphrase(encvec, wrapped, monkeypatch):
    monkeypatch.setenv("ENCVEC_NEW_PASSPHRASE", "another one")
    answer = encvec("keys", "passphrase")
    assert (answer.code, "earlier copies" in answer.err) == (0, True)
    assert "another one" not in answer.out + answer.err
    assert "wrong passphrase" in encvec("keys", "list").err
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "another one")
    assert encvec("keys", "list").code == 0
    monkeypatch.delenv("ENCVEC_NEW_PASSPHRASE")
    assert "new passphrase: name a file that holds it in ENCVEC_NEW_PASSPHRASE_FILE" in encvec("keys", "passphrase").err


def test_no_new_keys_beside_a_full_store(encvec, wrapped):
    """The advice is never to make keys that open nothing that is there."""
    os.rename("keys.json", "elsewhere.json")
    answer = encvec("collections")
    assert (answer.code, "bring the file back from a backup" in answer.err) == (2, True)
    assert "keys create" not in answer.err
    refused = encvec("keys", "create")
    assert (refused.code, "that a new keyset cannot read" in refused.err) == (2, True)
    assert not os.path.exists("keys.json")
    assert encvec("keys", "create", "--beside-full-store").code == 0
    os.rename("keys.json", "second.json")
    assert encvec("keys", "create", "--store", "faiss:elsewhere").code == 0


def test_an_export_is_found_by_a_search(wrapped, encvec):
    """`export` begins with the same characters always, and its help says which."""
    text = encvec("keys", "export", "--unsafe-cleartext").out
    assert text.startswith("eyJmb3JtYXQiOiJlbmN2ZWMta2V5c2V0Lz")
    assert "eyJmb3JtYXQiOiJlbmN2ZWMta2V5c2V0Lz" in encvec("keys", "export", "--help").out


def test_import_restores_an_export(wrapped, encvec, monkeypatch):
    encvec("keys", "rotate")
    text = encvec("keys", "export", "--unsafe-cleartext").out
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    answer = encvec("keys", "import", "--keys", "file:again.json")
    assert answer.code == 0, answer.err
    assert text.strip() not in answer.out + answer.err
    assert encvec("count", "docs", "--keys", "file:again.json").out == "20\n"
    before = (wrapped / "again.json").read_bytes()
    for uri, given, error in (
        ("file:again.json", text, "holds a keyset already"),
        ("file:new.json", "junk", "unknown format, or is damaged"),
        ("file:new.json", "", "unknown format, or is damaged"),
        ("env:MY_KEYS", text, "lost when it ends"),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        answer = encvec("keys", "import", "--keys", uri)
        assert (answer.code, error in answer.err) == (2, True), answer.err
    assert (wrapped / "again.json").read_bytes() == before
    assert not (wrapped / "new.json").exists()


def test_rewrap(wrapped, encvec, monkeypatch):
    monkeypatch.setenv("ENCVEC_NEW_PASSPHRASE", "another")
    assert encvec("keys", "rewrap", "passphrase").code == 0
    assert "wrong passphrase" in encvec("count", "docs").err
    monkeypatch.setenv("ENCVEC_PASSPHRASE", "another")
    assert encvec("count", "docs").out == "20\n"
    before = (wrapped / "keys.json").read_bytes()
    for args in (["none"], ["nope"], ["vault:app"]):
        assert encvec("keys", "rewrap", *args).code == 2
    assert (wrapped / "keys.json").read_bytes() == before
    answer = encvec("keys", "rewrap", "none", "--yes")
    assert answer.code == 0
    uri = "file:keys.json?wrap=none"
    assert f"use --keys '{uri}' from now on" in answer.err
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    monkeypatch.setenv("ENCVEC_KEYSET", uri)
    assert encvec("count", "docs").out == "20\n"
