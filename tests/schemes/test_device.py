"""Devices: what encryption sends to one and takes back, and the one line where there is none.

tests/kat holds every device to the same known answers, a GPU too where there is one.
"""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from encvec_store import Keyset, connect
from encvec_store.runtime import gpus
from encvec_store.schemes import device as devices
from encvec_store.schemes import scheme
from encvec_store.sealing import Keyring
from tests.kits.elsewhere import Elsewhere


@pytest.fixture(autouse=True)
def fresh():
    caches = (gpus.names, gpus.wanted, devices.device)
    for one in caches:
        one.cache_clear()
    yield
    for one in caches:
        one.cache_clear()


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(gpus, "names", lambda: ("a GPU",))


def test_records_go_there_and_queries_stay():
    at = Elsewhere()
    keyed = scheme({"name": "sap", "beta": 2.0}).keyed(bytes(32), ("", "some", b""), 6, device=at)
    sent = at.sent
    points = np.eye(6, dtype=np.float32)
    keyed.encrypt_query(points)
    assert (at.sent, at.back) == (sent, 0)
    keyed.encrypt(points, np.zeros((6, 16), np.uint8), points)
    assert at.sent > sent
    assert at.back == 1


def test_the_keyring_hands_its_device_on(monkeypatch):
    at = Elsewhere()
    monkeypatch.setattr("encvec_store.store.device", lambda name: at)
    with connect("memory:", keyset=Keyset.create("memory:")) as store:
        some = store.collection("some", 4, scheme={"name": "sap", "beta": 1.0})
        some.upsert(["a", "b"], np.eye(2, 4, dtype=np.float32))
        assert some.search([0, 1, 0, 0], k=1)[0].id == "b"
        assert some.verify().ok
    assert at.back == 1
    assert Keyring(Keyset.create("memory:"), "", "some", bytes(16))._device is devices.CPU


def test_the_processor_is_asked_for_nothing(monkeypatch):
    monkeypatch.setattr(gpus, "names", lambda: pytest.fail("asked for a GPU"))
    assert devices.device("cpu") is devices.CPU


def test_no_gpu_is_told_once_and_only_to_whom_asked_for_one(monkeypatch, caplog):
    monkeypatch.setattr(gpus, "names", tuple)
    with caplog.at_level(logging.WARNING, "encvec_store"):
        assert devices.device("auto") is devices.CPU
        assert not caplog.records
        for _ in range(2):
            assert devices.device("cuda") is devices.CPU
            assert not gpus.wanted("cuda")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "device=cuda: there is no NVIDIA GPU here; everything runs on the CPU"


@pytest.mark.parametrize(
    ("cupy", "why"), [(None, "CuPy is not installed"), (SimpleNamespace(), "CuPy fails: AttributeError")]
)
def test_a_gpu_without_cupy(monkeypatch, caplog, a_gpu, cupy, why):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with caplog.at_level(logging.WARNING, "encvec_store"):
        assert devices.device("cuda") is devices.CPU
        assert devices.device("auto") is devices.CPU
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"device=cuda: {why}; records are encrypted on the CPU"


def test_cupy_is_used(monkeypatch, a_gpu):
    monkeypatch.setitem(
        sys.modules, "cupy", SimpleNamespace(zeros=np.zeros, asarray=np.asarray, asnumpy=np.asarray, empty=np.empty)
    )
    found = devices.device("cuda")
    assert found.name == "cuda"
    assert found.empty((2, 3)).dtype == np.float32
    assert devices.device_of(np.zeros(1)) is devices.CPU
    assert devices.device_of(object()) is found


def test_counting_does_not_fail(monkeypatch):
    assert all(gpus.names())
    gpus.names.cache_clear()
    driver = SimpleNamespace(cuInit=lambda flags: 100, cuDeviceGetCount=lambda to: pytest.fail("asked all the same"))
    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda name: driver)
    assert gpus.names() == ()
