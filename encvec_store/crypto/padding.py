"""Padding of payloads, so that their sizes tell little of what is in them.

Padme: Nikitin, Barman, Lueks, Underwood, Hubaux and Ford, "Reducing Metadata Leakage from Encrypted Files and
Communication with PURBs", PETS 2019. A size is rounded up so that its last bits are zero, at most 12% and on average
far less; of sizes up to L only O(log log L) bits are left to see. Payloads below 256 bytes all have 256.
"""

from __future__ import annotations

__all__ = ["LEAST", "padded", "padme", "unpadded"]

LEAST = 256
"""Bytes that the shortest payload takes."""
_LENGTH = 4


def padme(size: int) -> int:
    """Return the padded size of so many bytes, 2 at least."""
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def padded(payload: bytes) -> bytes:
    """Return length u32 | payload | zeros, of a size that `padme` allows and `LEAST` at least."""
    size = _LENGTH + len(payload)
    return (len(payload).to_bytes(_LENGTH, "big") + payload).ljust(LEAST if size <= LEAST else padme(size), b"\0")


def unpadded(content: bytes) -> bytes:
    """Undo `padded`. Raises ValueError where the length does not fit."""
    size = int.from_bytes(content[:_LENGTH], "big")
    if len(content) < _LENGTH + size:
        raise ValueError("the length is larger than the content")
    return content[_LENGTH : _LENGTH + size]
