"""The folder and the options of a `faiss:` URL."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from ...errors import UriError
from ...runtime.urls import opening_options, shown

__all__ = ["LOCK_TIMEOUT", "seconds", "split"]

LOCK_TIMEOUT = 5.0
"""Seconds to wait for another writer, unless the URL says otherwise."""
_LONGEST = 86_400
_SHAPES = "faiss:///absolute/folder, faiss:relative/folder or faiss://./relative/folder"


def split(url: str) -> tuple[Path, list[tuple[str, str]]]:
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


def seconds(value: Any) -> float:
    """Return a lock timeout. Raises UriError unless it is a number from 0 to a day."""
    try:
        timeout = float(value)
    except (TypeError, ValueError):
        timeout = -1.0
    if not 0 <= timeout <= _LONGEST:  # this refuses NaN, too
        raise UriError(f"faiss store: lock_timeout must be 0 to {_LONGEST} seconds, got {value!r}")
    return timeout
