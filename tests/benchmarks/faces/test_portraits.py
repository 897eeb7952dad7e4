"""Files of photographs to embeddings: what is no picture and what shows no face is told, and costs nothing else."""

import importlib.util
import json

import numpy as np
import pytest

pytest.importorskip("PIL")

from benchmarks.faces.command import main
from benchmarks.faces.linear import Texture
from benchmarks.faces.photographs import load, photograph
from benchmarks.faces.pictures import png
from benchmarks.faces.portraits import pictures, portraits
from encvec_store.errors import InputError
from tests.benchmarks.faces.conftest import OLIVETTI

FACES = load(OLIVETTI).images(np.arange(2))


class Bright:
    """Finds a face wherever it is not dark: the real one needs torch, and is tried where that is installed."""

    def face(self, image):
        return image if image.mean() > 1 else None


@pytest.fixture
def album(tmp_path):
    folder = tmp_path / "album" / "of one"
    folder.mkdir(parents=True)
    (folder / "b.PNG").write_bytes(png(FACES[0]))
    (folder / "a.png").write_bytes(png(FACES[1]))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "dark.png").write_bytes(png(np.zeros_like(FACES[0])))
    (folder / "notes.txt").write_text("not looked at")
    return tmp_path / "album"


def test_each_file_is_embedded_or_told_why_not(album):
    model = Texture()
    found = {made.path.name: made for made in portraits(pictures([album]), Bright(), model)}
    assert list(found) == ["a.png", "b.PNG", "broken.jpg", "dark.png"]
    np.testing.assert_array_equal(found["b.PNG"].vector, model.embed(photograph(album / "of one/b.PNG")[None])[0])
    assert {name: made.why for name, made in found.items() if made.vector is None} == {
        "broken.jpg": "not a picture that can be read",
        "dark.png": "no face found",
    }


def test_a_file_is_taken_by_its_name_and_once(album):
    named = album / "of one" / "a.png"
    assert pictures([named, album / "of one" / "notes.txt", named])[1:] == [album / "of one" / "notes.txt"]
    assert pictures([album, named]) == pictures([album])


def test_a_folder_without_pictures_is_refused(tmp_path, capfd):
    with pytest.raises(InputError, match=r"\.jpg"):
        pictures([tmp_path])
    assert main(["embed", str(tmp_path), "--out", str(tmp_path / "x.jsonl"), "--json"]) == 2
    assert json.loads(capfd.readouterr().err)["error"]["type"] == "InputError"


def test_a_folder_that_is_not_there_is_told_before_any_work(album, tmp_path, capfd):
    assert main(["embed", str(album), "--out", str(tmp_path / "nowhere" / "x.jsonl")]) == 2
    assert "nowhere: no such folder" in capfd.readouterr().err


def test_the_real_detector_where_it_is_installed():
    """It finds a face that fills the picture, by looking again with a border, and none in noise."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: `make faces` sets it up")
    from benchmarks.faces.detect import Detector
    from benchmarks.faces.weights import MissingModelError

    try:
        detector = Detector()
    except MissingModelError as error:
        pytest.skip(str(error))
    shown = np.repeat(load(OLIVETTI).images(np.arange(0, 400, 40)), 3, axis=3)
    found = [detector.face(image) for image in shown]
    assert sum(face is not None for face in found) >= 7
    assert all(face is None or face.shape == (160, 160, 3) for face in found)
    assert detector.face(np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)) is None
