"""Our errors as SQLAlchemy lets them through: wrapped in its own they would show a statement's parameters."""

from __future__ import annotations

from sqlalchemy.exc import DontWrapMixin

__all__ = ["unwrapped"]

_kinds: dict[type[Exception], type[Exception]] = {}


def unwrapped(error: Exception) -> Exception:
    """Return an error of the same kind and message that SQLAlchemy does not wrap."""
    kind = type(error)
    if kind not in _kinds:
        _kinds[kind] = type(kind.__name__, (kind, DontWrapMixin), {"__module__": kind.__module__})
    return _kinds[kind](*error.args)
