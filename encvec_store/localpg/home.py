"""The directory of a local server: its files, who may read them, and its locks.

home/         owned by root or by us; others may at most pass through it
├── pgdata/       the database cluster, owned by the user that runs the server
├── sockets/      its unix socket, or a link to a shorter path: the system allows about 100 characters
├── pgpass        the superuser's password, for libpq's `passfile`; 0600
├── server.log    the server's log; 0600
├── listen.json   how it listens, kept for the next start
├── lock          held while somebody starts or stops the server
└── lease         held by each process that uses a temporary server
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .account import Account, obstacle
from .errors import LocalServerError
from .processes import same_file

__all__ = ["SUPERUSER", "Home", "HomeGoneError", "persistent", "temporary"]

SUPERUSER = "postgres"
LONGEST_SOCKET = 100 - len("/.s.PGSQL.65535")
LARGEST_LOG = 16 * 2**20


class HomeGoneError(LocalServerError):
    """The last user of a shared server removed its directory while this process was about to use it."""


@dataclass(frozen=True)
class Home:
    """The paths of one server."""

    path: Path
    lasting: bool

    @property
    def pgdata(self) -> Path:
        """The database cluster."""
        return self.path / "pgdata"

    @property
    def passfile(self) -> Path:
        """The password, as libpq reads it."""
        return self.path / "pgpass"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.path / "server.log"

    def make(self, account: Account) -> None:
        """Make the directory, or check one that is there. Raises LocalServerError."""
        try:
            self.path.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._check()
            self.path.chmod(0o711 if account.switch else 0o700)  # the files inside have their own permissions
        except FileNotFoundError as error:
            raise HomeGoneError(f"{self.path} was removed") from error
        except (FileExistsError, PermissionError) as error:
            raise LocalServerError(f"{self.path}: {error.strerror}") from error
        closed = obstacle(self.path, account)
        if closed is not None:
            raise LocalServerError(
                f"{self.path}: the user {account.name!r}, who runs the server since root must not, may not enter "
                f"{closed}: choose a directory such as /var/lib/encvec-store"
            )

    def _check(self) -> None:
        info = self.path.lstat()  # in a folder that everybody writes to, somebody may have been here first
        if not stat.S_ISDIR(info.st_mode):
            raise LocalServerError(f"{self.path} must be a directory of ours, and is a link or something else")
        if info.st_uid != os.geteuid():
            raise LocalServerError(f"{self.path} belongs to another user (uid {info.st_uid})")
        if not self.lasting and info.st_mode & 0o022:
            raise LocalServerError(f"{self.path} can be written to by others: remove it, and start again")
        names = {each.name for each in self.path.iterdir()}
        if "PG_VERSION" in names:
            raise LocalServerError(f"{self.path} is a cluster that another program made: start it with that program")
        if self.lasting and names and not names & {"lock", "pgdata"}:
            raise LocalServerError(f"{self.path} holds other files: name an empty directory, or a new one")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, so that nobody else starts or stops this server. Raises HomeGoneError."""
        while True:
            try:
                file = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError as error:
                raise HomeGoneError(f"{self.path} was removed") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if same_file(file, self.path / "lock"):  # otherwise it was removed with the directory during the wait
                    yield
                    return
            finally:
                os.close(file)

    def password(self) -> str:
        """Make a new password and keep it in the passfile only."""
        password = secrets.token_urlsafe(24)
        self.write(self.passfile, f"*:*:*:{SUPERUSER}:{password}\n")
        return password

    def sockets(self, account: Account) -> Path:
        """Return the directory of the socket, created if needed; only root and the account may use it."""
        entry = self.path / "sockets"
        if len(os.fsencode(entry)) <= LONGEST_SOCKET:
            entry.mkdir(exist_ok=True)
            account.own(entry, 0o700)
            return entry
        if entry.is_symlink():
            short = entry.readlink()
            with suppress(OSError):  # something cleans /tmp: make a new one
                if short.lstat().st_uid == account.uid and not short.is_symlink():
                    return short
            entry.unlink()
        short = Path(tempfile.mkdtemp(prefix="encvec-", dir="/tmp"))  # not elsewhere: the path must be short
        account.own(short, 0o700)
        entry.symlink_to(short)
        return short

    def open_log(self) -> int:
        """Open the log for the server; one that is too large is renamed first."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LARGEST_LOG:
                self.log.replace(self.log.with_suffix(".log.1"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def listen(self) -> dict[str, Any]:
        """Return how the server listened at its last start."""
        try:
            kept = json.loads((self.path / "listen.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def keep_listen(self, **values: Any) -> None:
        """Store how the server listens, for its next start."""
        self.write(self.path / "listen.json", json.dumps(values) + "\n")

    def write(self, path: Path, text: str) -> None:
        """Write a small file that only we can read, completely or not at all."""
        file, name = tempfile.mkstemp(dir=self.path, prefix=".new-")
        try:
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def persistent(data: str | os.PathLike[str]) -> Home:
    """Return the home of a server whose data are kept."""
    return Home(Path(data).expanduser().resolve(), lasting=True)


def temporary(account: Account, share: str | None) -> Home:
    """Return the home of a server that is removed after its last user; it is the same for the same `share`."""
    parents = [Path(each).resolve() for each in (tempfile.gettempdir(), "/var/tmp", "/tmp")]  # noqa: S108
    parent = next((each for each in parents if each.is_dir() and obstacle(each, account) is None), None)
    if parent is None:
        raise LocalServerError(f"the user {account.name!r}, who runs the server, may enter none of {parents}")
    if share is None:
        return Home(Path(tempfile.mkdtemp(prefix="encvec-pg-", dir=parent)), lasting=False)
    return Home(parent / f"encvec-pg-{os.geteuid()}-{re.sub(r'[^A-Za-z0-9_-]', '-', share)}", lasting=False)
