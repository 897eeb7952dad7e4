"""LlamaIndex: a collection as a vector store, for `VectorStoreIndex` and its retrievers.

    from encvec_store.integrations.llamaindex import EncvecNodeStore

    nodes = EncvecNodeStore(store.collection("nodes", dim=384))
    index = VectorStoreIndex.from_vector_store(nodes, embed_model=...)

Needs the extra `llamaindex`.
"""

from __future__ import annotations

try:
    import llama_index.core  # noqa: F401 - what is missing is told once, here
except ImportError as error:
    raise ImportError(f"this needs llama-index-core ({error}): pip install 'encvec-store[llamaindex]'") from None

from .node_store import EncvecNodeStore

__all__ = ["EncvecNodeStore"]
