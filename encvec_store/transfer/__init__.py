"""Moving in and out: plaintext pgvector tables, FAISS indexes and arrays to and from a collection.

source = TableSource("postgresql://...", "public.items", flatten=["cmetadata"])    or VectorFile("index.faiss")
load(source, collection)                                    whole batches; run again, it goes on where it was
compare(source, collection).ok                              every record read back, opened and compared
to_table(collection, "postgresql://...", "public.items")    and out again, in clear; or to_file(collection, path)
"""

from __future__ import annotations

from .batch import Batch, Fault, ImportSource
from .compare import Comparison, Mismatch, compare
from .load import LoadResult, load

__all__ = ["Batch", "Comparison", "Fault", "ImportSource", "LoadResult", "Mismatch", "compare", "load"]
