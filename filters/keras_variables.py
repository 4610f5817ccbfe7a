"""The variables of a Keras SavedModel in a zip, read without TensorFlow and without running anything of it.

Format: `variables/variables.index` is a sorted string table as LevelDB writes it (blocks of entries whose keys share prefixes,
the index of blocks named by the last 48 bytes), from the names of variables to a protocol buffer each: 1 dtype, 2 shape,
4 offset and 5 length in `variables.data-00000-of-00001`, which holds the values one after the other, little-endian. Source:
tensorflow/core/util/tensor_bundle and google/leveldb's doc/table_format.md.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

FLOAT = 1  # TensorFlow's number of float32.
ATTRIBUTE = "/.ATTRIBUTES/VARIABLE_VALUE"
_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_INDEX, _DATA = "variables/variables.index", "variables/variables.data-00000-of-00001"


def read_variables(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 variables by their names (`layer_with_weights-2/kernel`). Raises ValueError, KeyError or BadZipFile for a file
    that is none such."""
    with zipfile.ZipFile(path) as archive:
        members = {name.partition("/")[2]: name for name in archive.namelist()}
        index, data = archive.read(members[_INDEX]), archive.read(members[_DATA])
    variables = {}
    for key, value in _entries(index):
        name, fields = key.decode("utf-8"), _fields(value)
        if name.endswith(ATTRIBUTE) and fields.get(1) == [FLOAT]:
            shape = [_number(_fields(_bytes(size)), 1) for size in _fields(_bytes(fields[2][0])).get(2, [])]
            start, length = _number(fields, 4), _number(fields, 5)
            if length != 4 * int(np.prod(shape, dtype=np.int64)) or start + length > len(data):
                raise ValueError(f"{name} does not fit: {length} bytes at {start} for the shape {shape}")
            variables[name.removesuffix(ATTRIBUTE)] = np.frombuffer(data, "<f4", length // 4, start).reshape(shape)
    return variables


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """All keys and values of a sorted string table."""
    footer = table[-_FOOTER:]
    if len(footer) < _FOOTER or int.from_bytes(footer[-8:], "little") != _MAGIC:
        raise ValueError("no table of variables")
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    start, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    for _, place in _block(table, start, size):
        begin, at = _varint(place, 0)
        length, _ = _varint(place, at)
        yield from _block(table, begin, length)


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = table[start : start + size]
    if len(block) < size or table[start + size : start + size + 1] != b"\0":
        raise ValueError("a table of variables that is cut off or compressed")
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # The places of whole keys follow.
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """A protocol buffer: number of a field → its values, in order."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(message, at)
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            value, at = message[at : at + width], at + width
        elif kind == 2:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError("no protocol buffer")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: dict[int, list[int | bytes]], field: int) -> int:
    """A field that is a number; 0 where it is not written."""
    value = fields.get(field, [0])[0]
    if not isinstance(value, int):
        raise ValueError("no protocol buffer of a variable")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("no protocol buffer of a variable")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits to a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number that is cut off")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
