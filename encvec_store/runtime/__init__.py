"""What the process and the machine give: threads and event loops, GPUs, installed packages."""

from __future__ import annotations

from . import concurrency, forks, gpus, plugins, urls

__all__ = ["concurrency", "forks", "gpus", "plugins", "urls"]
