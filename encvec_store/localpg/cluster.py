"""Makes a database cluster and starts the server on it.

The server gets only the environment variables it needs, and so never a passphrase of ours.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from . import processes
from .account import Account
from .errors import LocalServerError
from .home import SUPERUSER, Home
from .install import Installation

__all__ = ["environment", "initialise", "launch"]

ALWAYS = {
    "dynamic_shared_memory_type": "mmap",  # containers give /dev/shm 64 MB
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%m [%p] ",
    "password_encryption": "scram-sha-256",
}
FAST = {  # loses data if the machine goes down: only for data that nobody keeps
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "shared_buffers": "256MB",
}
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")


def initialise(home: Home, installation: Installation, account: Account) -> None:
    """Run initdb in a folder beside and move the result, so that it is never half there. Raises LocalServerError."""
    fresh, secret = home.path / "pgdata.new", home.path / "initial"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    account.own(fresh, 0o700)
    command: list[str | Path] = [installation.prefix / "bin" / "initdb", "-D", fresh, "-U", SUPERUSER]
    command += ["--encoding=UTF8", "--no-locale", "--auth=scram-sha-256", f"--pwfile={secret}"]
    command += [] if home.lasting else ["--no-sync"]
    try:
        home.write(secret, home.password() + "\n")
        account.own(secret, 0o600)
        done = subprocess.run(  # noqa: S603
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=environment(),
            check=False,
            **account.options,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalServerError(f"cannot run initdb as the user {account.name!r}: {error}") from error
    finally:
        secret.unlink(missing_ok=True)
    if done.returncode:
        raise LocalServerError(f"initdb failed ({done.returncode}): {done.stderr.strip() or done.stdout.strip()}")
    fresh.rename(home.pgdata)


def launch(
    home: Home,
    installation: Installation,
    account: Account,
    tcp: bool | None,
    port: int | None,
    settings: Mapping[str, str],
) -> int:
    """Start the server without waiting for it; returns its process id. Raises LocalServerError.

    `tcp` and `port` are those of the last start if they are None.
    """
    kept = home.listen()
    if tcp is None:
        tcp = port is not None or bool(kept.get("tcp"))
    if port is None:
        port = _free_port(kept.get("port")) if tcp else 5432
    home.keep_listen(tcp=tcp, port=port)
    values = {
        **ALWAYS,
        **({} if home.lasting else FAST),
        "listen_addresses": "127.0.0.1" if tcp else "",
        "port": str(port),
        "unix_socket_directories": str(home.sockets(account)),
        **settings,
    }
    command: list[str | Path] = [installation.prefix / "bin" / "postgres", "-D", home.pgdata]
    command += [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
    log = home.open_log()
    try:
        return processes.launch(command, output=log, env=environment(), **account.options)
    except (OSError, subprocess.SubprocessError) as error:
        raise LocalServerError(f"cannot run the server as the user {account.name!r}: {error}") from error
    finally:
        os.close(log)


def environment() -> dict[str, str]:
    """Return the environment for the programs of PostgreSQL."""
    return {name: value for name in ENVIRONMENT if (value := os.environ.get(name)) is not None} | {"LC_ALL": "C"}


def _free_port(kept: object) -> int:
    """Return the port of the last start if it is still free, otherwise any free one."""
    for wanted in (kept, 0):
        if isinstance(wanted, int):
            with socket.socket() as probe, suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections just closed don't matter
                probe.bind(("127.0.0.1", wanted))
                return int(probe.getsockname()[1])
    raise LocalServerError("no port is free on 127.0.0.1")
