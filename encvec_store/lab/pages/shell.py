"""An HTML document that loads nothing from anywhere and runs no script: its own policy forbids both."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from html import escape
from pathlib import Path

from .style import CSS

__all__ = ["document", "write"]


def document(title: str, parts: Iterable[str]) -> str:
    """Return the page of some HTML parts; empty ones are left out. What stands in the parts must be escaped."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{escape(title)}</title><style>{CSS}</style></head><body><main>'
        + "\n".join(part for part in parts if part)
        + "</main></body></html>\n"
    )


def write(path: Path, content: str) -> None:
    """Write a page to a file: whole, or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode())
        os.chmod(name, 0o644)  # a report is for others to read; mkstemp's 0600 is for secrets
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
