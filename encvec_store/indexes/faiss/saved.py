"""What is known of an index on disk: the state it belongs to, and what is written of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...storage.protocol import Changes, Records
from .ann import AnnIndex
from .envelope_file import EnvelopeFile
from .partition import Partition
from .row_runs import RowRuns

__all__ = ["Loaded", "SavedPartition", "Saving", "State"]


@dataclass(frozen=True)
class State:
    """A state of the records; see `storage.protocol.Changes`."""

    generation: int = -1
    """-1 if the index lacked some rows even then."""
    content: int = 0
    stamp: int = 0
    index_dim: int = 0

    def changes(self, records: Records, *, stamped: bool = False) -> Changes | None:
        """Return what changed since; `stamped` if the state was kept on disk."""
        return records.changes(self.generation, self.content, stamp=self.stamp if stamped else None)

    def outdated(self, records: Records) -> bool:
        """Return True if all content was replaced since."""
        changes = self.changes(records)
        return changes is not None and changes.content != self.content


@dataclass
class Loaded:
    """An index that was loaded, the state it belongs to, and what changed since."""

    partitions: dict[int, Partition]
    state: State
    changes: Changes | None


@dataclass
class SavedPartition:
    """A copy of what a partition was when a save began."""

    source: Partition
    ann: AnnIndex
    rows: RowRuns
    live: bytes
    file: EnvelopeFile | None
    entry: dict[str, Any]


@dataclass
class Saving:
    """A save that has begun."""

    document: dict[str, Any]
    partitions: dict[int, SavedPartition]
