"""Stores by path: which strings are paths, and which URLs they stand for."""

from pathlib import Path

import pytest

import encvec_store as ev
from encvec_store import errors
from encvec_store.runtime import urls

KEYSET = ev.Keyset.create("memory:")


@pytest.mark.parametrize("name", ["vectors", "a b", "100%", "what?", "a#b", "smörgås"])
def test_a_path_names_one_folder_however_it_is_given(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with ev.connect(tmp_path / name, keyset=KEYSET) as store:
        store.collection("things", dim=2).upsert(["a"], [[1, 2]])
    assert (tmp_path / name).is_dir()
    for place in (str(tmp_path / name), f"./{name}", f"../{tmp_path.name}/{name}", f"~/{name}", Path(name), store.url):
        with ev.connect(place, keyset=KEYSET) as again:
            assert "a" in again.collection("things"), place
    assert [item.name for item in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "given", ["vectors", "", "host=db password=hunter2", "user:hunter2@db", "-", "..x", 5, None, b"/a"]
)
def test_other_strings_are_no_paths(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.UriError, match=r"must begin with one of memory:.*A path must begin with \./") as caught:
        ev.connect(given, keyset=KEYSET)
    assert "hunter2" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["memory:", "faiss:data", "postgresql://u@h/d", "x+y://h", "C:"])
def test_a_url_stays_as_it_is(url):
    assert urls.as_url(url) is url
