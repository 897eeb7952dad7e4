"""Where index vectors are computed: by NumPy, or by CuPy on an NVIDIA GPU.

NumPy's functions work on CuPy's arrays, so schemes are written once: they `put` large arrays on the device, compute
there, and `get` the result. AES stays on the CPU, and keys never reach the GPU. Rotations and noise do; they lie in
its memory as they lie in ours. Coordinates agree with the CPU's to 1e-5, as they do from one CPU to another; nonces
have the same bits.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Protocol

import numpy as np

from ..runtime.gpus import complain, wanted

__all__ = ["CPU", "Device", "device", "device_of"]


class Device(Protocol):
    """Moves arrays to a device and back. Arrays that are there already are not copied."""

    name: str

    def put(self, array: Any) -> Any:
        """Move a NumPy array to the device."""
        ...

    def get(self, array: Any) -> Any:
        """Return an array of the device as a NumPy array."""
        ...

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Allocate a float32 array on the device."""
        ...


class _Cpu:
    name = "cpu"

    def put(self, array: Any) -> Any:
        return array

    def get(self, array: Any) -> Any:
        return array

    def empty(self, shape: tuple[int, ...]) -> Any:
        return np.empty(shape, np.float32)


class _Cuda:
    name = "cuda"

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def put(self, array: Any) -> Any:
        return self._cupy.asarray(array)

    def get(self, array: Any) -> Any:
        return self._cupy.asnumpy(array)

    def empty(self, shape: tuple[int, ...]) -> Any:
        return self._cupy.empty(shape, np.float32)


CPU: Device = _Cpu()


@cache
def device(name: str) -> Device:
    """Return the device that `auto`, `cpu` or `cuda` names. Warns once if `cuda` cannot be used."""
    if not wanted(name):
        return CPU
    try:
        cupy = importlib.import_module("cupy")
        cupy.zeros(1)
    except Exception as error:  # CuPy raises its own classes: not installed, wrong driver, no memory left
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {type(error).__name__}"
        complain(name, f"CuPy {why}; records are encrypted on the CPU")
        return CPU
    return _Cuda(cupy)


def device_of(array: Any) -> Device:
    """Return the device that an array lies on."""
    return CPU if isinstance(array, np.ndarray) else device("cuda")
