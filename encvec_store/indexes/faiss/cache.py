"""The index of one collection on disk: save it, load what is provably ours.

`manifest.json` is written last, by an atomic rename, and names every other file with the SHA-256 of each of its
pieces; its tag says that we wrote it. FAISS parses a piece only if it has the hash of a manifest with our tag: parsing
a forged index would be handing over the process. Envelopes have no hash there: each is authenticated when it is
opened.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...data.arrays import Bytes, Rows
from ...storage.protocol import Changes, CollectionSpec
from ...storage.sqlite.files import check_hashed, read_hashed, reading, replace_durably, sync, write_hashed
from ..protocol import CacheAuthenticator
from .ann import VERSION, AnnIndex
from .envelope_file import EnvelopeFile, write_envelopes
from .locks import FileLock
from .options import FaissOptions
from .partition import Partition
from .row_runs import RowRuns

__all__ = ["Cache", "State"]

FORMAT = 3
"""1 had one hash for each file. 2 did not say to which content it belonged."""

_MANIFEST = "manifest.json"
_LOCK = "writer.lock"
_TRIES = 3
_STATE = ("generation", "content", "stamp", "index_dim")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError)
_ROWS_AT_ONCE = 100_000
_log = logging.getLogger("encvec_store")


@dataclass(frozen=True)
class State:
    """What an index knows of the records; see `storage.protocol.Changes`."""

    generation: int = -1
    """-1 where even then some rows were not in it."""
    content: int = 0
    stamp: int = 0
    index_dim: int = 0


@dataclass
class Loaded:
    """What a cache held: the index as of a state, and what changed since."""

    partitions: dict[int, Partition]
    state: State
    changes: Changes | None


@dataclass
class _SavedPartition:
    """A partition while it is being saved: what stood still at one moment."""

    source: Partition
    ann: AnnIndex
    rows: RowRuns
    live: bytes
    file: EnvelopeFile | None
    entry: dict[str, Any]


@dataclass
class Saving:
    """A save that was begun."""

    document: dict[str, Any]
    partitions: dict[int, _SavedPartition]


class Cache:
    """A folder of files that can all be made again from the records. Nothing in it is trusted unseen."""

    def __init__(self, folder: Path, spec: CollectionSpec, options: FaissOptions, *, read_only: bool = False) -> None:
        self.folder = folder
        self._read_only = read_only
        self.authenticator: CacheAuthenticator | None = None
        self._spec, self._options = spec, options
        self._lock = FileLock(folder / _LOCK)
        self._ours: bytes | None = None
        """The manifest that we loaded or saved last: our ordinals continue those of its files."""

    def load(self, since: Callable[[State], Changes | None]) -> Loaded | None:
        """Return the saved index, or None where there is none that is whole, ours and of this content.

        Raises nothing but what `since` raises: it says what changed since a state.
        """
        if self.authenticator is None:
            return None
        for _ in range(_TRIES):
            text = self._read_manifest()
            if text is None:
                return None
            try:
                loaded = self._of_manifest(text, since)
            except _DAMAGE as error:
                if self._read_manifest() != text:
                    continue  # somebody saved meanwhile, and removed the files we were reading
                name, why = self._spec.name, f"{type(error).__name__}: {error}"
                _log.warning("the cached index of collection %r is not used, it will be rebuilt: %s", name, why)
                return None
            if loaded is None:
                return None
            self._ours = text
            return loaded
        return None

    def begin(self, partitions: dict[int, Partition], state: State) -> Saving | None:
        """Write the indexes, while nothing may change. None where that cannot be: another process saves, say."""
        if self.authenticator is None or self._read_only:
            return None
        try:
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            if not self._lock.acquire():
                _log.info("collection %r: another process saves the index", self._spec.name)
                return None
            if self._read_manifest() != self._ours:
                self._ours = None  # another process saved since: its files continue other ordinals than ours
            complete = not any(partition.pending for partition in partitions.values())
            document = {**self._identity(), **asdict(state if complete else replace(state, generation=-1))}
            held = {number: self._begun(number, partition) for number, partition in partitions.items() if partition.ann}
            return Saving(document, {number: partition for number, partition in held.items() if partition is not None})
        except (OSError, RuntimeError) as error:  # the latter from FAISS
            self._failed(error)
            return None

    def finish(self, saving: Saving, fetch: Callable[[Rows], tuple[Rows, Bytes]]) -> bool:
        """Write the rest, and the manifest last. True if it is all there, durably."""
        if self.authenticator is None:
            return False
        try:
            for number, partition in saving.partitions.items():
                self._write_rest(number, partition, fetch)
            document = saving.document
            document["faiss"] = VERSION
            document["partitions"] = {str(number): partition.entry for number, partition in saving.partitions.items()}
            document["tag"] = self.authenticator.tag(_canonical(document)).hex()
            text = _canonical(document)
            replace_durably(self.folder / _MANIFEST, text)
            self._ours = text
            self._clean(document)
        except (OSError, RuntimeError) as error:  # the latter from FAISS
            self._failed(error)
            return False
        return True

    def adopt(self, saving: Saving) -> None:
        """Let the index use what was saved, if it is the same still."""
        for partition in saving.partitions.values():
            source, n = partition.source, partition.entry["count"]
            if source.ann is partition.ann and source.rows.same(partition.rows, n):
                source.file = partition.file
                if source.indexed == n:
                    source.saved_index = partition.entry["index"]

    def forget(self) -> None:
        """Make sure that nobody loads what is there."""
        self._ours = None
        if self._read_only:
            return
        try:
            (self.folder / _MANIFEST).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the index of collection %r was not removed: %s", self._spec.name, error.strerror)

    def remove(self) -> None:
        """Delete the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Let other processes save."""
        self._lock.release()

    def check(self) -> list[str]:
        """Describe damage of what is there. It is only a cache."""
        text = self._read_manifest()
        if text is None or self.authenticator is None:
            return []
        try:
            document = self._checked(text)
            for partition in document["partitions"].values() if document else ():
                for entry in (partition["index"], partition["rows"]):
                    check_hashed(self.folder, entry)
                if partition["envelopes"]:
                    EnvelopeFile(
                        self.folder / partition["envelopes"]["name"],
                        partition["envelopes"]["count"],
                        self._spec.envelope_size,
                    )
        except _DAMAGE as error:
            if self._read_manifest() != text:
                return []
            return [f"cached index: {error} (only a cache: it is rebuilt from the records)"]
        return []

    def sizes(self) -> dict[str, int]:
        """Return bytes on disk by part."""
        sizes = {"index": 0, "vectors": 0}
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                try:
                    sizes["vectors" if path.name.startswith("envelopes-") else "index"] += path.stat().st_size
                except OSError:  # removed meanwhile
                    continue
        return sizes

    def _begun(self, number: int, partition: Partition) -> _SavedPartition | None:
        ann, n = partition.ann, partition.indexed
        if ann is None:
            return None
        index = partition.saved_index if self._ours is not None else None
        if index is None:
            index = write_hashed(self.folder, f"index-{number}-{secrets.token_hex(8)}.faiss", ann.write)
        # into the same file only where its readers and we agree on what stands there
        file = partition.file if self._ours is not None else None
        entry = {"kind": ann.kind, "storage": ann.storage, "m": ann.m, "count": n, "index": index}
        return _SavedPartition(partition, ann, partition.rows, partition.live[:n].tobytes(), file, entry)

    def _write_rest(self, number: int, partition: _SavedPartition, fetch: Callable[[Rows], tuple[Rows, Bytes]]) -> None:
        sync(self.folder / partition.entry["index"]["name"])
        rows, n = partition.rows, partition.entry["count"]

        def write_rows(write: Callable[[bytes], object]) -> None:
            for at in range(0, n, _ROWS_AT_ONCE):
                write(rows.array(at, min(n, at + _ROWS_AT_ONCE)).astype("<i8").tobytes())
            write(partition.live)

        partition.entry["rows"] = write_hashed(self.folder, f"rows-{number}-{secrets.token_hex(8)}.bin", write_rows)
        sync(self.folder / partition.entry["rows"]["name"])
        partition.entry["envelopes"] = None
        if self._options.mapped:
            old, width = partition.file, self._spec.envelope_size
            path = old.path if old else self.folder / f"envelopes-{number}-{secrets.token_hex(8)}.bin"
            start = old.count if old else 0
            if old is None or start < n:
                write_envelopes(path, start, rows.array(start, n), width, fetch)
                partition.file = EnvelopeFile(path, n, width)
            partition.entry["envelopes"] = {"name": path.name, "count": n}

    def _failed(self, error: Exception) -> None:
        _log.warning("the index of collection %r was not saved: %s", self._spec.name, error)

    def _clean(self, document: dict[str, Any]) -> None:
        keep = {_MANIFEST, _LOCK}
        for partition in document["partitions"].values():
            keep |= {
                entry["name"] for entry in (partition["index"], partition["rows"], partition["envelopes"]) if entry
            }
        for path in self.folder.iterdir():
            if path.name not in keep:
                try:
                    path.unlink()
                except OSError:  # Windows: another process maps it; next time, then
                    continue

    def _read_manifest(self) -> bytes | None:
        try:
            return (self.folder / _MANIFEST).read_bytes()
        except OSError:
            return None

    def _identity(self) -> dict[str, Any]:
        spec = self._spec
        return {
            "what": "encvec_store index cache", "format": FORMAT, "collection": self.folder.name,
            "tenant": spec.tenant, "name": spec.name,
            "envelope_size": spec.envelope_size,
        }  # fmt: skip

    def _checked(self, text: bytes) -> dict[str, Any] | None:
        """Return the manifest; None where it is as good as none: of a key that opens nothing any more, or outdated.

        Raises ValueError for one that is not ours.
        """
        document = json.loads(text)
        tag = bytes.fromhex(document.pop("tag"))
        if self.authenticator is not None and self.authenticator.outlived(tag):
            return None
        if self.authenticator is None or not self.authenticator.check(_canonical(document), tag):
            raise ValueError("the manifest is not authentic")
        if document.get("format") in range(1, FORMAT):
            return None
        if any(document.get(name) != value for name, value in self._identity().items()):
            raise ValueError("the manifest is of another collection or format")
        return dict(document)

    def _of_manifest(self, text: bytes, since: Callable[[State], Changes | None]) -> Loaded | None:
        document = self._checked(text)
        if document is None:
            return None
        state = State(*(document[name] for name in _STATE))
        changes = since(state)
        if changes is not None and changes.content != state.content:
            return None  # every index vector was replaced since
        partitions = {
            int(number): self._load_partition(entry, state) for number, entry in document["partitions"].items()
        }
        return Loaded(partitions, state, changes)

    def _load_partition(self, entry: dict[str, Any], state: State) -> Partition:
        n = entry["count"]
        partition = Partition(*self._load_rows(entry["rows"], n))
        options = self._options
        other = entry["storage"] != options.storage_for(entry["kind"])
        if other or (entry["kind"] == "hnsw" and entry["m"] != options.m):
            _log.info("collection %r: index options have changed, rebuilding", self._spec.name)
            return partition
        with reading(self.folder, entry["index"]) as read:
            ann = AnnIndex.read(read, entry["kind"], entry["storage"], entry["m"])
        if len(ann) != n or ann.dim != AnnIndex.width(state.index_dim, ann.storage):
            raise ValueError("the index has a wrong size")
        partition.ann, partition.saved_index = ann, entry["index"]
        if entry["envelopes"] and options.mapped:
            try:
                path = self.folder / entry["envelopes"]["name"]
                partition.file = EnvelopeFile(path, entry["envelopes"]["count"], self._spec.envelope_size)
            except (OSError, ValueError) as error:  # the index is none the worse for it
                _log.warning("collection %r: mapped vectors are not used: %s", self._spec.name, error)
        return partition

    def _load_rows(self, entry: dict[str, Any], n: int) -> tuple[RowRuns, npt.NDArray[np.bool_]]:
        """Return the rows of n ordinals, and which live."""
        kept = read_hashed(self.folder, entry)
        if len(kept) != 9 * n:
            raise ValueError("the list of rows has a wrong length")
        return RowRuns(np.frombuffer(kept, "<i8", n)), np.frombuffer(kept, np.bool_, n, 8 * n).copy()


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
