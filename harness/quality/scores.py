"""The scored text, and the reference's log-probabilities of it on disk.

A reference's folder holds `chunks.npy` (token ids), `logprobs.f32` (a row per scored position), `tokens.i32` (its
tokens, if only the likeliest are known), `true.f32` (of the true tokens) and `facts.json`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from engines.base import Scores
from engines.models.source import BUILT_IN
from harness.errors import StorageFailed, UsageError
from harness.quality.divergence import Distributions, Ids
from harness.store.streams import storage_errors

MOST_BYTES = 4 * 2**30
SHARE_OF_FREE_DISK = 0.25
SHIPPED = (BUILT_IN["tiny"] / "heldout.txt", Path(__file__).parent / "texts" / "moby_dick.txt")
"""Text by Austen that `tiny` was not trained on, then Melville; both in the public domain."""


def text_of(path: Path | None) -> tuple[str, str]:
    """Return the name and the content of the scored text; None for the shipped one. Raises UsageError if unreadable."""
    if path is None:
        texts = [one.read_text(encoding="utf-8").strip() for one in SHIPPED]
        return "the shipped text (Austen, 1811 to 1818; Melville, 1851)", "\n\n".join(texts)
    try:
        return path.name, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def chunks_of(ids: Sequence[int], tokens: int, chunk: int) -> Ids:
    """Return the first `tokens` ids in whole chunks, [chunks, chunk]. Raises UsageError if they do not fill two."""
    tokens = min(len(ids), tokens)
    count = tokens // chunk
    if count < 2:
        raise UsageError(
            f"{tokens:,} tokens of text are fewer than two chunks of {chunk}: give `quality` a longer text, more "
            "`tokens` or a smaller `chunk`"
        )
    return np.asarray(ids[: count * chunk], dtype=np.int32).reshape(count, chunk)


def fitting_chunks(folder: Path, bytes_per_chunk: int) -> int:
    """Return how many chunks fit into 4 GiB and a quarter of the free disk. Raises StorageFailed for fewer than two."""
    free = int(shutil.disk_usage(folder).free * SHARE_OF_FREE_DISK)
    count = min(MOST_BYTES, free) // bytes_per_chunk
    if count < 2:
        raise StorageFailed(
            f"{folder}: two chunks of the reference's log-probabilities take {2 * bytes_per_chunk / 2**20:,.0f} MiB, "
            f"and a quarter of what is free is {free / 2**20:,.0f} MiB: make room, or choose another folder with --out"
        )
    return count


def distributions(scores: Scores) -> Distributions:
    """Convert an engine's answer; a vocabulary with gaps counts as its likeliest tokens only.

    Raises UsageError if a position has no log-probability at all, as of a model whose numbers overflow.
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
    """Writer of the reference's answers, chunk by chunk. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        self.columns, self.whole = 0, True

    def __enter__(self) -> ReferenceWriter:
        for name in ("logprobs.f32", "tokens.i32", "true.f32"):
            self._files[name] = (self._folder / name).open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, found: Distributions) -> None:
        """Add a chunk. Raises StorageFailed if it cannot be written, ValueError if its shape differs from before."""
        kind = found.whole, found.logprobs.shape[1]
        if self.columns and kind != (self.whole, self.columns):
            raise ValueError(f"the engine returned {kind[1]} tokens a position after {self.columns}")
        self.whole, self.columns = kind
        with storage_errors(self._folder):
            self._files["logprobs.f32"].write(np.ascontiguousarray(found.logprobs).tobytes())
            self._files["true.f32"].write(found.true.tobytes())
            if found.tokens is not None:
                self._files["tokens.i32"].write(np.ascontiguousarray(found.tokens, dtype=np.int32).tobytes())


@dataclass(frozen=True, slots=True)
class Reference:
    """Stored reference, read chunk by chunk. facts: see `run.scoring.score_reference`."""

    folder: Path
    chunks: Ids
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Reference:
        """Open a stored reference. Raises OSError if it is missing."""
        return cls(folder, np.load(folder / "chunks.npy"), json.loads((folder / "facts.json").read_text()))

    @property
    def first(self) -> int:
        """First scored position of each chunk."""
        return int(self.facts["first"])

    def of_chunk(self, number: int) -> Distributions:
        """Return its distributions at the scored positions of a chunk."""
        rows = self.chunks.shape[1] - self.first
        shape = (rows * len(self.chunks), int(self.facts["columns"]))

        def part(name: str, kind: type, shape: tuple[int, ...]) -> Any:
            mapped = np.memmap(self.folder / name, kind, "r", shape=shape)
            return np.array(mapped[number * rows : (number + 1) * rows])

        tokens = None if self.facts["k"] is None else part("tokens.i32", np.int32, shape)
        logprobs = part("logprobs.f32", np.float32, shape)
        return Distributions(logprobs, tokens, part("true.f32", np.float32, shape[:1]))

    def true_tokens(self, number: int) -> Ids:
        """Return the tokens of the text at the scored positions of a chunk."""
        found: Ids = self.chunks[number, self.first :]
        return found
