"""Full-precision models, from which files are derived."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Model on this machine.

    Attributes:
        path: Folder in the Hugging Face layout, or GGUF file.
        revision: Commit of a hub model, else None.
    """

    name: str
    kind: Literal["builtin", "folder", "gguf", "hub"]
    path: Path
    revision: str | None = None


FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Field:
    """Metadata field of a GGUF file; `kind` and `item_kind` name members of gguf.GGUFValueType."""

    key: str
    kind: str
    value: Any
    item_kind: str | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """Tensor under its GGUF name; `shape` as numpy has it (rows, columns).

    Attributes:
        load: Read the tensor as float32.
        load_rows: Read the rows from one to before another, if parts can be read.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], FloatArray]
    load_rows: Callable[[int, int], FloatArray] | None = None

    def parts(self, most_values: int) -> Iterator[FloatArray]:
        """Yield the values in order, whole rows, at most `most_values` at a time if possible."""
        if self.load_rows is None or len(self.shape) != 2:
            yield self.load()
            return
        step = max(1, most_values // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield self.load_rows(start, min(start + step, self.shape[0]))


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes that decide a tensor's type, besides its name and shape."""

    layers: int
    heads: int
    kv_heads: int
    tied_embeddings: bool


@dataclass(frozen=True, slots=True)
class Weights:
    """Model that can be written as GGUF: metadata (without the level) and tensors, in file order."""

    architecture: str
    layout: Layout
    fields: tuple[Field, ...]
    tensors: tuple[Tensor, ...]
