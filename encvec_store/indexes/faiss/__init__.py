"""FAISS indexes over any record store, and the `faiss:` store: records in SQLite, with cached FAISS indexes on disk."""

from __future__ import annotations

from typing import Any

from ...storage.protocol import Records
from ...storage.sqlite import SqliteRecords, SqliteStore
from ..protocol import Connection
from .ann import AnnIndex, empty_ivf, lists_for, training_size
from .device import GpuCopy, gpu_copy, suits, uses_gpu
from .index import FaissIndex
from .openmp import omp_threads
from .options import INDEX_KINDS, STORAGES, FaissOptions, parse_url

__all__ = [
    "INDEX_KINDS",
    "STORAGES",
    "AnnIndex",
    "FaissIndex",
    "FaissOptions",
    "GpuCopy",
    "connect",
    "empty_ivf",
    "gpu_copy",
    "lists_for",
    "omp_threads",
    "parse_url",
    "suits",
    "training_size",
    "uses_gpu",
]


def connect(url: str, **options: Any) -> Connection:
    """Open a `faiss:` store.

    Args:
        url: `faiss:///absolute/folder`, `faiss:relative/folder` or `faiss://./relative/folder`, with options
            such as `?index=hnsw&ef_search=200`; see `FaissOptions`.
        options: the same options as keyword arguments. They take precedence over the URL.

    Raises:
        UriError: the URL or an option is malformed or unknown.
        StoreUnreachableError: the folder cannot be made or read, or holds the files of another program.
    """
    folder, chosen = parse_url(url, options)
    store = SqliteStore(folder, chosen.lock_timeout, url, read_only=chosen.mode == "ro")

    def index(records: Records) -> FaissIndex:
        files = store.index_folder(records.collection) if isinstance(records, SqliteRecords) else None
        return FaissIndex(records, files, chosen, read_only=store.read_only)

    return Connection(store, index, chosen.device, kind=chosen.index, ranked_options=chosen.ranked)
