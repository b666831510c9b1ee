"""The reference's log-probabilities on disk, and how many positions of them fit.

A folder with `chunks.npy`, the token ids; `logprobs.f32`, a row of float32 per scored position; where only the
likeliest tokens are known `tokens.i32` beside it; `true.f32`, those of the true tokens; `facts.json`, what it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from engines.base import Scores
from harness.errors import StorageFailed, UsageError
from harness.quality.divergence import Distributions, Ids
from harness.store.streams import storage_errors

MOST_BYTES = 4 * 2**30
SHARE_OF_FREE_DISK = 0.25


def fitting_chunks(folder: Path, bytes_per_chunk: int) -> int:
    """How many chunks fit into 4 GiB and a quarter of the free disk; raises StorageFailed if not even two do."""
    free = int(shutil.disk_usage(folder).free * SHARE_OF_FREE_DISK)
    count = min(MOST_BYTES, free) // bytes_per_chunk
    if count < 2:
        raise StorageFailed(
            f"{folder}: two chunks of the reference's log-probabilities take {2 * bytes_per_chunk / 2**20:,.0f} MiB, "
            f"and a quarter of what is free is {free / 2**20:,.0f} MiB: make room, or choose another folder with --out"
        )
    return count


def distributions(scores: Scores) -> Distributions:
    """An engine's answer; a whole vocabulary with gaps counts as its likeliest tokens only.

    Raises UsageError where it tells of no token at all, as a model does whose numbers overflow.
    """
    logprobs = np.asarray(scores.logprobs, dtype=np.float32)
    tokens = scores.tokens
    lost = int(np.isnan(logprobs).all(axis=1).sum())
    if lost and tokens is None:
        raise UsageError(
            f"at {lost} of {len(logprobs)} positions every log-probability is NaN: the model's numbers overflow at "
            "this level; choose one with a wider range, such as bf16"
        )
    if tokens is None and np.isnan(logprobs).any():
        tokens = np.broadcast_to(np.arange(logprobs.shape[1], dtype=np.int32), logprobs.shape)
    return Distributions(logprobs, tokens, np.asarray(scores.true_logprobs, dtype=np.float32))


class ReferenceWriter:
    """Takes the reference's answers chunk by chunk. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self.columns = 0
        self.whole = True

    def __enter__(self) -> ReferenceWriter:
        for name in ("logprobs.f32", "tokens.i32", "true.f32"):
            self._files[name] = (self._folder / name).open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, found: Distributions) -> None:
        """One chunk. Raises StorageFailed if it cannot be written, ValueError if it is of another kind than before."""
        kind = found.whole, found.logprobs.shape[1]
        if self.columns and kind != (self.whole, self.columns):
            raise ValueError(f"the engine told of {kind[1]} tokens a position after {self.columns}")
        self.whole, self.columns = kind
        with storage_errors(self._folder):
            self._files["logprobs.f32"].write(np.ascontiguousarray(found.logprobs).tobytes())
            self._files["true.f32"].write(found.true.tobytes())
            if found.tokens is not None:
                self._files["tokens.i32"].write(np.ascontiguousarray(found.tokens, dtype=np.int32).tobytes())


@dataclass(frozen=True, slots=True)
class Reference:
    """What was stored; a chunk at a time is read. facts: see `quality_child`."""

    folder: Path
    chunks: Ids
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Reference:
        """Raises OSError if it is not there."""
        facts = json.loads((folder / "facts.json").read_text())
        return cls(folder, np.load(folder / "chunks.npy"), facts)

    @property
    def first(self) -> int:
        """The first scored position of each chunk."""
        return int(self.facts["first"])

    def of_chunk(self, number: int) -> Distributions:
        """What it says of the scored positions of a chunk."""
        rows = self.chunks.shape[1] - self.first
        columns = int(self.facts["columns"])
        part = slice(number * rows, (number + 1) * rows)
        shape = (rows * len(self.chunks), columns)
        logprobs = np.array(np.memmap(self.folder / "logprobs.f32", np.float32, "r", shape=shape)[part])
        true = np.array(np.memmap(self.folder / "true.f32", np.float32, "r", shape=shape[:1])[part])
        tokens = None
        if self.facts["k"] is not None:
            tokens = np.array(np.memmap(self.folder / "tokens.i32", np.int32, "r", shape=shape)[part])
        return Distributions(logprobs, tokens, true)

    def true_tokens(self, number: int) -> Ids:
        """What really stands at the scored positions of a chunk."""
        found: Ids = self.chunks[number, self.first :]
        return found
