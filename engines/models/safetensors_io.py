"""Safetensors format with numpy alone: reading, and writing of files larger than memory.

A file is an 8-byte little-endian length, that many bytes of JSON (name -> dtype, shape, data_offsets), then the data.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import ModelError
from engines.models.types import FloatArray

_LONGEST_HEADER_BYTES = 100_000_000
_F16_BYTES = 2
_ALIGNMENT_BYTES = 8
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Location of a tensor in a file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int

    def load(self) -> FloatArray:
        """Return the values as float32; exact for F32, F16 and BF16."""
        return self._values(0, self.size_bytes).reshape(self.shape)

    def load_rows(self, start: int, stop: int) -> FloatArray:
        """Return the rows from `start` to before `stop` of a matrix, as `load` does."""
        row_bytes = self.size_bytes // self.shape[0]
        return self._values(start * row_bytes, (stop - start) * row_bytes).reshape(stop - start, *self.shape[1:])

    def _values(self, offset_bytes: int, size_bytes: int) -> FloatArray:
        if self.dtype not in _DTYPES:
            raise ModelError(f"{self.path} holds weights of type {self.dtype}; convert them to F32, F16 or BF16 first")
        with self.path.open("rb") as file:
            file.seek(self.offset_bytes + offset_bytes)
            data = file.read(size_bytes)
        values = np.frombuffer(data, dtype=_DTYPES[self.dtype])
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)


def read(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name, not loaded.

    Raises ModelError if the file is not a whole safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _LONGEST_HEADER_BYTES + 1
        if length > min(_LONGEST_HEADER_BYTES, size - 8):
            raise ModelError(f"{path} is not a whole safetensors file; fetch or write it again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            return {name: _stored(path, entry, 8 + length, size) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not a whole safetensors file ({error}); fetch or write it again") from error


def _stored(path: Path, entry: dict[str, Any], data_start: int, file_size: int) -> StoredTensor:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= file_size - data_start:
        raise ValueError("a tensor lies outside the file")
    return StoredTensor(path, entry["dtype"], tuple(entry["shape"]), data_start + start, end - start)


def commonest_type(tensors: Iterable[StoredTensor], known: Iterable[str]) -> str | None:
    """Return the type of the most values, of these types (the first of equal ones); None if no tensor has one."""
    values: Counter[str] = Counter()
    for tensor in tensors:
        values[tensor.dtype] += math.prod(tensor.shape)
    found = max(known, key=lambda dtype: values[dtype])
    return found if values[found] else None


def write_f16(
    path: Path, shapes: Mapping[str, tuple[int, ...]], pieces: Callable[[str], Iterator[NDArray[np.float16]]]
) -> None:
    """Write the tensors in the order of `shapes`; `pieces` yields the values of one, row by row, in parts.

    Raises OSError if the file cannot be written, ValueError if the parts of a tensor do not match its shape.
    """
    header = _header(shapes)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in shapes:
            for piece in pieces(name):
                file.write(np.ascontiguousarray(piece).data)
        written = file.tell()
    if written != (announced := file_bytes(shapes)):
        raise ValueError(f"{path.name} has {written} bytes where {announced} were announced")


def file_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the size of the file to write."""
    return 8 + len(_header(shapes)) + _F16_BYTES * sum(map(math.prod, shapes.values()))


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * _F16_BYTES
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT_BYTES)
