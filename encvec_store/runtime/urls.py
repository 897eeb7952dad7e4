"""URLs that may hold a password: read strictly, and shown without it.

What does not parse is never shown: a password with an unescaped character makes every part look like another. Percent-
encoding is that of RFC 3986.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from ..errors import UriError

__all__ = [
    "OPENING",
    "POSTGRESQL",
    "Url",
    "as_url",
    "database_of_store",
    "folder_of_store",
    "holds_password",
    "opening_options",
    "parse",
    "scrubbed",
    "shown",
]

OPENING = ("index_memory", "reads", "threat", "cache", "names")
"""Options of `connect` that a URL of any store may have. The store itself does not know them."""

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<user>[^@:/?#\[\]\s]*)(?::(?P<password>[^@/?#\[\]\s]*))?@)?"
    r"(?P<hosts>[^@/?#\s]*)(?P<path>/[^@?#]*)?(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]*\]|[^:,\[\]]*)(?::[0-9]*)?")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SECRET = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)
"""Parts of names of parameters that are not shown, nor are files of that kind."""
_PAIRS = re.compile(r"(?:\s*\w+\s*=\s*(?:'(?:[^'\\]|\\.)*'|\S*))+\s*")
"""libpq's other form: host=... password=..."""
_LOCAL = re.compile(r"(?:file|faiss):(?!//[^/.])")
"""URLs of files, which hold no password."""
_PATH = re.compile(r"[/~]|\.{1,2}(?:[/\\]|$)|[A-Za-z]:[/\\]")
_SHAPES = "faiss:///absolute/folder, faiss:relative/folder or faiss://./relative/folder"
POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
"""Schemes of a store on PostgreSQL."""
_ADVICE = (
    "the characters @ : / ? # [ ] % and blanks in a user name, a password or a parameter must be percent-encoded"
    " (urllib.parse.quote(password, safe='') does it), and a port must be a number"
)


@dataclass(frozen=True)
class Url:
    """The parts of `scheme://user:password@hosts/path?query`, still encoded; the scheme in lower case."""

    scheme: str
    user: str | None
    password: str | None = field(repr=False)
    hosts: str
    path: str
    query: tuple[tuple[str, str], ...] = field(repr=False)
    """Names and values, decoded."""

    def whole(self, scheme: str | None = None) -> str:
        """Return the URL with all its secrets, under another scheme if one is given."""
        user = "" if self.user is None else self.user
        word = "" if self.password is None else f":{self.password}"
        return self._joined(scheme, f"{user}{word}@" if user or word else "", self.query)

    def shown(self, scheme: str | None = None) -> str:
        """Return the URL without its secrets."""
        user = f"{self.user}@" if self.user else ""
        return self._joined(scheme, user, [item for item in self.query if not _SECRET.search(item[0])])

    def _joined(self, scheme: str | None, user: str, query: tuple[tuple[str, str], ...] | list[tuple[str, str]]) -> str:
        # by hand: urlunsplit drops the slashes where there is no host
        tail = f"?{urlencode(query, quote_via=quote, safe='/')}" if query else ""
        return f"{scheme or self.scheme}://{user}{self.hosts}{self.path}{tail}"


def parse(url: str) -> Url:
    """Take a URL apart.

    Raises:
        ValueError: a part is not encoded as it must be; says how, and nothing of the URL.
    """
    found = _URL.fullmatch(url)
    if found is None or _ESCAPE.search(url) or "\0" in unquote(url):
        raise ValueError(_ADVICE)
    user, password, hosts, path, query = found.group("user", "password", "hosts", "path", "query")
    if not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise ValueError(_ADVICE)
    items = [item.partition("=") for item in (query or "").split("&") if item]
    # u:1?b=c@host may be a password with a question mark
    if any(not sign or "@" in name or ("@" in value and user is None and ":" in hosts) for name, sign, value in items):
        raise ValueError(_ADVICE)
    values = tuple((unquote(name), unquote(value)) for name, _, value in items)  # a plus is no space, as in libpq
    return Url(found["scheme"].lower(), user, password, hosts, path or "", values)


def database_of_store(url: str, known: Collection[str]) -> tuple[str, str]:
    """Take the URL of a store on PostgreSQL apart: that of its database, with its secrets, and the schema it names.

    Args:
        url: of the store.
        known: the parameters that libpq knows. Others are the store's, and left out.

    Raises:
        ValueError: as `parse`.
    """
    read = parse(url)
    kept = tuple((name, value) for name, value in read.query if name in known)
    return replace(read, query=kept).whole("postgresql"), dict(read.query).get("schema", "encvec")


def as_url(place: str | os.PathLike[str]) -> str:
    """Return the URL of a place: a path names the folder of a `faiss:` store, and anything else is returned as it is.

    Any `Path` is a path. A string is one if it begins with "/", "./", "../", "~" or a drive, or is "." or "..". Other
    strings without a scheme are not: a mistyped URL, or a password in the wrong place, must not name a folder.
    """
    if not isinstance(place, os.PathLike) and not (isinstance(place, str) and _PATH.match(place)):
        return place  # what is no URL is refused where it is looked up, with the URLs that there are
    try:
        folder = Path(place).expanduser().absolute().as_posix()
    except (RuntimeError, TypeError):  # TypeError: a path of bytes
        raise UriError("a store's path must be of text, and its home directory must be known") from None
    return f"faiss://{quote(folder if folder.startswith('/') else '/' + folder)}"


def folder_of_store(url: str) -> tuple[Path, list[tuple[str, str]]]:
    """Split a URL into its folder and the store's own options, as (name, value) texts.

    Raises:
        UriError: the URL is no `faiss:` URL, has no folder, or gives an option twice.
    """
    scheme, _, rest = opening_options(url)[0].partition(":")
    if scheme != "faiss":
        raise UriError(f"the URL must begin with 'faiss:', got {shown(url)!r}; write {_SHAPES}")
    place, _, query = rest.partition("?")
    folder = unquote(place)
    if folder.startswith("//"):
        folder = folder[2:]
        if not folder.startswith(("/", "./", "../", "~")) and folder not in (".", ".."):
            raise UriError(f"{shown(url)!r}: a name after '//' would be a host, and there is none; write {_SHAPES}")
    if re.match(r"/[A-Za-z]:(/|$)", folder):
        folder = folder[1:]  # faiss:///C:/data
    if not folder or "\0" in folder:
        raise UriError(f"{shown(url)!r} names no folder; write {_SHAPES}")
    options = parse_qsl(query, keep_blank_values=True)
    if len({name for name, _ in options}) < len(options):
        raise UriError(f"{shown(url)!r} gives an option twice")
    try:
        return Path(folder).expanduser(), options
    except RuntimeError:
        raise UriError(f"{shown(url)!r}: the home directory that it names is not known") from None


def opening_options(url: str) -> tuple[str, dict[str, Any]]:
    """Take the options `OPENING` out of a store's URL. Returns the URL without them, and their values.

    Raises UriError if one is given twice.
    """
    place, sign, query = url.partition("?") if isinstance(url, str) else (url, "", "")  # others are refused later
    if not sign or ("@" in query and not _LOCAL.match(url)):  # what looks like a query may be part of a password
        return url, {}
    found: dict[str, Any] = {}
    kept = []
    for item in query.split("&"):
        name, _, value = item.partition("=")
        if name not in OPENING:
            kept.append(item)
        elif name in found:
            raise UriError(f"the store URL gives {name} twice")
        else:
            value = unquote(value)
            found[name] = int(value) if name == "index_memory" and re.fullmatch("[0-9]{1,18}", value) else value
    return (f"{place}?{'&'.join(kept)}" if kept else place), found


def shown(place: str) -> str:
    """Return a URL, connection string or path as messages may show it: without secrets, or not at all."""
    if place.startswith("store:"):  # of a keyset
        return f"store:{shown(place.removeprefix('store:'))}"
    if "://" in place and not _LOCAL.match(place):
        try:
            return parse(place).shown()
        except ValueError:
            return "a URL that cannot be read"
    return "a connection string" if _PAIRS.fullmatch(place) else place


def holds_password(place: str) -> bool:
    """Say whether a URL or connection string holds a secret, or may hold one because it cannot be read."""
    if _LOCAL.match(place):
        return False
    if "://" in place:
        try:
            url = parse(place)
        except ValueError:
            return "@" in place or _SECRET.search(place.partition("?")[2]) is not None
        return url.password is not None or any(_SECRET.search(name) and not _is_file(name) for name, _ in url.query)
    return any(_SECRET.search(name) and not _is_file(name) for name in re.findall(r"(\w+)\s*=", place))


def scrubbed(text: str) -> str:
    """Return a text without what may be a password in it: the last resort for the words of others."""
    text = re.sub(r"(?i)\b(\w*(?:password|secret|token)\w*\s*=\s*)('(?:[^'\\]|\\.)*'|[^\n]*)", r"\1***", text)
    return re.sub(r"(?<=://)([^\s@:/?#]*):[^\n]*@", r"\1:***@", text)


def _is_file(name: str) -> bool:
    return name.lower() in ("passfile", "sslkey")
