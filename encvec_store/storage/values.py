"""Checks of values read from a store: whoever can write to it can put anything there."""

from __future__ import annotations

from ..errors import StoreUnreachableError

__all__ = ["COUNT", "WIDTH", "integer", "text"]

COUNT = 1 << 62
"""No count, generation or row number of ours is larger."""
WIDTH = 1 << 20
"""No index vector has more coordinates, no envelope more bytes."""


def integer(value: object, what: str, least: int = 0, most: int = COUNT) -> int:
    """Return an integer from the store. Raises StoreUnreachableError if it is something else or out of range."""
    if type(value) is not int or not least <= value <= most:
        raise StoreUnreachableError(f"the store is damaged: {what} must be an integer from {least} to {most}")
    return value


def text(value: object, what: str) -> str:
    """Return text from the store. Raises StoreUnreachableError if it is something else."""
    if type(value) is not str:
        raise StoreUnreachableError(f"the store is damaged: {what} must be text, got {type(value).__name__}")
    return value
