"""Schemes: how points become index vectors."""

from __future__ import annotations

from .base import KeyedScheme, Scheme
from .registry import SCHEMES, scheme

__all__ = ["SCHEMES", "KeyedScheme", "Scheme", "scheme"]
