"""Writing a safetensors file whose tensors do not fit into memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

F16_BYTES = 2
_ALIGNMENT_BYTES = 8


def write_f16(
    path: Path, shapes: Mapping[str, tuple[int, ...]], pieces: Callable[[str], Iterator[NDArray[np.float16]]]
) -> None:
    """Write the tensors in the order of `shapes`; `pieces` gives the values of one, row by row, a part at a time.

    Raises OSError if the file cannot be written, ValueError if the pieces of a tensor are not as long as its shape.
    """
    header, data_bytes = _header(shapes)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in shapes:
            for piece in pieces(name):
                file.write(np.ascontiguousarray(piece).data)
        written = file.tell()
    if written != 8 + len(header) + data_bytes:
        raise ValueError(f"{path.name} has {written} bytes where {8 + len(header) + data_bytes} were announced")


def file_bytes(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How large the file will be."""
    header, data_bytes = _header(shapes)
    return 8 + len(header) + data_bytes


def _header(shapes: Mapping[str, tuple[int, ...]]) -> tuple[bytes, int]:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + int(np.prod(shape, dtype=np.int64)) * F16_BYTES
        entries[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % _ALIGNMENT_BYTES), position
