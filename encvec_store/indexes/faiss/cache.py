"""Save the index of one collection on disk, and load it again if it is authentic.

`manifest.json` is written last, by an atomic rename. It names every other file with the SHA-256 of each of its pieces,
and has a keyed tag. FAISS only parses pieces with these hashes, because a forged index could take over the process.
Envelopes have no hash in the manifest: each is authenticated when it is opened.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
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
from .saved import Loaded, SavedPartition, Saving, State

__all__ = ["Cache"]

FORMAT = 3
"""1 had one hash for each file. 2 did not say to which content it belonged."""

_MANIFEST = "manifest.json"
_LOCK = "writer.lock"
_TRIES = 3
_STATE = ("generation", "content", "stamp", "index_dim")
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RecursionError)
_ROWS_AT_ONCE, _MANIFEST_MOST = 100_000, 1 << 26  # the latter: bytes that are read of a manifest
_log = logging.getLogger("encvec_store")


class Cache:
    """A folder of files that can be made again from the records. Every file is checked before it is used."""

    def __init__(self, folder: Path, spec: CollectionSpec, options: FaissOptions, *, read_only: bool = False) -> None:
        self.folder = folder
        self._read_only = read_only
        self.authenticator: CacheAuthenticator | None = None
        self._spec, self._options = spec, options
        self._lock = FileLock(folder / _LOCK)
        self._ours: bytes | None = None
        """The manifest that we loaded or saved last. The ordinals of this index continue those of its files."""

    def load(self, since: Callable[[State], Changes | None]) -> Loaded | None:
        """Return the saved index, or None if it is missing, damaged, not authentic or outdated.

        Args:
            since: returns what changed since a state. Only its errors are raised.
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
                    continue  # another process saved meanwhile, and removed these files
                name, why = self._spec.called, f"{type(error).__name__}: {error}"
                _log.warning("the cached index of collection %r is not used, it will be rebuilt: %s", name, why)
                return None
            if loaded is None:
                return None
            self._ours = text
            return loaded
        return None

    def begin(self, partitions: dict[int, Partition], state: State) -> Saving | None:
        """Write the FAISS indexes, while nothing may change. Returns None if it fails or another process is saving."""
        if self.authenticator is None or self._read_only:
            return None
        try:
            for folder in (self.folder.parent, self.folder):
                folder.mkdir(mode=0o700, exist_ok=True)
            if not self._lock.acquire():
                _log.info("collection %r: another process saves the index", self._spec.called)
                return None
            if self._read_manifest() != self._ours:
                self._ours = None  # another process has saved since, so the files have other ordinals
            complete = not any(partition.pending for partition in partitions.values())
            document = {**self._identity(), **asdict(state if complete else replace(state, generation=-1))}
            held = {number: self._begun(number, partition) for number, partition in partitions.items() if partition.ann}
            return Saving(document, {number: partition for number, partition in held.items() if partition is not None})
        except (OSError, RuntimeError) as error:  # the latter from FAISS
            self._failed(error)
            return None

    def finish(self, saving: Saving, fetch: Callable[[Rows], tuple[Rows, Bytes]]) -> bool:
        """Write the rest, and the manifest last. Returns True if everything is on the disk."""
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
        """Let partitions use the saved files, if they have not changed meanwhile."""
        for partition in saving.partitions.values():
            source, n = partition.source, partition.entry["count"]
            if source.ann is partition.ann and source.rows.same(partition.rows, n):
                source.file = partition.file
                if source.indexed == n:
                    source.saved_index = partition.entry["index"]

    def forget(self) -> None:
        """Delete the manifest, so that nobody loads these files, and the files. Whoever is saving finds them gone."""
        self._ours = None
        if self._read_only or not self.folder.is_dir():
            return
        try:
            (self.folder / _MANIFEST).unlink(missing_ok=True)
            self._clean({"partitions": {}})
        except OSError as error:
            _log.warning("the index of collection %r was not removed: %s", self._spec.called, error.strerror)

    def remove(self) -> None:
        """Delete the folder."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Release the lock, so that other processes can save."""
        self._lock.release()

    def check(self) -> list[str]:
        """Return descriptions of damaged files."""
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

    def saved(self) -> State | None:
        """Return the state of the records that the saved index belongs to; None without an authentic one."""
        text = self._read_manifest()
        try:
            document = None if text is None or self.authenticator is None else self._checked(text)
            return None if document is None else State(*(document[name] for name in _STATE))
        except _DAMAGE:
            return None

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

    def _begun(self, number: int, partition: Partition) -> SavedPartition | None:
        ann, n = partition.ann, partition.indexed
        if ann is None:
            return None
        index = partition.saved_index if self._ours is not None else None
        if index is None:
            index = write_hashed(self.folder, f"index-{number}-{secrets.token_hex(8)}.faiss", ann.write)
        # continue the file only if its readers and this index agree on its content
        file = partition.file if self._ours is not None else None
        entry = {"kind": ann.kind, "storage": ann.storage, "m": ann.m, "count": n, "index": index}
        return SavedPartition(partition, ann, partition.rows, partition.live[:n].tobytes(), file, entry)

    def _write_rest(self, number: int, partition: SavedPartition, fetch: Callable[[Rows], tuple[Rows, Bytes]]) -> None:
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
        _log.warning("the index of collection %r was not saved: %s", self._spec.called, error)

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
                except OSError:  # on Windows, another process maps it: try again at the next save
                    continue

    def _read_manifest(self) -> bytes | None:
        try:
            with (self.folder / _MANIFEST).open("rb") as file:
                return file.read(_MANIFEST_MOST)
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
        """Return the manifest, or None if it is outdated or of a key that opens nothing any more.

        Raises ValueError if it is not authentic.
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
            return None  # every index vector has been replaced since
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
            _log.info("collection %r: index options have changed, the index is rebuilt", self._spec.called)
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
            except (OSError, ValueError) as error:  # the index can be used without them
                _log.warning("collection %r: mapped vectors are not used: %s", self._spec.called, error)
        return partition

    def _load_rows(self, entry: dict[str, Any], n: int) -> tuple[RowRuns, npt.NDArray[np.bool_]]:
        """Return the rows of n ordinals, and which of them exist."""
        kept = read_hashed(self.folder, entry)
        if len(kept) != 9 * n:
            raise ValueError("the list of rows has a wrong length")
        return RowRuns(np.frombuffer(kept, "<i8", n)), np.frombuffer(kept, np.bool_, n, 8 * n).copy()


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
