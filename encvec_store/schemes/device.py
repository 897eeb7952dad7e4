"""Where index vectors are computed: by NumPy, or by CuPy on an NVIDIA GPU.

CuPy's arrays answer to NumPy's functions, so schemes are written once: they `put` what is large on the device, compute
there, and `get` the result. AES stays on the CPU: `cryptography` has the primitives, and keys never reach the GPU, only
rotations and noise do, which lie in its memory as they lie in ours. Results agree with the CPU's to 1e-5 a
coordinate, as they do from one CPU to another; nonces are the same to the bit.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Protocol

import numpy as np

from ..runtime.gpus import complain, wanted

__all__ = ["CPU", "Device", "device", "device_of"]


class Device(Protocol):
    """Arrays go there and come back. Not where they are already: no copy is made then."""

    name: str

    def put(self, array: Any) -> Any:
        """Return a NumPy array's like on the device."""
        ...

    def get(self, array: Any) -> Any:
        """Return a NumPy array of one on the device."""
        ...

    def empty(self, shape: tuple[int, ...]) -> Any:
        """Return room for float32 on the device."""
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
    """Return what `auto`, `cpu` or `cuda` means here. Says once, in one line, where `cuda` cannot be had."""
    if not wanted(name):
        return CPU
    try:
        cupy = importlib.import_module("cupy")
        cupy.zeros(1)
    except Exception as error:  # CuPy's own: not installed, for another driver, no memory left
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"fails: {type(error).__name__}"
        complain(name, f"CuPy {why}; records are encrypted on the CPU")
        return CPU
    return _Cuda(cupy)


def device_of(array: Any) -> Device:
    """Return the device that an array lies on."""
    return CPU if isinstance(array, np.ndarray) else device("cuda")
