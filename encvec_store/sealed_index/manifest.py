"""The sealed manifest: which segments make up the index of one key version, and which writes they cover.

It is part 0 of the blob `index.<key version>`, sealed like a segment of one part. Whoever stores a new one names the
stored bytes of the one before (`Records.keep(expect=...)`). If an older manifest is put back it still opens, and its
`number` is lower. That is harmless: rows are never reused, so more of them are in no graph yet.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from ..data.metrics import METRICS
from ..sealing.config import MAX_DIM
from ..sealing.keyring import INDEX, Keyring
from ..storage.protocol import Blob, Followed
from .blocks import Blocks
from .segments import BlobReader, Segment

__all__ = ["Manifest", "StoredGraph", "moment_of", "name_of", "read", "seal"]

log = logging.getLogger("encvec_store")

FORMAT = 3
_STEP = 4096
"""The content is padded with blanks to a multiple of this, so that its size hides the digits of its numbers."""
_KIND = re.compile(r"[a-z][a-z0-9_]{0,15}", re.ASCII)


def name_of(version: int) -> str:
    """Return the name of the blob that holds the manifest of a key version."""
    return f"{INDEX}.{version}"


@dataclass(frozen=True)
class StoredGraph:
    """One graph and what it is stored as. Raises ValueError if the fields do not fit together."""

    kind: str
    codes: tuple[Segment, ...]
    """Row numbers and codes, in the order they were written."""
    structure: Segment
    """Everything else of the graph."""
    count: int
    """The first `count` rows of the codes are in the graph."""
    blocks: Blocks | None = None
    """Codes that are fetched when a search needs them. The segments of `codes` then have row numbers only."""

    def __post_init__(self) -> None:
        if type(self.kind) is not str or not _KIND.fullmatch(self.kind):
            raise ValueError("a graph must have a kind")
        if type(self.count) is not int or not 0 <= self.count <= sum(codes.count for codes in self.codes):
            raise ValueError("a graph must have codes for each of its rows")
        if self.blocks is not None and self.blocks.count != self.count:
            raise ValueError("a graph must have a code in its blocks for each of its rows")

    @property
    def segments(self) -> tuple[Segment | Blocks, ...]:
        """All segments of the graph."""
        segments = (*self.codes, self.structure)
        return segments if self.blocks is None else (*segments, self.blocks)


@dataclass(frozen=True)
class Manifest:
    """What is stored of one key version's index. Raises ValueError if the fields do not fit together."""

    version: int
    """The key version of all its rows and segments."""
    number: int
    """Grows by one with every manifest of the key version."""
    dim: int
    metric: str
    generation: int
    """The segments cover the writes up to this generation of the collection."""
    content: int
    """The collection's content number at that generation."""
    stamp: int
    """The collection's stamp at that generation."""
    parts: tuple[StoredGraph, ...]
    columns: tuple[Segment, ...] = ()
    """Columns of metadata: each row of the parts is in one of them, unless its payload cannot be opened."""
    complete: bool = False
    """True if at that generation each row was in a part of some key version, and no row of a part was gone."""

    def __post_init__(self) -> None:
        limits = {
            "version": (1, 2**32 - 1),
            "number": (1, 2**63 - 1),
            "dim": (1, MAX_DIM),
            "generation": (0, 2**63 - 1),
            "content": (0, 2**63 - 1),
            "stamp": (-(2**63), 2**63 - 1),
        }
        for field, (least, most) in limits.items():
            value = getattr(self, field)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{field} must be an integer from {least} to {most}")
        if type(self.complete) is not bool:
            raise ValueError("complete must be true or false")
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}")
        names = [segment.name for segment in self.segments]
        if len(set(names)) != len(names) or any(not name.startswith(f"{name_of(self.version)}.") for name in names):
            raise ValueError("segments must have distinct names, all of the manifest's key version")

    @property
    def count(self) -> int:
        """Vectors in all graphs."""
        return sum(part.count for part in self.parts)

    @property
    def segments(self) -> tuple[Segment | Blocks, ...]:
        """All segments of all graphs, and of columns."""
        return (*(segment for part in self.parts for segment in part.segments), *self.columns)


def moment_of(records: Followed, manifests: Sequence[Manifest], held: int) -> tuple[int, int, int] | None:
    """Return generation, content and stamp at which what was loaded is all there is; None if it must be compared.

    Args:
        records: that it is of.
        manifests: those that were loaded, one for each key version.
        held: rows that were loaded. They are too few if the manifest of a key version could not be read.
    """
    moments = {(each.generation, each.content, each.stamp, each.complete) for each in manifests}
    if len(moments) != 1:
        return None
    ((generation, content, stamp, complete),) = moments
    # after any write `changes` would list all rows, which the caller is about to do: so the numbers are asked first
    if not complete or (generation, held) != (records.generation(), records.count()):
        return None
    return None if records.changes(generation, content, stamp=stamp) else (generation, content, stamp)


def seal(keyring: Keyring, manifest: Manifest) -> Blob:
    """Seal a manifest under its key version. Raises KeyUnavailableError."""
    fields = vars(manifest) | {
        "format": FORMAT,
        "parts": [_listed(part) for part in manifest.parts],
        "columns": [list(astuple(segment)) for segment in manifest.columns],
    }
    content = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    content = content.ljust(-(-len(content) // _STEP) * _STEP)
    return keyring.seal_segment(manifest.version, name_of(manifest.version), 0, 1, 0, content)


def read(records: BlobReader, keyring: Keyring, version: int) -> tuple[Manifest, bytes] | None:
    """Return the manifest of a key version, and its stored bytes for `Records.keep(expect=...)`.

    Returns None if there is none, and also, after a line in the log, if it is in a format that this version does not
    know. Then too the index is built anew. `expect` must still name what is stored: `records.blob(name_of(version))`.

    Raises AuthenticationError, KeyUnavailableError.
    """
    stored = records.blob(name_of(version))
    if stored is None:
        return None
    content = keyring.open_segment(name_of(version), 0, 1, 0, stored).tobytes()
    try:
        return _parsed(content, version), stored
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # not by us, or not by this version
        log.warning("the sealed index of key version %d has a format that this version does not know", version)
        return None


def _parsed(content: bytes, version: int) -> Manifest:
    fields = json.loads(content)
    if fields.pop("format") != FORMAT:
        raise ValueError("another format")
    columns = tuple(Segment(*segment) for segment in fields["columns"])
    manifest = Manifest(**fields | {"parts": tuple(map(_graph, fields["parts"])), "columns": columns})
    if manifest.version != version:
        raise ValueError("the manifest of another key version")
    return manifest


def _listed(graph: StoredGraph) -> dict[str, Any]:
    codes = [list(astuple(segment)) for segment in graph.codes]
    blocks = None if graph.blocks is None else list(astuple(graph.blocks))
    return vars(graph) | {"codes": codes, "structure": list(astuple(graph.structure)), "blocks": blocks}


def _graph(fields: dict[str, Any]) -> StoredGraph:
    codes = tuple(Segment(*segment) for segment in fields["codes"])
    blocks = None if fields["blocks"] is None else Blocks(*fields["blocks"])
    return StoredGraph(**fields | {"codes": codes, "structure": Segment(*fields["structure"]), "blocks": blocks})
