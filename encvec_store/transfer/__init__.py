"""Import and export: plaintext pgvector tables, FAISS indexes and arrays to and from a collection.

source = TableSource("postgresql://...", "public.items", flatten=["cmetadata"])    or VectorFile("index.faiss")
load(source, collection)                                    whole batches; run again, it goes on where it was
compare(source, collection).ok                              every record read back, opened and compared
to_table(collection, "postgresql://...", "public.items")    and out again, in clear; or to_file(collection, path)
"""

from __future__ import annotations

from .arrays import MAPPED, StoredArray, hdf5_file, hdf5_set, hdf5_sets, open_array
from .batch import Batch, Fault, ImportSource, sound
from .compare import Comparison, Mismatch, compare
from .interrupt import uninterrupted
from .load import LoadResult, load
from .metric_names import told
from .typed import from_json, metadata_from_json, to_json

__all__ = [
    "MAPPED",
    "Batch",
    "Comparison",
    "Fault",
    "ImportSource",
    "LoadResult",
    "Mismatch",
    "StoredArray",
    "compare",
    "from_json",
    "hdf5_file",
    "hdf5_set",
    "hdf5_sets",
    "load",
    "metadata_from_json",
    "open_array",
    "sound",
    "to_json",
    "told",
    "uninterrupted",
]
