"""Plan of a gate: which side starts when, with which seed, and when to look; pure.

Starts come in pairs, one of each side with the same seed. Neighbouring pairs have opposite orders (ABBA), so that a
steady drift cancels; which side begins is drawn. The chance of a false word is shared out among the looks (Bonferroni),
so that looking often costs no certainty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.seeding import generator

BASE, HEAD = "base", "head"
_ORDER, _SEEDS = 31, 32  # of the seed's random numbers


@dataclass(frozen=True, slots=True)
class Start:
    """One start of one side."""

    pair: int  # from 1
    side: str
    seed: int


def starts(pairs: int, seed: int) -> Iterator[Start]:
    """Yield the starts of this many pairs in their order; the first ones do not depend on the number."""
    for pair in range(1, pairs + 1):
        block, second = divmod(pair - 1, 2)
        begins_with_base = bool(generator(seed, _ORDER, block).integers(2)) != bool(second)
        own = int(generator(seed, _SEEDS, pair).integers(2**32))
        for side in (BASE, HEAD) if begins_with_base else (HEAD, BASE):
            yield Start(pair, side, own)


def rounds(pairs: int, seed: int) -> Iterator[tuple[Start, Start]]:
    """Yield the two starts of each pair in their order."""
    made = starts(pairs, seed)
    yield from zip(made, made, strict=True)


def interleaved(sides: Sequence[str]) -> bool:
    """Return whether starts in this order may be taken for pairs: every two neighbours are one of each side."""
    return len(sides) % 2 == 0 and all(sides[i] != sides[i + 1] for i in range(0, len(sides), 2))
