"""A local PostgreSQL, started from an installation on this machine.

The server runs in its own session, as a user without privileges, with only the environment variables it needs, and so
without our passphrases. It listens on a unix socket, or also on loopback, and always asks for a SCRAM password. The
password is in one file that only its owner can read (libpq's `passfile`); a DSN names that file.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from . import processes
from .account import Account, choose_account
from .cluster import environment, initialise, launch
from .errors import LocalServerError, with_log
from .home import SUPERUSER, Home, HomeGoneError, persistent, temporary
from .install import Installation, find_installation, reachable
from .processes import PidFile
from .ready import answer, driver, ensure_database

__all__ = ["LocalServer"]

PASSING = ("Address already in use", "could not bind", "pre-existing shared memory block")  # may pass: try again


class LocalServer:
    """A PostgreSQL with pgvector on this machine; a context manager that starts it and stops what it started.

    With `data`, the databases are kept in that directory, and a server that already runs there is used. Without, the
    server is temporary: fast, unsafe, and removed when this process ends, however it ends. Processes that give the same
    `share` use one temporary server, which is removed with the last of them.

    With `tcp` it also listens on 127.0.0.1, at `port` or any free one. `settings` are configuration parameters for this
    start. `user` runs the server if we are root. `timeout` limits each start and stop, in seconds.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        share: str | None = None,
        tcp: bool | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        if data is not None and share is not None:
            raise LocalServerError("give either data or share: a shared server is temporary")
        self._account: Account = choose_account(user)
        self._home: Home | None = None if data is None else persistent(data)
        self._share = share
        self._tcp = tcp
        self._port = port
        self._settings = dict(settings or {})
        self._timeout = timeout
        self._lease: int | None = None
        self._guard: int | None = None
        self._started = False
        self._address: PidFile | None = None
        self._version = ""

    @property
    def home(self) -> Path:
        """Directory of the server. Raises LocalServerError before a temporary one has started."""
        if self._home is None:
            raise LocalServerError("this temporary server is not started, so it has no directory")
        return self._home.path

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.home / "server.log"

    @property
    def version(self) -> str:
        """Version of the server, such as "18.6"; before `start` only the major version, and "" if there are no data."""
        kept = self._home and self._home.pgdata / "PG_VERSION"
        return self._version or (kept.read_text(encoding="utf-8").strip() if kept and kept.exists() else "")

    @property
    def pid(self) -> int | None:
        """Process id of the running server; None if none runs."""
        found = self._home and processes.running(self._home.pgdata)
        return found.pid if found else None

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the URL of a database, without a password. Raises LocalServerError if the server has not run."""
        if self._home is not None:
            self._address = processes.running(self._home.pgdata) or self._address
        if self._home is None or self._address is None:
            where = f" in {self._home.path}" if self._home else ""
            raise LocalServerError(f"no server runs{where}")
        passfile = {"passfile": str(self._home.passfile)}
        if self._address.listens:
            place = f"127.0.0.1:{self._address.port}"
            query: dict[str, str] = passfile
        else:
            place = ""
            query = {"host": self._address.sockets, "port": str(self._address.port), **passfile}
        return f"postgresql://{SUPERUSER}@{place}/{quote(dbname, safe='')}?{urlencode(query, quote_via=quote)}"

    def ensure_database(self, name: str) -> str:
        """Create a database with pgvector if it is missing; return the version of pgvector."""
        return ensure_database(self.dsn(), self.dsn(name), name)

    def start(self) -> bool:
        """Start the server; return False if it ran already. Raises LocalServerError, or ImportError without psycopg."""
        driver()
        home = self._home = self._home or temporary(self._account, self._share)
        for _ in range(100):
            with suppress(HomeGoneError):  # the last user of a shared server has just removed it: try again
                home.make(self._account)
                with home.locked():
                    started = self._start_leased(home)
                    self._started = self._started or started
                    return started
        raise LocalServerError(f"{home.path} was removed each time before a server could start there: try again")

    def stop(self) -> bool:
        """Stop the server; return False if none ran. A shared one runs on for others; a temporary one is removed.

        Databases in `data` are kept. A second call does nothing.
        """
        home = self._home
        if home is None or not home.path.exists():
            return False
        with suppress(HomeGoneError), home.locked():
            if home.lasting:
                ran = processes.running(home.pgdata) is not None
                processes.halt(home.pgdata, self._timeout)
                return ran
            if not self._leave():
                return False
            processes.discard(home.path, self._timeout)
        if self._guard is not None:
            guard, self._guard = self._guard, None
            processes.wait_until(lambda: not processes.alive(guard), 5.0)
        if self._share is None:
            self._home = None
        self._address = None
        return True

    def kill(self) -> None:
        """Kill the server and all its children, like a crash. The data are kept for `restart`."""
        processes.kill(self.home / "pgdata")

    def restart(self) -> None:
        """Stop the server, if it runs, and start it on the same data."""
        home = self._home
        if home is None:
            raise LocalServerError("this temporary server is not started")
        with home.locked():
            processes.halt(home.pgdata, self._timeout)
            self._start(home)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started or (self._home is not None and not self._home.lasting):
            self.stop()

    def _start_leased(self, home: Home) -> bool:
        """Start the server, and its guard if it is temporary. The lock must be held."""
        if home.lasting:
            return self._start(home)
        held = self._lease is not None
        self._take_lease(home)
        try:
            return self._start(home)
        except BaseException:
            if not held and self._leave():
                processes.discard(home.path)
            raise

    def _start(self, home: Home) -> bool:
        """Start the server. The lock must be held."""
        if processes.running(home.pgdata) is not None:
            self._version = self._wait(home, None)
            return False
        installation = self._installation(home)
        if not (home.pgdata / "PG_VERSION").exists():
            initialise(home, installation, self._account)
        processes.forget_stale(home.pgdata)
        kept = home.listen()
        end = time.monotonic() + min(self._timeout, 5.0)
        while True:
            begin = home.log.stat().st_size if home.log.exists() else 0
            pid = launch(home, installation, self._account, self._tcp, self._port, self._settings)
            try:
                self._version = self._wait(home, pid, begin)
            except BaseException as error:
                self._abandon(home, pid)
                if isinstance(error, LocalServerError) and time.monotonic() < end:
                    said = home.log.read_bytes()[begin:].decode("utf-8", "replace")
                    if any(each in said for each in PASSING):
                        time.sleep(0.2)
                        continue
                home.keep_listen(**kept)  # the next start must not ask for a port that is not free
                raise
            return True

    def _installation(self, home: Home) -> Installation:
        kept = home.pgdata / "PG_VERSION"
        major = int(kept.read_text(encoding="utf-8").partition(".")[0]) if kept.exists() else None
        return reachable(find_installation(major), self._account)

    def _wait(self, home: Home, pid: int | None, begin: int = 0) -> str:
        """Wait until the server answers; return its version. `begin` is where the log of this start begins."""
        end = time.monotonic() + self._timeout
        why = "it has not begun to listen"
        while time.monotonic() < end:
            found = processes.running(home.pgdata)
            if found is None and (pid is None or not processes.alive(pid)):
                raise with_log("PostgreSQL ended while it started.", home.log, begin)
            if found is not None and found.ready:
                version, why = answer(self.dsn())
                if version is not None:
                    return version
            time.sleep(0.01)
        raise with_log(f"PostgreSQL did not answer within {self._timeout:.0f} s: {why.strip()}.", home.log, begin)

    def _abandon(self, home: Home, pid: int) -> None:
        processes.halt(home.pgdata, 5.0)
        processes.end(pid)

    def _take_lease(self, home: Home) -> None:
        """Take the lease of a temporary server; its first user starts the guard."""
        if self._lease is not None:
            return
        first = not (home.path / "lease").exists()
        self._lease = os.open(home.path / "lease", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lease, fcntl.LOCK_SH)
        if first:
            guard = Path(processes.__file__)
            self._guard = processes.launch([sys.executable, "-I", "-S", guard, home.path], env=environment())

    def _leave(self) -> bool:
        """Give the lease back; return True if this was the last user."""
        if self._lease is None:
            return True
        try:
            fcntl.flock(self._lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            return False
        finally:
            os.close(self._lease)
            self._lease = None
