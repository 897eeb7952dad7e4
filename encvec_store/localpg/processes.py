"""Finds, stops and kills the processes of a data directory.

Run as a script, it is the guard of a temporary server: it waits until no process holds the lease any more, however
those ended, then stops the server and removes its files. So it must not import this package.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "PidFile",
    "alive",
    "discard",
    "end",
    "forget_stale",
    "halt",
    "kill",
    "launch",
    "postmaster",
    "running",
    "same_file",
    "wait_until",
]

NOBODY = 2**31 - 2  # a process id that no system hands out
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class PidFile:
    """The content of a server's `postmaster.pid`."""

    pid: int
    port: int
    sockets: str
    listens: str
    segment: int | None
    ready: bool


def postmaster(pgdata: Path) -> PidFile | None:
    """Read `postmaster.pid`; return None if it is missing or incomplete."""
    try:
        lines = [*(pgdata / "postmaster.pid").read_text(encoding="utf-8").splitlines(), *[""] * 8][:8]
        segment = lines[6].split()
        return PidFile(
            abs(int(lines[0])),
            int(lines[3] or 0),
            lines[4],
            lines[5],
            int(segment[1]) if len(segment) == 2 else None,
            lines[7].strip() == "ready",
        )
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def running(pgdata: Path) -> PidFile | None:
    """Return the pid file of a running server; None if there is none, or it is stale."""
    found = postmaster(pgdata)
    return found if found and _serves(found.pid, pgdata) else None


def forget_stale(pgdata: Path) -> None:
    """Keep the lock files of a dead server from preventing a start, if their process id is in use again.

    After a reboot any program may have it, and a dead process that nobody has waited for still has it. The pid file is
    kept, with an id that no process has: PostgreSQL needs its other lines to see if backends of the dead server still
    use its memory. The lock file of the socket has no other use and is removed.
    """
    found = postmaster(pgdata)
    if found is None or _serves(found.pid, pgdata):
        return
    lock = Path(found.sockets) / f".s.PGSQL.{found.port}.lock"
    with contextlib.suppress(OSError):
        if found.sockets and lock.read_text(encoding="utf-8").splitlines()[1:2] == [str(pgdata)]:
            lock.unlink()
    if found.pid != NOBODY and alive(found.pid):
        path = pgdata / "postmaster.pid"
        _, _, rest = path.read_text(encoding="utf-8").partition("\n")
        path.write_text(f"{NOBODY}\n{rest}", encoding="utf-8")


def launch(
    command: Sequence[str | Path], *, output: int = subprocess.DEVNULL, env: Mapping[str, str], **options: Any
) -> int:
    """Start a program in its own session, so that it outlives us and Ctrl-C does not reach it; return its id."""
    process = subprocess.Popen(  # noqa: S603
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=output,  # not a pipe: the server's children would keep it open
        stderr=output,
        cwd="/",
        env=dict(env),
        start_new_session=True,
        **options,
    )
    process.returncode = 0  # `alive` waits for it, not this object, which would warn
    return process.pid


def halt(pgdata: Path, timeout: float) -> bool:
    """Stop a server: by a fast shutdown, then an immediate one, then SIGKILL. Return False if it had to be killed."""
    for number, patience in ((signal.SIGINT, timeout), (signal.SIGQUIT, 10.0)):
        found = running(pgdata)
        if found is None:
            return True
        pid = found.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if wait_until(lambda pid=pid: not alive(pid), patience):  # type: ignore[misc]
            return True
    kill(pgdata)
    return False


def kill(pgdata: Path) -> None:
    """Kill a server and its children, like a crash, and wait until all have ended."""
    found = running(pgdata)
    if found is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGSTOP)  # it starts no child from here on
    family = [found.pid, *_children(found.pid)]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in family), 10.0)


def end(pid: int) -> None:
    """Kill one process of ours, if it still runs."""
    if alive(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), 10.0)


def discard(home: Path, timeout: float = 10.0) -> None:
    """Stop the temporary server of a directory and remove the directory, its sockets and its memory."""
    pgdata = home / "pgdata"
    halt(pgdata, timeout)
    crashed = postmaster(pgdata)
    if crashed and crashed.segment is not None:
        _remove_segment(crashed.segment)
    sockets = home / "sockets"
    if sockets.is_symlink():
        shutil.rmtree(sockets.readlink(), ignore_errors=True)
    gone = home.with_name(f".{home.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        home.rename(gone)  # first, so that nobody finds half a directory
    shutil.rmtree(gone, ignore_errors=True)


def same_file(descriptor: int, path: Path) -> bool:
    """Return True if an open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def wait_until(done: Callable[[], bool], timeout: float) -> bool:
    """Wait for a condition; return False after the timeout."""
    end = time.monotonic() + timeout
    pause = 0.002
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
        pause = min(0.1, 1.5 * pause)
    return True


def alive(pid: int) -> bool:
    """Return True if a process runs. A zombie does not."""
    with contextlib.suppress(OSError):  # not our child
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    state, _ = _stat(pid)
    return not state.startswith(("Z", "X"))


def _serves(pid: int, pgdata: Path) -> bool:
    """Return True if a process is the server of this data directory, by its command line."""
    if not alive(pid):
        return False
    try:
        if LINUX:  # everybody may read it, unlike the working directory, which containers hide even from root
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return os.fsencode(pgdata) in words
        return str(pgdata) in _ps("-p", str(pid), "-o", "command=")
    except OSError:
        return False


def _stat(pid: int) -> tuple[str, int]:
    """Return a process's state and its parent; ("", 0) if it has ended."""
    try:
        if LINUX:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        else:
            fields = _ps("-p", str(pid), "-o", "stat=,ppid=").split()
        return fields[0], int(fields[1])
    except (OSError, IndexError, ValueError):
        return "", 0


def _children(pid: int) -> list[int]:
    if LINUX:
        return [int(each) for each in os.listdir("/proc") if each.isdigit() and _stat(int(each))[1] == pid]
    pairs = (line.split() for line in _ps("-axo", "pid=,ppid=").splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


def _ps(*arguments: str) -> str:
    done = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout


def _remove_segment(segment: int) -> None:
    """Remove the System V memory segment of a crashed server, which its next start would have looked for."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).shmctl(segment, 0, None)  # 0 is IPC_RMID


def guard(home: Path) -> None:
    """Wait until nobody holds the lease of a temporary server, then discard it.

    A process that starts a server holds `lock` and then takes the lease. So this takes the lease first, and only tries
    `lock`.
    """
    with (home / "lease").open("rb") as lease, (home / "lock").open("rb") as lock:
        while True:
            fcntl.flock(lease, fcntl.LOCK_EX)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                fcntl.flock(lease, fcntl.LOCK_UN)
                time.sleep(0.05)
                continue
            if same_file(lock.fileno(), home / "lock"):  # otherwise it was removed, and this may be that of another run
                discard(home)
            return


if __name__ == "__main__":
    with contextlib.suppress(FileNotFoundError):  # everything had ended before this began
        guard(Path(sys.argv[1]))
