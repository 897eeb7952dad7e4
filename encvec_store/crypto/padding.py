"""Padding of payloads, so that their sizes reveal little about their content.

Padme: Nikitin, Barman, Lueks, Underwood, Hubaux and Ford, "Reducing Metadata Leakage from Encrypted Files and
Communication with PURBs", PETS 2019. A size is rounded up until its last bits are zero, by at most 12% and on average
far less. Sizes up to L then leak only O(log log L) bits. Payloads are padded to at least 256 bytes.
"""

from __future__ import annotations

__all__ = ["LEAST", "padded", "padme", "unpadded"]

LEAST = 256
"""Bytes of the shortest padded payload."""
_LENGTH = 4


def padme(size: int) -> int:
    """Return the padded size of `size` bytes, which must be at least 2."""
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def padded(payload: bytes) -> bytes:
    """Return length u32 | payload | zeros, in a size that `padme` allows, at least `LEAST`."""
    size = _LENGTH + len(payload)
    return (len(payload).to_bytes(_LENGTH, "big") + payload).ljust(LEAST if size <= LEAST else padme(size), b"\0")


def unpadded(content: bytes) -> bytes:
    """Undo `padded`. Raises ValueError if the length exceeds the content."""
    size = int.from_bytes(content[:_LENGTH], "big")
    if len(content) < _LENGTH + size:
        raise ValueError("the length is larger than the content")
    return content[_LENGTH : _LENGTH + size]
