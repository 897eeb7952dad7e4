"""Helpers for threads, event loops, forks, GPUs and installed packages."""

from __future__ import annotations

from . import concurrency, forks, gpus, plugins, urls

__all__ = ["concurrency", "forks", "gpus", "plugins", "urls"]
