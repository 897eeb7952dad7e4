"""Columns of a batch of rows as the arrays of one segment, of a size that hardly depends on what is in them.

    rows    int64 (n,), ascending
    head    JSON: `format`, `names` of the columns, `left_out`, `nested`
    c0, w0, v0, l0   of the first column: codes (n,), words (n,), the values kept once, joined, and their lengths
    fill    zeros

The size is `_HEAD` bytes and n times a width, which is 64 bytes or 2, 4, 8, ... times as many. The width is chosen as
if each row had every column, and each value were distinct. So it tells nothing of how many different values there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.arrays import Bytes
from ..data.records import decode_payload, encode_payload
from . import arrays as containers
from .arrays import Array
from .column import FIRST, Values
from .columns import Block

__all__ = ["LEAST", "arrays_of", "block_of", "rows_of", "width_of"]

FORMAT = 1
LEAST = 64
"""Bytes a row of the narrowest block."""
_HEAD = 32 << 10
_CELL = 12
"""Bytes that a row needs for each column, and `_ROW` for its number."""
_ROW = 8
_LENGTH = 4
_SINGLE = {None: b"n", True: b"t", False: b"f"}
_SINGLES = {text: value for value, text in _SINGLE.items()}
_WORDS, _CODES = np.dtype("<f8"), tuple(map(np.dtype, ("u1", "<u2", "<u4")))


def arrays_of(block: Block, width: int = LEAST) -> dict[str, Array]:
    """Return the arrays of a block, at least `width` bytes a row."""
    n = len(block.rows)
    head = {
        "format": FORMAT,
        "names": list(block.columns),
        "left_out": sorted(block.left_out),
        "nested": sorted(block.nested),
    }
    arrays: dict[str, Array] = {
        "rows": block.rows.astype("<i8"),
        "head": np.frombuffer(json.dumps(head, ensure_ascii=False).encode(errors="surrogatepass"), np.uint8),
    }
    need = n * _ROW
    for number, values in enumerate(block.columns.values()):
        texts = list(map(_encoded, values.distinct))
        lengths = np.fromiter(map(len, texts), np.uint32, len(texts))
        arrays[f"c{number}"] = values.codes
        if values.words is not None:
            arrays[f"w{number}"] = values.words
        arrays[f"v{number}"] = np.frombuffer(b"".join(texts), np.uint8)
        arrays[f"l{number}"] = lengths
        times = np.bincount(values.codes, minlength=FIRST + len(texts))[FIRST:]
        need += n * _CELL + int(times @ (lengths.astype(np.int64) + _LENGTH))
    arrays["fill"] = np.empty(0, np.uint8)
    have = sum(map(len, containers.pieces(arrays)))
    while n * width < need or _HEAD + n * width < have:
        width *= 2
    arrays["fill"] = np.zeros(_HEAD + n * width - have, np.uint8)
    return arrays


def width_of(size: int, count: int) -> int:
    """Return the bytes a row of a stored block."""
    return max(LEAST, (size - _HEAD) // count) if count else LEAST


def rows_of(arrays: Mapping[str, Array]) -> Array:
    """Return the rows of a block. Raises ValueError."""
    rows = arrays.get("rows")
    if rows is None or rows.dtype != np.int64 or rows.ndim != 1 or (rows[1:] <= rows[:-1]).any():
        raise ValueError("the rows of columns must ascend")
    return rows


def block_of(arrays: Mapping[str, Array]) -> Block:
    """Return the block that arrays hold. Raises ValueError if they do not fit together."""
    try:
        rows, head = rows_of(arrays), json.loads(arrays["head"].tobytes().decode(errors="surrogatepass"))
        if head["format"] != FORMAT:
            raise ValueError("columns in another format")
        columns = {name: _values(arrays, number, len(rows)) for number, name in enumerate(head["names"])}
        return Block(rows, columns, frozenset(head["left_out"]), frozenset(head["nested"]))
    except (KeyError, TypeError, RecursionError, IndexError) as error:
        raise ValueError("columns are malformed") from error


def _values(arrays: Mapping[str, Array], number: int, n: int) -> Values:
    codes, words, lengths = arrays[f"c{number}"], arrays.get(f"w{number}"), arrays[f"l{number}"]
    distinct = _decoded(arrays[f"v{number}"], lengths)
    if codes.dtype not in _CODES or codes.shape != (n,) or (n and codes.max() >= FIRST + len(distinct)):
        raise ValueError("codes of columns are out of range")
    if (words is None and ((codes > 0) & (codes < FIRST)).any()) or (
        words is not None and (words.dtype != _WORDS or words.shape != (n,))
    ):
        raise ValueError("numbers of columns are missing")
    return Values(codes, words, distinct)


def _encoded(value: Any) -> bytes:
    if type(value) is str:
        return b"s" + value.encode(errors="surrogatepass")
    if value is None or type(value) is bool:
        return _SINGLE[value]
    return b"j" + encode_payload("", {"": value}, None)


def _decoded(texts: Bytes, lengths: Array) -> list[Any]:
    ends = np.cumsum(lengths.astype(np.int64))
    if len(texts) != (ends[-1] if len(ends) else 0):
        raise ValueError("values of columns were cut off")
    data, start = texts.tobytes(), 0
    found: list[Any] = []
    for end in ends.tolist():
        match data[start : start + 1]:
            case b"s":
                found.append(data[start + 1 : end].decode(errors="surrogatepass"))
            case b"j":
                found.append(decode_payload(data[start + 1 : end])[1][""])
            case other:
                found.append(_SINGLES[other])
        start = end
    return found
