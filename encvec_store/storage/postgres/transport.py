"""What protects a password and the answers on the way to a server on another machine.

Without `sslmode=verify-full` or verify-ca, anyone on the way can pretend to be the server. With `require_auth` (libpq
16 or later), such a server learns no password: SCRAM proves it and does not send it (RFC 5802).
"""

from __future__ import annotations

import logging
import re
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

__all__ = ["parameters_for", "refused_method"]

log = logging.getLogger("encvec_store")
_LOCAL = re.compile(r"|[/@].*|localhost|127(\.\d+){3}|::1")
_VERIFYING = ("verify-ca", "verify-full")
_METHOD = "scram-sha-256"
_REQUIRES = 160_000
"""Version of libpq that knows `require_auth`."""
_told: set[str] = set()


def parameters_for(target: str, place: str) -> dict[str, Any]:
    """Return the parameters of a URL for `psycopg.connect`, made safer for a server on another machine.

    Args:
        target: the URL, with its secrets.
        place: the same without, for the log: it is told once if nothing proves who the server is.
    """
    parameters: dict[str, Any] = conninfo_to_dict(target)
    given = {option.keyword.decode(): (option.val or b"").decode() for option in psycopg.pq.Conninfo.get_defaults()}
    given.update({name: str(value) for name, value in parameters.items()})  # over the environment
    hosts = (given.get("hostaddr") or given.get("host") or "").split(",")
    if all(_LOCAL.fullmatch(host) for host in hosts):
        return parameters
    verified = given.get("sslmode") in _VERIFYING or given.get("sslrootcert") == "system"
    if not verified and place not in _told:
        _told.add(place)
        log.warning(
            "the connection to %s does not check who the server is: add sslmode=verify-full and sslrootcert=... to the"
            " URL",
            place,
        )
    if psycopg.pq.version() >= _REQUIRES and not given.get("require_auth") and "sslcert" not in parameters:
        parameters["require_auth"] = _METHOD
    return parameters


def refused_method(error: psycopg.Error) -> str:
    """Return what to do if the server asks for another proof than `require_auth` allows; "" if it is not that."""
    if not re.search("method requirement|did not complete authentication", str(error)):
        return ""
    return (
        f"; of a server on another machine, {_METHOD} is asked: let the server use it, or name its method in the URL,"
        " as in require_auth=password"
    )
