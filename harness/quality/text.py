"""The text that is scored, as chunks of token ids: the same ids for every engine and level of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.models.source import BUILT_IN
from harness.errors import UsageError
from harness.quality.divergence import Ids

_TEXTS = Path(__file__).parent / "texts"
SHIPPED = (BUILT_IN["tiny"] / "heldout.txt", _TEXTS / "moby_dick.txt")
"""Austen, of what `tiny` was never trained on, then Melville; both in the public domain."""
SHIPPED_NAME = "the shipped text (Austen, 1811 to 1818; Melville, 1851)"


def text_of(path: Path | None) -> tuple[str, str]:
    """(name, text) of what is scored; None: the text that is shipped. Raises UsageError if it cannot be read."""
    if path is None:
        return SHIPPED_NAME, "\n\n".join(one.read_text(encoding="utf-8").strip() for one in SHIPPED)
    try:
        return path.name, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def chunks_of(ids: Sequence[int], tokens: int, chunk: int) -> Ids:
    """[chunks, chunk] the first `tokens` ids in whole chunks. Raises UsageError if they do not fill two."""
    count = min(len(ids), tokens) // chunk
    if count < 2:
        raise UsageError(
            f"{min(len(ids), tokens):,} tokens of text are fewer than two chunks of {chunk}: give `quality` a longer "
            "text, more `tokens` or a smaller `chunk`"
        )
    return np.asarray(ids[: count * chunk], dtype=np.int32).reshape(count, chunk)
