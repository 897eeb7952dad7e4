"""The parts of the face experiment, each by itself."""

import importlib.util
import io
import json
import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("scipy")

from benchmarks.faces.command import main
from benchmarks.faces.generator import REACH, Eigenfaces
from benchmarks.faces.grouping import mutual_information, rand_index, whispers
from benchmarks.faces.linear import Fisherfaces, Texture
from benchmarks.faces.measures import threshold
from benchmarks.faces.models import unit
from benchmarks.faces.photographs import _pairs, jittered, load
from benchmarks.faces.pictures import Face, Line, png, strip
from benchmarks.faces.weights import MissingModelError
from encvec_store.errors import InputError
from tests.benchmarks.faces.conftest import OLIVETTI

FACES = load(OLIVETTI)


@pytest.fixture
def rng():
    """Return the same numbers for every test, whichever ran before it in this process."""
    return np.random.default_rng(0)


def test_threshold_lets_one_pair_of_strangers_in_a_thousand_through(rng):
    vectors, labels = unit(rng.standard_normal((300, 12))), np.arange(300) // 3
    alike, others = vectors @ vectors.T, labels[:, None] != labels[None, :]
    scores = alike[np.triu(others, 1)]
    limit = threshold(vectors, labels)
    assert (scores > limit).sum() == int(len(scores) * 1e-3)
    assert (scores > threshold(vectors, labels, 0.05)).mean() == pytest.approx(0.05, abs=1e-3)


def test_png_holds_the_image(rng):
    image = rng.integers(0, 256, (5, 7, 3), np.uint8)
    data = png(image)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    at = data.index(b"IDAT")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    lines = np.frombuffer(zlib.decompress(data[at + 4 : at + 4 + size]), np.uint8).reshape(5, 1 + 7 * 3)
    assert (width, height) == (7, 5)
    assert (lines[:, 0] == 2).all()
    back = np.cumsum(lines[:, 1:].reshape(5, 7, 3), axis=0, dtype=np.uint64).astype(np.uint8)
    np.testing.assert_array_equal(back, image)


def test_a_strip_frames_what_is_accepted_and_leaves_a_place_where_nothing_was_stolen():
    from PIL import Image

    def colours(face):
        picture = Image.open(io.BytesIO(strip([Line("words", [face])], ["legend"]))).convert("RGB")
        return {colour for _, colour in picture.getcolors(1 << 24)}

    image = np.full((8, 8, 1), 77, np.uint8)
    orange, blue, card = (192, 74, 0), (0, 114, 178), (238, 241, 244)
    assert colours(Face(image, True, 0.9)) >= {orange, (77, 77, 77)}
    assert colours(Face(image, False, 0.1)) >= {blue, (77, 77, 77)}
    empty = colours(Face(None))
    assert card in empty
    assert not {orange, blue} & empty


def test_clusters_are_found_and_compared(rng):
    near = np.array([[1, 2], [0, 2], [0, 1], [4, -1], [3, -1], [-1, -1]])
    groups = whispers(near, np.ones(near.shape))
    truth = np.array([7, 7, 7, 8, 8, 9])
    assert rand_index(groups, truth) == mutual_information(groups, truth) == pytest.approx(1)
    a, b = rng.integers(0, 5, 2000), rng.integers(0, 5, 2000)
    assert abs(rand_index(a, b)) < 0.01
    assert mutual_information(a, b) < 0.02


def test_fisherfaces_know_people_they_were_not_trained_on():
    rows = np.arange(400)
    images, labels = FACES.images(rows), FACES.labels
    model = Fisherfaces(images[:200], labels[:200])
    vectors = model.embed(images[200:])
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1)
    assert (labels[200:][alike.argmax(axis=1)] == labels[200:]).mean() > 0.95


def test_the_gradient_is_that_of_the_cosine(rng):
    images = FACES.images(np.arange(200)).astype(np.float32)
    model = Fisherfaces(images, FACES.labels[:200])
    targets = model.embed(images[100:103])
    step = rng.standard_normal((3, *images.shape[1:])).astype(np.float32)
    _, slope = model.pull(images[:3], targets)
    ahead, behind = (model.pull(images[:3] + sign * step, targets)[0] for sign in (1, -1))
    np.testing.assert_allclose((slope * step).sum(axis=(1, 2, 3)), (ahead - behind) / 2, rtol=0.01, atol=5e-6)


def test_texture_ignores_brightness_and_sees_people():
    images = FACES.images(np.arange(20))
    darker = (images // 2).astype(np.uint8)
    vectors, other = Texture().embed(images), Texture().embed(darker)
    assert np.einsum("ij,ij->i", vectors, other).min() > 0.85
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[15]


def test_the_generator_gives_back_what_it_was_fitted_on_and_keeps_to_faces(rng):
    images = FACES.images(np.arange(60))
    generator = Eigenfaces.fit(images, 59)
    latents = generator.latents(images)
    flat = generator.mean + (latents * generator.spread) @ generator.components
    assert np.abs(flat.reshape(images.shape) - images).max() < 2
    far = generator.kept(100 * generator.random(5, rng))
    np.testing.assert_allclose(np.linalg.norm(far, axis=1), REACH * 59**0.5, rtol=1e-4)


def test_further_views_are_other_pictures_of_the_same_person(rng):
    images = FACES.images(np.arange(0, 400, 10))
    views = jittered(images, rng)
    assert views.shape == images.shape
    assert views.dtype == np.uint8
    assert (views != images).any(axis=(1, 2, 3)).all()
    model = Texture()
    same = np.einsum("ij,ij->i", model.embed(images), model.embed(views))
    assert same.mean() > 0.6


def test_the_protocol_of_lfw_is_read(tmp_path):
    (tmp_path / "pairs.txt").write_text("1\t1\nAnn\t1\t2\nAnn\t2\tBob\t1\n")
    files = np.array(["Ann_0001.jpg", "Ann_0002.jpg", "Bob_0001.jpg"])
    assert _pairs(tmp_path, files) == ((0, 1, True), (1, 2, False))
    with pytest.raises(InputError, match="Ann_0002"):
        _pairs(tmp_path, files[[0, 2]])


@pytest.mark.parametrize("what", ["nothing", "empty", "array"])
def test_what_holds_no_photographs_is_refused(tmp_path, what):
    path = tmp_path / {"nothing": "nowhere", "empty": "", "array": "x.npz"}[what]
    if what == "array":
        np.savez(path, images=np.zeros((3, 4, 5), np.uint8), labels=np.zeros(3))
    with pytest.raises(InputError):
        load(path)


def test_the_command_says_what_is_wrong(tmp_path, capfd):
    out = ["--out", str(tmp_path / "run")]
    assert main(["run", *out]) == 2
    assert "--data FILE, or --lfw DIR" in capfd.readouterr().err
    broken = tmp_path / "x.npz"
    broken.write_bytes(b"not an array")
    given = ["--data", str(broken), "--model", "fisherfaces", "--second", "texture"]
    assert main(["run", *given, *out, "--json"]) == 2
    assert json.loads(capfd.readouterr().err)["error"]["type"] == "InputError"


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is here")
def test_without_torch_the_extra_is_named(tmp_path, capfd):
    assert main(["run", "--data", str(OLIVETTI), "--out", str(tmp_path / "run")]) == 2
    assert "pip install torch scipy pillow" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_real_model_where_it_is_installed():
    """FaceNet: bfloat16 and float32 agree, its gradient climbs, and Olivetti's people are told apart."""
    pytest.importorskip("torch", reason="torch is not installed: `make faces` runs the real model")
    from benchmarks.faces.models import load_model

    try:
        model = load_model("facenet")
    except MissingModelError as error:
        pytest.skip(str(error))
    images = FACES.images(np.arange(0, 40))
    quick, exact = model.embed(images), model.exact_model.embed(images)
    assert np.einsum("ij,ij->i", quick, exact).min() > 0.999
    alike = exact @ exact.T
    np.fill_diagonal(alike, -1)
    assert (FACES.labels[:40][alike.argmax(axis=1)] == FACES.labels[:40]).mean() > 0.95
    start = images[:2].astype(np.float32)
    cosine, slope = model.pull(start, exact[20:22])
    length = np.abs(slope).max(axis=(1, 2, 3), keepdims=True)
    assert (model.pull(np.clip(start + 4 * slope / length, 0, 255), exact[20:22])[0] > cosine).all()
