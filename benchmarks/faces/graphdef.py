"""Read a frozen TensorFlow graph without TensorFlow.

This parses just enough of the protocol buffer wire format. Field numbers are those of graph.proto,
node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto in tensorflow/core/framework. Only what
an inference graph of convolutions needs is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {1: np.dtype("<f4"), 3: np.dtype("<i4")}  # DT_FLOAT, DT_INT32


@dataclass(frozen=True)
class Attr:
    """One attribute of a node: the members of AttrValue's union that were set."""

    text: bytes = b""
    number: float = 0.0
    integers: tuple[int, ...] = ()
    tensor: NDArray[Any] | None = None


@dataclass(frozen=True)
class Node:
    """One operation: its inputs are names of other nodes, without control edges and output numbers."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: dict[str, Attr] = field(default_factory=dict)


def read_graph(path: Path) -> dict[str, Node]:
    """All nodes of a binary GraphDef file, by name, in file order."""
    nodes = (_node(body) for number, body in _messages(memoryview(path.read_bytes())) if number == 1)
    return {node.name: node for node in nodes}


def _varint(buf: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buf[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(buf: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of each field in a message: an int for varints, else the bytes."""
    at = 0
    while at < len(buf):
        tag, at = _varint(buf, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(buf, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(buf, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"not a GraphDef: wire type {wire}")
        if at + size > len(buf):
            raise ValueError("not a GraphDef, or cut short")
        yield number, buf[at : at + size]
        at += size


def _messages(buf: memoryview) -> Iterator[tuple[int, memoryview]]:
    return ((number, value) for number, value in _fields(buf) if isinstance(value, memoryview))


def _varints(value: int | memoryview) -> list[int]:
    """A repeated integer field's values, whether packed or one at a time."""
    if isinstance(value, int):
        return [value]
    out, at = [], 0
    while at < len(value):
        item, at = _varint(value, at)
        out.append(item)
    return out


def _node(buf: memoryview) -> Node:
    name = op = ""
    inputs: list[str] = []
    attrs: dict[str, Attr] = {}
    for number, body in _messages(buf):
        if number == 1:
            name = str(body, "utf-8")
        elif number == 2:
            op = str(body, "utf-8")
        elif number == 3 and not (source := str(body, "utf-8")).startswith("^"):
            inputs.append(source.partition(":")[0])
        elif number == 5:
            entry = dict(_messages(body))
            if 2 in entry:
                attrs[str(entry[1], "utf-8")] = _attr(entry[2])
    return Node(name, op, tuple(inputs), attrs)


def _attr(buf: memoryview) -> Attr:
    text, number, integers, tensor = b"", 0.0, [], None
    for key, value in _fields(buf):
        if isinstance(value, int):
            continue
        if key == 1:  # a list; its integers are field 3
            integers += [i for k, v in _fields(value) if k == 3 for i in _varints(v)]
        elif key == 2:
            text = bytes(value)
        elif key == 4:
            (number,) = struct.unpack("<f", value)
        elif key == 8:
            tensor = _tensor(value)
    return Attr(text, number, tuple(integers), tensor)


def _tensor(buf: memoryview) -> NDArray[Any]:
    dtype = _DTYPES[1]
    shape: list[int] = []
    content = b""
    integers: list[int] = []
    for key, value in _fields(buf):
        if key == 1 and isinstance(value, int):
            if value not in _DTYPES:
                raise ValueError(f"tensor type {value} is not read here")
            dtype = _DTYPES[value]
        elif key == 2 and isinstance(value, memoryview):
            for _, dim in _messages(value):
                shape.append(next((s for k, s in _fields(dim) if k == 1 and isinstance(s, int)), 0))
        elif key in (4, 5) and isinstance(value, memoryview):  # raw content, or packed floats: the same bytes
            content += bytes(value)
        elif key == 7:
            integers += _varints(value)
    values = np.frombuffer(content, dtype) if content else np.array(integers, dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if values.size == 1 and count > 1:  # one value is repeated for all
        values = np.repeat(values, count)
    return values.reshape(shape).copy()
