"""The notebooks are stored without outputs, run from top to bottom, and say what they are there to say."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[3] / "docs" / "notebooks"
SAYS = {
    "first_tour": ["0 of 3,000 texts lie in the files as they are", "ok: False", "AuthenticationError"],
    "leakage_lab": ["index vectors of sealed: (5, 0)", "index vectors: none"],
}


def test_each_notebook_is_here():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_notebook(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [output for cell in code for output in cell.outputs]
    said = "".join(output.get("text", "") for output in outputs)
    for words in SAYS[name]:
        assert words in said
    assert any("image/png" in output.get("data", {}) for output in outputs)
