"""Which user runs the server, and what that user can reach.

PostgreSQL refuses to run as root. Root hands it to a user that exists already: none is created, and no directory
of anybody else's is opened up for it.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import LocalServerError

__all__ = ["Account", "choose_account", "obstacle"]

PREFERRED = ("postgres", "nobody", "daemon", "www-data", "games")


@dataclass(frozen=True)
class Account:
    """The user that runs the server; `switch` where it is another one than ours."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def options(self) -> dict[str, Any]:
        """What `subprocess` takes to run a program as this user, and in no other group."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def own(self, path: Path, mode: int) -> None:
        """Give a file or directory of ours to this user."""
        if self.switch:
            os.chown(path, self.uid, self.gid)
        path.chmod(mode)


def choose_account(name: str | None = None) -> Account:
    """Return our own user, or one without privileges where we are root. Raises LocalServerError."""
    uid = os.geteuid()
    if uid != 0:
        own = _name(uid)
        if name is not None and name != own:
            raise LocalServerError(f"only root can run a server as {name!r}; this is {own!r}")
        return Account(own, uid, os.getegid(), switch=False)
    for entry in _candidates(name):
        if entry.pw_uid != 0 and entry.pw_gid != 0:
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switch=True)
    wanted = f"the user {name!r}" if name else "a user without privileges"
    raise LocalServerError(f"PostgreSQL does not run as root, and {wanted} does not exist here: name another one")


def _candidates(name: str | None) -> Iterator[pwd.struct_passwd]:
    for each in (name,) if name else PREFERRED:
        try:
            yield pwd.getpwnam(each)
        except KeyError:
            continue
    if name is None:
        yield from pwd.getpwall()


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # an arbitrary uid in a container
        return str(uid)


def obstacle(path: Path, account: Account) -> Path | None:
    """Return the first directory on the way to a path, or the path itself, that the account may not enter.

    Looks at the permission bits only: what an access list adds or takes away is not seen.
    """
    if not account.switch:
        return None
    whole = path.resolve()
    for each in [*reversed(whole.parents), whole]:
        try:
            info = each.stat()
        except OSError:
            return each
        if info.st_uid == account.uid:
            allowed = info.st_mode & stat.S_IXUSR
        elif info.st_gid == account.gid:
            allowed = info.st_mode & stat.S_IXGRP
        else:
            allowed = info.st_mode & stat.S_IXOTH
        if not allowed:
            return each
    return None
