"""What a model's full-precision weights are to everything that derives files from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model on this machine.

    path: a folder in the Hugging Face layout, or a GGUF file.   revision: the commit of a hub model, else None.
    """

    name: str
    kind: Literal["builtin", "folder", "gguf", "hub"]
    path: Path
    revision: str | None = None


FloatArray: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Field:
    """One metadata field of a GGUF file; `kind` and `item_kind` name members of gguf.GGUFValueType."""

    key: str
    kind: str
    value: Any
    item_kind: str | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor under its GGUF name; `shape` as numpy has it (rows, columns); `load` reads it, float32.

    load_rows: reads the rows from one to before another, where a part can be had without the whole.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], FloatArray]
    load_rows: Callable[[int, int], FloatArray] | None = None

    def parts(self, most_values: int) -> Iterator[FloatArray]:
        """The values in order, whole rows, so many at a time where that is possible."""
        if self.load_rows is None or len(self.shape) != 2:
            yield self.load()
            return
        step = max(1, most_values // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield self.load_rows(start, min(start + step, self.shape[0]))


@dataclass(frozen=True, slots=True)
class Layout:
    """What the choice of a tensor's type depends on, besides its name and shape."""

    layers: int
    heads: int
    kv_heads: int
    tied_embeddings: bool


@dataclass(frozen=True, slots=True)
class Weights:
    """A model that can be written as GGUF: its metadata (without the level) and its tensors, in file order."""

    architecture: str
    layout: Layout
    fields: tuple[Field, ...]
    tensors: tuple[Tensor, ...]
