"""Retrieval-augmented generation with LlamaIndex over an encrypted collection.

python -m docs.examples.rag_llamaindex     in a clone, in an environment with the extra `llamaindex`
"""

from __future__ import annotations

from typing import Any

from llama_index.core import PromptTemplate, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import TextNode

import encvec_store as ev
from docs.examples.rag_common import DIM, NOTES, PROMPT, QUESTION, answer, embed
from encvec_store.integrations.llamaindex import EncvecNodeStore


class Words(BaseEmbedding):
    """The embedding, as LlamaIndex calls it."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return embed(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return embed(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return embed(query)


class StandIn(CustomLLM):
    """The stand-in for a model, as LlamaIndex calls it."""

    @property
    def metadata(self) -> LLMMetadata:
        """Describe the model."""
        return LLMMetadata(model_name="stand-in")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponse:
        """Answer a prompt."""
        return CompletionResponse(text=answer(prompt))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **options: Any) -> CompletionResponseGen:
        """Answer a prompt in one piece."""
        yield self.complete(prompt)


def main() -> str:
    """Store the notes, ask the question, and return the answer."""
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        nodes = EncvecNodeStore(store.collection("notes", dim=DIM))
        index = VectorStoreIndex.from_vector_store(nodes, embed_model=Words())
        index.insert_nodes([TextNode(id_=name, text=text) for name, text in NOTES.items()])
        prompt = PromptTemplate(PROMPT.replace("{notes}", "{context_str}").replace("{question}", "{query_str}"))
        engine = index.as_query_engine(llm=StandIn(), similarity_top_k=2, text_qa_template=prompt)
        said = str(engine.query(QUESTION))
    print(said)
    return said


if __name__ == "__main__":
    main()
