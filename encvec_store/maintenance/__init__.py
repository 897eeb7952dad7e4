"""Tasks on a whole collection: calibrate, fit, rewrite, verify, estimate recall."""

from __future__ import annotations

from .fitting import fitted, grown

__all__ = ["fitted", "grown"]
