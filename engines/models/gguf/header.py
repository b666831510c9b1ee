"""Metadata of a GGUF file (version 2 and 3), without the values of its tensors.

Format: "GGUF", version (u32), tensor count (u64), field count (u64), then fields: key, type (u32), value. A string is
a u64 length and UTF-8 bytes; an array is an item type (u32), a count (u64) and the items. Then the tensors: name,
number of dimensions (u32), dimensions (u64 each, the fastest first), type (u32), offset (u64).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from engines.base import ModelError

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 28


def read_header(path: Path) -> dict[str, Any]:
    """Return every metadata field by key. The result is cached and must not be changed.

    A large vocabulary takes time to read, and engines need it during a timed start.

    Raises ModelError if the file is not GGUF or ends early.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    return _read(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: Path, _changed_ns: int, _size: int) -> dict[str, Any]:
    with _opened(path) as (file, _, fields):
        return dict(_field(file) for _ in range(fields))


def read_tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by name, as numpy has it (rows, columns).

    Raises ModelError if the file is not GGUF or ends early.
    """
    with _opened(path) as (file, tensors, fields):
        for _ in range(fields):
            _field(file)
        shapes = {}
        for _ in range(tensors):
            name = _string(file)
            sizes = [_length(file) for _ in range(_scalar(file, 4))]
            _scalar(file, 4), _scalar(file, 10)  # type and offset
            shapes[name] = tuple(reversed(sizes))
        return shapes


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int, int]]:
    """Open a file behind its first fields, with the number of tensors and that of metadata fields."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path} is not a GGUF file")
            version, tensors, fields = struct.unpack("<IQQ", file.read(20))
            if version not in (2, 3):
                raise ModelError(f"{path} is GGUF version {version}; convert it to version 3 with a current llama.cpp")
            yield file, tensors, fields
    except (struct.error, ValueError, EOFError) as error:
        raise ModelError(f"{path} is a damaged GGUF file ({error}); fetch or build it again") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def _field(file: BinaryIO) -> tuple[str, Any]:
    key = _string(file)
    return key, _value(file, _scalar(file, 4))


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _scalar(file, kind)
    item, count = _scalar(file, 4), _length(file)
    if item in _SCALARS:
        layout = _SCALARS[item]
        size = struct.calcsize(layout)
        return [value for (value,) in struct.iter_unpack(layout, _exactly(file, size * count))]
    return [_value(file, item) for _ in range(count)]


def _scalar(file: BinaryIO, kind: int) -> Any:
    if kind not in _SCALARS:
        raise ValueError(f"unknown field type {kind}")
    return struct.unpack(_SCALARS[kind], file.read(struct.calcsize(_SCALARS[kind])))[0]


def _string(file: BinaryIO) -> str:
    return _exactly(file, _length(file)).decode("utf-8", "replace")


def _length(file: BinaryIO) -> int:
    length: int = _scalar(file, 10)
    if length > _LONGEST:
        raise ValueError(f"a length of {length}")
    return length


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError("it ends early")
    return data
