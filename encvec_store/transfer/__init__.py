"""Import and export: plaintext tables, indexes, arrays and folders of others to and from a collection.

source = TableSource("postgresql://...", "public.items", flatten=["cmetadata"])    or VectorFile("index.faiss"),
    or ChromaSource("folder", "collection"), QdrantSource("folder", "collection"), LanceSource("folder", "table")
load(source, collection)                                    whole batches; run again, it goes on where it was
compare(source, collection).ok                              every record read back, opened and compared
to_table(collection, "postgresql://...", "public.items")    and out again, in clear; or to_file(collection, path)
"""

from __future__ import annotations

from .arrays import MAPPED, StoredArray, hdf5_file, hdf5_set, hdf5_sets, open_array
from .batch import Batch, Fault, ImportSource, sound
from .chroma import ChromaSource
from .compare import Comparison, Mismatch, compare
from .interrupt import uninterrupted
from .lance import LanceSource
from .load import LoadResult, load
from .metric_names import told
from .qdrant import QdrantSource
from .typed import from_json, metadata_from_json, to_json

__all__ = [
    "MAPPED",
    "Batch",
    "ChromaSource",
    "Comparison",
    "Fault",
    "ImportSource",
    "LanceSource",
    "LoadResult",
    "Mismatch",
    "QdrantSource",
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
