"""Prompts of a trace that has texts, or blocks that several prompts share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.scenario.files.prompts import Tokenizer, digest
from harness.scenario.files.traces import Trace
from harness.schedule.prompts import WordPrompts


class RecordedPrompts:
    """Prompts of a trace; see `Prompts`.

    A row with a text has this text. A row with `hash_ids` begins with their blocks of `block_tokens` tokens: rows with
    the same leading ids begin with the same text, and another id is another block. Any other row is generated.
    """

    def __init__(self, words: WordPrompts, trace: Trace, block_tokens: int) -> None:
        self._words, self._trace, self._block_tokens = words, trace, block_tokens
        self.source = words.source if trace.texts is None else "file"
        self.fingerprint = digest(f"recorded 1 {words.fingerprint} {trace.fingerprint} {block_tokens}".encode())

    def prompt(self, index: int, tokens: int) -> str:
        """Return the prompt of row `index` of the trace, with `tokens` tokens if it is not a recorded text."""
        text = None if self._trace.texts is None else self._trace.texts[index]
        if text is not None:
            return text
        ids = [] if self._trace.blocks is None else self._trace.blocks.of(index)
        return (
            self._words.in_blocks(ids, self._block_tokens, index, tokens) if ids else self._words.prompt(index, tokens)
        )


def counted(trace: Trace, tokenizer: Tokenizer | None) -> NDArray[np.int32]:
    """Return the prompt lengths of a trace; those of texts as the tokenizer counts them, 0 without one."""
    lengths = trace.prompt_tokens.copy()
    for row, text in enumerate(trace.texts or ()):
        if text is not None:
            lengths[row] = 0 if tokenizer is None else tokenizer.count(text)
    return lengths
