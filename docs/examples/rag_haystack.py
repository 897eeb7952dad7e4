"""Retrieval-augmented generation with Haystack over an encrypted collection.

python -m docs.examples.rag_haystack     in a clone, in an environment with the extra `haystack`
"""

from __future__ import annotations

from haystack import Document, Pipeline, component

import encvec_store as ev
from docs.examples.rag_common import DIM, NOTES, PROMPT, QUESTION, answer, embed
from encvec_store.integrations.haystack import EncvecDocumentStore, EncvecEmbeddingRetriever


@component
class Words:
    """The embedding, as a component."""

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Embed a question."""
        return {"embedding": embed(text)}


@component
class StandIn:
    """The prompt, and the stand-in for a model, as a component."""

    @component.output_types(answer=str)
    def run(self, question: str, documents: list[Document]) -> dict[str, str]:
        """Answer a question from documents."""
        notes = "\n".join(document.content or "" for document in documents)
        return {"answer": answer(PROMPT.format(notes=notes, question=question))}


def main() -> str:
    """Store the notes, ask the question, and return the answer."""
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        notes = EncvecDocumentStore(store.collection("notes", dim=DIM))
        notes.write_documents([Document(id=name, content=text, embedding=embed(text)) for name, text in NOTES.items()])
        pipeline = Pipeline()
        pipeline.add_component("embedder", Words())
        pipeline.add_component("retriever", EncvecEmbeddingRetriever(notes, top_k=2))
        pipeline.add_component("model", StandIn())
        pipeline.connect("embedder.embedding", "retriever.query_embedding")
        pipeline.connect("retriever.documents", "model.documents")
        given = {"embedder": {"text": QUESTION}, "model": {"question": QUESTION}}
        said: str = pipeline.run(given)["model"]["answer"]
    print(said)
    return said


if __name__ == "__main__":
    main()
