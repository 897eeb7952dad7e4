"""Index what a command loads: step by step while it loads, and whole at its end."""

from __future__ import annotations

import time

from ..collection import Collection
from ..errors import EncvecError
from ..low_level import records
from .output import note, progress

__all__ = ["Building", "finish"]

_STEP = 20_000
_SHARE = 0.25
"""More new records than this share of the graph are put into the graph itself, else into a young one beside it."""
_LITTLE = 5_000
_PATIENCE = 150
"""Seconds. A process that was killed while it built keeps others from building for two minutes."""


class Building:
    """Builds the index of a sealed collection while records are loaded, so that little is left to do at the end.

    Each step puts the records since the last one into the graph. It is due when they are a quarter of what the graph
    holds: so no record enters a graph twice.

    Args:
        wanted: False to build nothing.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted, self._indexed, self._waiting = wanted, -1, 0

    def wrote(self, target: Collection, count: int) -> None:
        """Take note of a write, and build if it is time. A failure loses no records."""
        if not self._wanted or not count:
            return
        if self._indexed < 0:
            self._wanted = _is_sealed(target)
            self._indexed = target.count() - count
        self._waiting += count
        if self._wanted and self._waiting > max(_STEP, _SHARE * self._indexed):
            self._indexed, self._waiting = self._indexed + self._waiting, 0
            _maintained(target, "building the index")


def finish(target: Collection, *, index: bool) -> None:
    """Do the maintenance that is due after a load, and build the index if asked. A failure loses no records."""
    sealed = _is_sealed(target)
    if sealed and not index:
        return
    _maintained(target, "building the index" if sealed else "encrypting anew")
    if sealed:
        _wait_for_others(target)
    if index:
        with progress("building the index"):
            target.flush()


def _is_sealed(target: Collection) -> bool:
    return bool(target.stats()["scheme"]["name"] == "sealed")


def _maintained(target: Collection, label: str) -> None:
    try:
        with progress(label, target.count()) as advance:
            target.maintain(progress=advance)
    except EncvecError as error:
        note(f"not done now: {error}; `encvec maintain` tries it again")


def _wait_for_others(target: Collection) -> None:
    """Wait while another process has the right to build, and build what it leaves."""
    if not _is_built_elsewhere(target):
        return
    with progress("waiting for another process that builds the index"):
        for _ in range(_PATIENCE):
            time.sleep(1)
            _maintained(target, "building the index")
            if not _is_built_elsewhere(target):
                return
    note("another process still builds the index; if it ends before it is done, run `encvec maintain`")


def _is_built_elsewhere(target: Collection) -> bool:
    left = target.count() - target.stats()["sealed_index"]["stored_rows"]
    return left > _LITTLE and any(name.endswith(".lease") for name in records(target).blobs("index."))
