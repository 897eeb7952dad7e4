"""The examples of docs/frameworks.md, word for word, in an empty folder; and the programs that it names."""

import importlib
import re
from pathlib import Path

import pytest

from docs.examples import rag_common

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/frameworks.md").read_text(encoding="utf-8")
SHARED, *CHAPTERS = re.split(r"^## ", PAGE, flags=re.MULTILINE)


def python(text):
    return "".join(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda text: text.partition("\n")[0])
def test_examples(chapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert python(chapter)
    names = {"__name__": "example"}
    exec(compile(python(SHARED) + python(chapter), "docs/frameworks.md", "exec"), names)  # noqa: S102
    names["store"].close()


@pytest.mark.parametrize("framework", ["langchain", "llamaindex", "haystack"])
def test_retrieval_augmented_generation(framework, capsys):
    """Each program answers from the right note, and prints the answer."""
    said = importlib.import_module(f"docs.examples.rag_{framework}").main()
    assert said == rag_common.NOTES["late"]
    assert capsys.readouterr().out == f"{said}\n"
