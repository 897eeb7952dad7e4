"""Errors that SQLAlchemy does not wrap: its wrapper would print the parameters of the statement."""

from __future__ import annotations

from sqlalchemy.exc import DontWrapMixin

__all__ = ["unwrapped"]

_kinds: dict[type[Exception], type[Exception]] = {}


def unwrapped(error: Exception) -> Exception:
    """Return an error of the same kind, with the same message, that SQLAlchemy raises as it is."""
    kind = type(error)
    if isinstance(error, DontWrapMixin):
        return error
    if kind not in _kinds:
        _kinds[kind] = type(kind.__name__, (kind, DontWrapMixin), {"__module__": kind.__module__})
    return _kinds[kind](*error.args)
