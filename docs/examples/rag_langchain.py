"""Retrieval-augmented generation with LangChain over an encrypted collection.

python -m docs.examples.rag_langchain     in a clone, in an environment with the extra `langchain`
"""

from __future__ import annotations

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

import encvec_store as ev
from docs.examples.rag_common import NOTES, PROMPT, QUESTION, answer, embed
from encvec_store.integrations.langchain import EncvecVectorStore


class Words(Embeddings):
    """The embedding, as LangChain calls it."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts."""
        return [embed(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Embed a question."""
        return embed(text)


def joined(documents: list[Document]) -> str:
    """Put documents into one text, a line each."""
    return "\n".join(document.page_content for document in documents)


def main() -> str:
    """Store the notes, ask the question, and return the answer."""
    with ev.connect("memory:", keyset=ev.Keyset.create("memory:")) as store:
        notes = EncvecVectorStore.from_texts(list(NOTES.values()), Words(), ids=list(NOTES), store=store, name="notes")
        found = notes.as_retriever(search_kwargs={"k": 2})
        given = {"notes": found | joined, "question": RunnablePassthrough()}
        model = RunnableLambda(lambda prompt: answer(prompt.to_string()))
        said: str = (given | PromptTemplate.from_template(PROMPT) | model).invoke(QUESTION)
    print(said)
    return said


if __name__ == "__main__":
    main()
