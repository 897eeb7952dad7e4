"""Ask the NVIDIA driver for GPUs.

FAISS and CuPy find out for themselves whether they can use a GPU. If there is none, one line of the log says so.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import cache

__all__ = ["DEVICES", "complain", "names", "wanted"]

DEVICES = ("auto", "cpu", "cuda")
_log = logging.getLogger("encvec_store")


@cache
def names() -> tuple[str, ...]:
    """Return the names of the GPUs that the NVIDIA driver reports. Without a driver there are none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return ()
    found, name = ctypes.c_int(0), ctypes.create_string_buffer(100)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(found)):
        return ()
    told = []
    for number in range(found.value):
        driver.cuDeviceGetName(name, len(name), number)
        told.append(name.value.decode(errors="replace"))
    return tuple(told)


@cache
def wanted(device: str) -> bool:
    """Whether a device of DEVICES means a GPU, and there is one. Logs once if `cuda` was asked for in vain."""
    if device == "cpu":
        return False
    if not names():
        complain(device, "there is no NVIDIA GPU here; everything runs on the CPU")
    return bool(names())


def complain(device: str, what: str) -> None:
    """Log one line that says why no GPU is used, if one was asked for by name."""
    if device == "cuda":
        _log.warning("device=cuda: %s", what)
