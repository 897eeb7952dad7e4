"""Patterns of `like` and `ilike`: % is any text, _ any one character, and a backslash takes the next one as it is."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

__all__ = ["PatternError", "like"]


class PatternError(ValueError):
    """The pattern is malformed."""


@functools.lru_cache(64)
def like(pattern: str, *, folded: bool = False) -> Callable[[str], bool]:
    """Return the function that says whether a whole text fits a pattern. Raises PatternError.

    Case matters; if `folded`, pattern and text are made lower case first.

    Parts between % have fixed lengths, and each is looked for once, from the left. So no pattern takes long.
    """
    if folded:
        fits_lower = like(pattern.lower())
        return lambda text: fits_lower(text.lower())
    parts, at = [""], 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
            if at == len(pattern):
                raise PatternError("like must not end in a backslash: write two for a backslash itself")
            parts[-1] += re.escape(pattern[at])
        elif character == "%":
            parts.append("")
        else:
            parts[-1] += "." if character == "_" else re.escape(character)
        at += 1
    first, *others = (re.compile(part, re.DOTALL) for part in parts)
    if not others:
        return lambda text: first.fullmatch(text) is not None
    *middle, last = others
    end = re.compile(f"(?:{last.pattern})\\Z", re.DOTALL)

    def fits(text: str) -> bool:
        found = first.match(text)
        for part in middle:
            found = found and part.search(text, found.end())
        return found is not None and end.search(text, found.end()) is not None

    return fits
