"""The GGUF container: metadata and tensors of a file, by its published layout (version 2 and 3).

The `gguf` package unpacks the quantized types. Its reader is not used: it wraps every string of the
vocabulary in arrays of its own, which takes two seconds for 50,000 tokens; this takes 0.1.
"""

import math
import mmap
import struct
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_to_byte_shape

from lmlite.errors import UserError
from lmlite.models.weights import Stored

# Value types: numbers by their `struct` codes, and the two others.
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_FLOAT32, _STRING, _ARRAY = 6, 8, 9


class GGUF(NamedTuple):
    """What a file holds: metadata by key, and tensors by name, outermost axis first."""

    metadata: dict
    tensors: dict[str, Stored]


def read(path: Path) -> GGUF:
    """Metadata of the file and handles of its tensors, which are read as float32 when asked for.

    Raises UserError where the file is missing, is no GGUF, is cut short, or holds a tensor type
    that the `gguf` package cannot unpack (when that tensor is read).
    """
    path = Path(path)
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist") from e
    except (struct.error, ValueError, KeyError, IndexError, OverflowError, OSError) as e:
        raise UserError(f"{path} is not a whole GGUF file ({e}); fetch it again") from e


class _Cursor:
    """Reads values one after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, code: str):
        layout = struct.Struct("<" + code)
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def string(self) -> str:
        start = self.at + 8
        self.at = start + self.number("Q")
        if self.at > len(self.data):
            raise ValueError("a string runs past the end")
        return self.data[start : self.at].decode("utf-8", "replace")

    def value(self, kind: int):
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            number = self.number(_NUMBERS[kind])
            # The shortest decimal that is this float32: 1e-05, not 9.99999974e-06.
            return float(str(np.float32(number))) if kind == _FLOAT32 else number
        kind, count = self.number("I"), self.number("Q")
        if kind in (_STRING, _ARRAY):
            return [self.value(kind) for _ in range(count)]
        values = np.frombuffer(self.data, "<" + _NUMBERS[kind], count, self.at).tolist()
        self.at += count * struct.calcsize(_NUMBERS[kind])
        return values


def _parse(path: Path, data) -> GGUF:
    cursor = _Cursor(data)
    magic, version = cursor.number("4s"), cursor.number("I")
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it starts with {magic!r}, version {version}")
    tensors, keys = cursor.number("Q"), cursor.number("Q")
    metadata = {cursor.string(): cursor.value(cursor.number("I")) for _ in range(keys)}
    entries = [_entry(cursor) for _ in range(tensors)]
    align = metadata.get("general.alignment", 32)
    start = math.ceil(cursor.at / align) * align
    stored = {}
    for name, shape, kind, offset in entries:
        rows = quant_shape_to_byte_shape(shape, kind)
        if start + offset + math.prod(rows) > len(data):
            raise ValueError(f"tensor {name!r} runs past the end")
        read = partial(_tensor, path, name, start + offset, rows, kind)
        stored[name] = Stored(shape, read)
    return GGUF(metadata, stored)


def _entry(cursor: _Cursor):
    name, axes = cursor.string(), cursor.number("I")
    shape = tuple(cursor.number("Q") for _ in range(axes))[::-1]
    return name, shape, GGMLQuantizationType(cursor.number("I")), cursor.number("Q")


def _tensor(path: Path, name: str, offset: int, rows: tuple[int, ...], kind) -> np.ndarray:
    raw = np.fromfile(path, np.uint8, math.prod(rows), offset=offset).reshape(rows)
    try:
        return dequantize(raw, kind)
    except NotImplementedError as e:
        raise UserError(f"{path}: tensor {name!r} is {kind.name}, which cannot be unpacked") from e
