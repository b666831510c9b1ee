"""Prompts that share their beginnings, as those of one application with a long instruction do."""

from __future__ import annotations

from harness.prompts import WordPrompts, digest, mix
from harness.seeding import generator

LEAST_OWN_TOKENS = 8
_SCALE = 2.0**-64


class PrefixedPrompts:
    """A share of prompts begins with one of `groups` common prefixes; see `harness.prompts.Prompts`.

    The length asked for is that of the whole prompt. A prompt too short for the prefix and 8 tokens of its own begins
    with a part of the prefix. Who has which prefix depends on seed and index alone.
    """

    def __init__(self, words: WordPrompts, seed: int, *, share: float, tokens: int, groups: int) -> None:
        self.source = words.source
        self.fingerprint = digest(f"prefix 1 {words.fingerprint} {seed} {share!r} {tokens} {groups}".encode())
        self.words = words
        self._share, self._tokens, self._groups = share, tokens, groups
        self._salt = int(generator(seed, 3).integers(2**63))
        self._openings: dict[int, tuple[str, int]] = {}

    def group(self, index: int) -> int | None:
        """Which of the common prefixes request `index` begins with, from 0; None: with none."""
        scattered = mix(index ^ self._salt)
        if scattered * _SCALE >= self._share:
            return None
        return mix(scattered) % self._groups

    def prompt(self, index: int, tokens: int) -> str:
        """The prompt of request `index`, `tokens` tokens long; raises ValueError as `WordPrompts.prompt`."""
        group, shared = self.group(index), min(self._tokens, tokens - LEAST_OWN_TOKENS)
        if group is None or shared < 1:
            return self.words.prompt(index, tokens)
        return self.words.continued(self._opening(group, shared), index, tokens)

    def _opening(self, group: int, tokens: int) -> tuple[str, int]:
        if tokens < self._tokens:
            return self.words.opening(group, tokens)
        if group not in self._openings:
            self._openings[group] = self.words.opening(group, tokens)
        return self._openings[group]
