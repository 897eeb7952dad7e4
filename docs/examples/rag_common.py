"""What the three programs of retrieval-augmented generation share: notes, an embedding, and a stand-in for a model.

All of it runs here: no service, no download. In earnest, `embed` and `answer` call your models.
"""

from __future__ import annotations

import zlib

import numpy as np

DIM = 256
NOTES = {
    "lost": "A lost card is blocked in the app under Cards. A new one arrives within five days.",
    "pin": "A forgotten PIN is shown in the app after you confirm your identity.",
    "late": "A transfer within the country arrives on the next working day. Abroad it takes three days.",
    "fees": "Cash is free at our machines. Other machines may charge a fee of their own.",
    "limit": "The daily limit of a card can be changed in the app at any time.",
}
QUESTION = "How long does a transfer abroad take?"
PROMPT = "Answer from these notes only.\n\n{notes}\n\nQuestion: {question}"


def embed(text: str) -> list[float]:
    """Make a vector of the longer words of a text: (256,)."""
    words = "".join(each if each.isalnum() else " " for each in text.lower()).split()
    vectors = [np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM) for word in words if len(word) > 3]
    return np.sum(vectors, axis=0).tolist() if vectors else [1.0, *[0.0] * (DIM - 1)]


def answer(prompt: str) -> str:
    """Stand in for a language model: return the first note of a prompt, which was the nearest."""
    return prompt.split("\n\n")[1].splitlines()[0]
