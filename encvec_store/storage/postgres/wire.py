"""Arrays in PostgreSQL's binary format, without a Python step for each number.

A `Raw` is sent unchanged; the cast after its placeholder gives the type: `%b::vector`, `%b::int8[]`.
"""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg.adapt import Dumper
from psycopg.pq import Format

from ...data.arrays import Bytes, Kept, Matrix, Rows
from ...data.fields import Term
from ..protocol import EncryptedBatch

__all__ = [
    "KEY",
    "Raw",
    "RawDumper",
    "byte_arrays",
    "copy_records",
    "copy_terms",
    "int8_array",
    "numbered",
    "packed_tokens",
    "rows_from",
    "split_value",
    "term_from",
    "typed_kind",
    "vector",
    "vector_array",
    "vectors_from",
]

KEY = 512
"""Bytes of a term that are indexed. A btree takes at most about 2,700, and texts may be longer."""
_INT8, _BYTEA = 20, 17
_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_TAIL = b"\xff\xff"
_CHUNK = 1 << 18
_LARGE = 1 << 24
"""Bytes of payloads from which on a chunk is sent line by line."""
_NUMBERS = struct.Struct(">hiqii")
"""The beginning of a line of terms: 6 columns, a row of 8 bytes, a number of 4."""
Placed = tuple[int, str, Term]
"""The position of a record in a batch, a field, and a term."""


class Raw(bytes):
    """The binary form of a value."""


class RawDumper(Dumper):
    """Sends a `Raw` unchanged and lets the server find its type."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Any) -> bytes:
        """Return the bytes."""
        return bytes(obj)


def int8_array(numbers: npt.ArrayLike) -> Raw:
    """Pack (n,) integers as int8[]."""
    values = np.asarray(numbers, np.int64).ravel()
    packed = np.empty(len(values), [("length", ">i4"), ("value", ">i8")])
    packed["length"] = 8
    packed["value"] = values
    return Raw(_array_head(_INT8, len(values)) + packed.tobytes())


def packed_tokens(tokens: Bytes) -> Raw:
    """Pack (n, 16) uint8 as bytea[]."""
    n, size = tokens.shape
    packed = np.empty(n, [("length", ">i4"), ("value", np.uint8, (size,))])
    packed["length"] = size
    packed["value"] = tokens
    return Raw(_array_head(_BYTEA, n) + packed.tobytes())


def byte_arrays(values: Sequence[bytes]) -> Raw:
    """Pack byte strings as bytea[]."""
    body = b"".join(part for value in values for part in (len(value).to_bytes(4, "big"), value))
    return Raw(_array_head(_BYTEA, len(values)) + body)


def vector(values: Kept, number: str = ">f4") -> Raw:
    """Pack (d,) numbers as vector, or as halfvec where the type of a number is ">f2"."""
    return Raw(struct.pack(">HH", len(values), 0) + values.astype(number).tobytes())


def vector_array(values: Kept, oid: int, number: str = ">f4") -> Raw:
    """Pack (n, d) numbers as vector[] or halfvec[], where `oid` is that type's own."""
    n, dim = values.shape
    size = np.dtype(number).itemsize * dim
    packed = np.empty((n, 8 + size), np.uint8)
    packed[:, :8] = np.frombuffer(struct.pack(">iHH", 4 + size, dim, 0), np.uint8)
    packed[:, 8:] = values.astype(number).view(np.uint8)
    return Raw(_array_head(oid, n) + packed.tobytes())


def _array_head(oid: int, n: int) -> bytes:
    return struct.pack(">iiIii", 1, 0, oid, n, 1) if n else struct.pack(">iiI", 0, 0, oid)


def rows_from(packed: bytes | None) -> Rows:
    """Unpack `string_agg(int8send(row), '')`."""
    return np.frombuffer(packed or b"", ">i8").astype(np.int64)


def vectors_from(packed: bytes | None, dim: int, number: str = ">f4") -> Matrix:
    """Unpack joined results of `vector_send` or `halfvec_send` to (n, dim)."""
    if not dim:
        return np.empty((0, 0), np.float32)
    parts = np.frombuffer(packed or b"", np.uint8).reshape(-1, 4 + np.dtype(number).itemsize * dim)[:, 4:]
    return np.ascontiguousarray(parts).view(number).astype(np.float32)


# Terms: values of every kind become bytes that sort as the values do, so that one index serves all.


def split_value(value: str | float | bytes) -> tuple[bytes, bytes | None]:
    """Return a value as bytes: (the part that is indexed, the rest or None)."""
    match value:
        case str():
            whole = value.encode("utf-8", "surrogatepass")  # bytes of UTF-8 sort as code points do
        case bytes():
            whole = value
        case _:
            (bits,) = struct.unpack(">Q", struct.pack(">d", float(value) + 0.0))  # + 0.0: one zero only
            whole = (bits ^ ((1 << 64) - 1 if bits >> 63 else 1 << 63)).to_bytes(8, "big")
    return (whole, None) if len(whole) <= KEY else (whole[:KEY], whole[KEY:])


def typed_kind(kind: str, value: str | float | bytes) -> str:
    """Return a term's kind with a letter for the type of its value: s, b or n."""
    return f"{'s' if isinstance(value, str) else 'b' if isinstance(value, bytes) else 'n'}:{kind}"


def numbered(terms: Sequence[Placed]) -> Iterator[tuple[int, Placed]]:
    """Yield (n, term), every term once; n counts the terms of its record."""
    counts: defaultdict[int, int] = defaultdict(int)
    for term in dict.fromkeys(terms):
        n = counts[term[0]]
        counts[term[0]] = n + 1
        yield n, term


def term_from(typed: str, key: bytes, rest: bytes | None) -> Term:
    """Return the term of a stored line."""
    letter, _, kind = typed.partition(":")
    whole = key + (rest or b"")
    match letter:
        case "s":
            return Term(kind, whole.decode("utf-8", "surrogatepass"))
        case "b":
            return Term(kind, whole)
    bits = int.from_bytes(whole, "big")
    bits ^= 1 << 63 if bits >> 63 else (1 << 64) - 1
    (number,) = struct.unpack(">d", bits.to_bytes(8, "big"))
    return Term(kind, number)


# COPY ... FROM STDIN BINARY


def copy_records(batch: EncryptedBatch, rows: Rows, *, with_vector: bool) -> Iterator[bytes]:
    """Yield (row, partition, token, envelope[, index_vector], payload) as a binary COPY stream.

    The chunks fit in the cache, because each byte is moved twice: into its line and into the stream. Lines are in the
    order of their tokens: so the server needs a fifth less work for the index on tokens.
    """
    n, dim = len(rows), batch.index_vectors.shape[1]
    number = batch.index_vectors.dtype.newbyteorder(">")
    layout: list[Any] = [("fields", ">i2"), ("8", ">i4"), ("row", ">i8"), ("8 too", ">i4"), ("partition", ">i8")]
    for name in ("tokens", "vectors"):
        width = getattr(batch, name).shape[1]
        layout += [(f"{name} length", ">i4"), (name, np.uint8, (width,))]
    if with_vector:
        layout += [("vector length", ">i4"), ("dim", ">i2"), ("unused", ">i2"), ("vector", number, (dim,))]
    layout.append(("payload length", ">i4"))
    line = np.dtype(layout)
    at_once = max(1, min(n, _CHUNK // line.itemsize))
    lines = np.empty(at_once, line)
    lines["fields"], lines["8"], lines["8 too"] = 6 if with_vector else 5, 8, 8
    for name in ("tokens", "vectors"):
        lines[f"{name} length"] = getattr(batch, name).shape[1]
    if with_vector:
        lines["vector length"], lines["dim"], lines["unused"] = 4 + number.itemsize * dim, dim, 0
    order = np.argsort(np.ascontiguousarray(batch.tokens[:, :8]).view(">u8").reshape(-1), kind="stable")
    lengths = np.fromiter(map(len, batch.payloads), np.int64, n)
    whole, size = lines.view(np.uint8).data, line.itemsize
    cuts = [whole[i * size : (i + 1) * size] for i in range(at_once)]
    yield _HEAD
    for start in range(0, n, at_once):
        some = order[start : start + at_once]
        part = lines[: len(some)]
        part["partition"] = batch.partitions[some]
        part["row"], part["tokens"], part["vectors"] = rows[some], batch.tokens[some], batch.vectors[some]
        if with_vector:
            part["vector"] = batch.index_vectors[some]
        part["payload length"] = lengths[some]
        payloads = [batch.payloads[i] for i in some.tolist()]
        pieces = zip(cuts[: len(payloads)], payloads, strict=True)
        if lengths[some].sum() < _LARGE:
            yield b"".join(itertools.chain.from_iterable(pieces))
        else:
            yield from map(b"".join, pieces)
    yield _TAIL


def copy_terms(batch: EncryptedBatch, rows: Rows) -> Iterator[bytes]:
    """Yield (row, n, field, kind, key, rest) as a binary COPY stream, each term of a record once."""
    yield _HEAD
    numbers = rows.tolist()
    lines: list[bytes] = []
    for n, (position, name, term) in numbered(batch.terms):
        key, rest = split_value(term.value)
        texts = (name.encode("utf-8", "surrogatepass"), typed_kind(*term).encode(), key)
        lines.append(_NUMBERS.pack(6, 8, numbers[position], 4, n))
        lines.extend(len(text).to_bytes(4, "big") + text for text in texts)
        lines.append(b"\xff\xff\xff\xff" if rest is None else len(rest).to_bytes(4, "big") + rest)
        if len(lines) > 20_000:
            yield b"".join(lines)
            lines.clear()
    yield b"".join(lines)
    yield _TAIL
