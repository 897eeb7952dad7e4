"""The command itself: help, options before and after it, errors and warnings in one line."""

import re

import pytest

from encvec_store.cli.app import cli


def leaves(group, path=()):
    for name, item in group.commands.items():
        yield (*path, name), item
        if hasattr(item, "commands"):
            yield from leaves(item, (*path, name))


@pytest.mark.parametrize(
    ("path", "item"), list(leaves(cli)), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_explains_itself_and_speaks_json(encvec, path, item):
    answer = encvec(*path, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: encvec {' '.join(path)}")
    assert "\\b" not in answer.out
    assert not any(len(line) > 100 for line in answer.out.splitlines())
    if not hasattr(item, "commands"):
        assert "--json" in answer.out
    assert not re.search(r"--\S*(passphrase|password|secret)", answer.out), "a secret must never be an option"


def test_the_list_of_commands_is_not_cut(encvec):
    listed = encvec("--help").out.partition("Commands:")[2]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == list(cli.commands)
    assert "..." not in listed
    for group in ("keys", "db"):
        assert "..." not in encvec(group, "--help").out.partition("Commands:")[2]


def test_an_unknown_command_or_option_is_one_line(encvec):
    for args in (["serve"], ["count", "docs", "--colour"], ["count"], ["keys", "mint"], ["count", "a", "b"]):
        answer = encvec(*args)
        assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
        assert re.match(r"encvec: .*\(see `encvec.* --help`\)\n", answer.err)
        assert encvec(*args, "--json").error["type"] == "UsageError"


@pytest.mark.usefixtures("docs")
@pytest.mark.parametrize("command", ["count", "stats", "search"])
def test_the_place_may_stand_before_the_command_or_after_it(home, encvec, monkeypatch, command):
    """What stands after wins, as it is nearer; and the environment comes last."""
    rest = [command, "docs", *(["--id", "r1"] if command == "search" else [])]
    expected = encvec(*rest, "--json").document
    monkeypatch.delenv("ENCVEC_KEYS")
    monkeypatch.setenv("ENCVEC_STORE", "faiss:///nowhere")
    keys, url = "env:ENCVEC_TEST_KEYSET", f"faiss://{home}/store"
    for before, after in [
        (["--store", url, "--keys", keys, "--json"], []),
        (["--store", url], ["--keys", keys, "--json"]),
        (["--store", "faiss:///nowhere", "--keys", keys], ["--store", url, "--json"]),
        (["--json"], ["--store", url, "--keys", keys]),
    ]:
        assert encvec(*before, *rest, *after).document == expected
    assert encvec("--keys", keys, "keys", "list", "--json").document["uri"] == keys
    assert encvec("keys", "--keys", keys, "list", "--json").document["uri"] == keys
    assert encvec("db", "--store", url, "current", "--json").code == 0


def test_a_place_before_a_command_that_has_none_is_refused(encvec):
    for args in (["--keys", "env:X", "bench", "--data", "iid:9x2"], ["--store", "faiss:x", "db", "history"]):
        answer = encvec(*args)
        assert (answer.code, "No such option" in answer.err) == (2, True)
    answer = encvec("--store", "postgresql://u:secret@h/db", "count", "docs")
    assert (answer.code, "secret" in answer.err) == (2, False)
    assert "a password on the command line" in answer.err
    assert encvec("--json", "bench", "compare", "a", "b").code == 2


def test_a_bug_is_one_line_and_the_traceback_is_for_those_who_ask(encvec, docs, monkeypatch, capfd):
    from encvec_store.cli.app import run
    from encvec_store.collection import Collection

    def broken(*args):
        raise RuntimeError("boom")

    monkeypatch.setattr(Collection, "count", broken)
    answer = encvec("count", "docs")
    assert answer.code == 2
    assert answer.err == ("encvec: unexpected RuntimeError: boom (please report it; ENCVEC_DEBUG=1 shows where)\n")
    monkeypatch.setenv("ENCVEC_DEBUG", "1")
    assert run(["count", "docs"]) == 2
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_warnings_of_the_library_look_like_ours(encvec, docs, capfd):
    import logging

    encvec("count", "docs")
    logging.getLogger("encvec_store").warning("a cached sealed vector was damaged")
    assert capfd.readouterr().err == "encvec: warning: a cached sealed vector was damaged\n"
