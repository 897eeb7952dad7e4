"""`encvec import` of folders that nobody can read here: what is said. tests/integrations/frameworks reads real ones."""

import sys

import pytest

from encvec_store import errors
from encvec_store.transfer.folder import reading


@pytest.mark.parametrize(
    ("kind", "file", "module"),
    [
        ("chroma", "chroma.sqlite3", "chromadb"),
        ("qdrant", "meta.json", "qdrant_client"),
        ("lancedb", "notes.lance", "lancedb"),
    ],
)
def test_a_missing_package_is_named(home, encvec, monkeypatch, kind, file, module):
    (home / "folder").mkdir()
    (home / "folder" / file).touch()
    monkeypatch.setitem(sys.modules, module, None)
    said = encvec("import", f"{kind}:folder", "docs")
    assert said.code == 2
    assert f"this folder is read by {module}, which cannot be imported" in said.err
    assert said.err.endswith(f"pip install 'encvec-store[{kind}]'\n")


@pytest.mark.parametrize(("kind", "wants"), [("chroma", "chroma.sqlite3"), ("qdrant", "meta.json")])
def test_what_is_no_such_folder_stays_as_it_is(home, encvec, kind, wants):
    """The packages would make a new database there."""
    (home / "folder").mkdir()
    assert f"it has no {wants}" in encvec("import", f"{kind}:folder", "docs").err
    assert not list((home / "folder").iterdir())
    assert f"nope is no folder: {kind}:FOLDER names one" in encvec("import", f"{kind}:nope", "docs").err
    assert not (home / "nope").exists()


def test_what_a_package_raises_is_an_input_error():
    with pytest.raises(errors.InputError, match=r"^x cannot be read: KeyError: 'a'$"), reading("x"):
        raise KeyError("a")
    with pytest.raises(errors.MetricError), reading("x"):
        raise errors.MetricError("no metric")
