"""Which user runs the server, and what that user can reach.

PostgreSQL refuses to run as root. Root runs it as a user that exists already: no user is created, and the permissions
of other directories are not changed.
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
    """The user that runs the server; `switch` is True if it is not our own."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for `subprocess` to run a program as this user, in no other group."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def own(self, path: Path, mode: int) -> None:
        """Give a file or directory of ours to this user."""
        if self.switch:
            os.chown(path, self.uid, self.gid)
        path.chmod(mode)


def choose_account(name: str | None = None) -> Account:
    """Return our own user, or one without privileges if we are root. Raises LocalServerError."""
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
    raise LocalServerError(f"PostgreSQL does not run as root, and {wanted} does not exist here: name another user")


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

    It looks at the permission bits only, not at access control lists.
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
