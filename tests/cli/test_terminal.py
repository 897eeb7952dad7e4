"""The command on a terminal: prompts, progress bars, and no secret on the screen."""

import os
import re
import select
import sys
import time

import numpy as np
import pytest

from tests.cli.conftest import POSIX, command

SECRET = "correct horse battery staple"


class Terminal:
    """A command on a pseudo-terminal, as a person would meet it."""

    def __init__(self, argv):
        import pty

        self.shown = ""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execv(argv[0], argv)  # noqa: S606 - the child of a fork

    def until(self, text, timeout=60):
        limit = time.monotonic() + timeout
        while text not in self.shown:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, limit - time.monotonic()))
            assert ready, f"{text!r} never came: {self.shown}"
            self.shown += os.read(self.fd, 4096).decode()

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        while True:
            try:
                piece = os.read(self.fd, 4096)
            except OSError:
                break
            if not piece:
                break
            self.shown += piece.decode()
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@POSIX
@pytest.mark.filterwarnings("ignore:.*use of forkpty.*:DeprecationWarning")
def test_a_person_is_asked_for_the_passphrase_and_never_shown_it(environment, monkeypatch, vectors):
    monkeypatch.delenv("ENCVEC_KEYS")
    (environment / "store").rmdir()
    terminal = Terminal(command("init"))
    terminal.until("New passphrase: ")
    terminal.type(SECRET + "\n")
    terminal.until("Repeat for confirmation: ")
    terminal.type(SECRET + "\n")
    assert terminal.end() == 0
    shown = terminal.shown

    np.save("a.npy", vectors)
    terminal = Terminal(command("ingest", "docs", "a.npy", "--batch-size", "20"))
    terminal.until("Passphrase of file:keys.json: ")
    terminal.type(SECRET + "\n")
    assert terminal.end() == 0
    assert "encrypting into docs" in terminal.shown, "a terminal gets a progress bar"
    shown += terminal.shown

    terminal = Terminal(command("drop", "docs"))
    terminal.until("keys.json: ")
    terminal.type(SECRET + "\n")
    terminal.until("Drop collection 'docs' with its 300 records? [y/N]: ")
    terminal.type("\n")
    assert terminal.end() == 1
    shown += terminal.shown

    terminal = Terminal(command("search", "docs", "--id", "a:1"))
    terminal.until("keys.json: ")
    terminal.type("wrong\n")
    assert terminal.end() == 2
    assert "wrong passphrase, or the keyset was altered" in terminal.shown
    assert SECRET not in shown + terminal.shown


@POSIX
@pytest.mark.filterwarnings("ignore:.*use of forkpty.*:DeprecationWarning")
def test_ctrl_c_at_the_prompt(environment, encvec, monkeypatch):
    monkeypatch.setenv("ENCVEC_PASSPHRASE", SECRET)
    encvec("init", "x")
    monkeypatch.delenv("ENCVEC_PASSPHRASE")
    monkeypatch.delenv("ENCVEC_KEYS")
    terminal = Terminal(command("collections", "--dir", "x"))
    terminal.until("keys.json: ")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.shown


BARS = """
import logging, sys, warnings
from encvec_store.cli.app import _prepare, warnings_as_notes
from encvec_store.cli.output import note, progress
_prepare()
warnings_as_notes()
with progress("outer", 10) as advance, progress("inner", 5):
    advance(3, None)
    note("a note")
    logging.getLogger("encvec_store").warning("a warning")
    warnings.warn("of Python")
note("after")
"""


@POSIX
@pytest.mark.filterwarnings("ignore:.*use of forkpty.*:DeprecationWarning")
def test_a_warning_has_a_line_of_its_own_beside_a_bar(environment):
    terminal = Terminal([sys.executable, "-c", BARS])
    assert terminal.end() == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", terminal.shown.replace("\x1b[2K", "\n"))
    lines = [line.strip() for line in shown.split("\n")]
    for said in ("a note", "warning: a warning", "warning: of Python", "after"):
        assert f"encvec: {said}" in lines
    assert any("outer" in line for line in lines)
    assert any("inner" in line for line in lines)


@pytest.mark.usefixtures("docs")
def test_no_bar_off_a_terminal(shell):
    done = shell("verify")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
