"""Which requests repeat an earlier one, word for word, as a result cache sees them; drawn in blocks from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from harness.seeding import generator

_REPEATS, _PICKS = 14, 15
Int64 = NDArray[np.int64]


class Repeats:
    """For each row of a plan the row that it repeats; an original "repeats" itself.

    shares: of each stream, how many of its rows repeat an earlier row of the same stream; its first never does.
    deal: the streams of the rows of a block.   block: rows in a block, in each of which every stream occurs.
    A repeat picks an earlier row at random and takes the original of its stream nearest before it (after it, where a
    block begins without one), so that old prompts come back as often as new ones.
    """

    def __init__(
        self, shares: Sequence[float], seed: int, block: int, deal: Callable[[int], NDArray[np.int16]]
    ) -> None:
        self._shares = np.array(shares, dtype=np.float64)
        self._seed, self._block, self._deal = seed, block, deal
        self._originals: dict[int, list[Int64]] = {}

    def origins(self, block: int) -> Int64:
        """The row that each row of a block repeats, its own number where it is an original."""
        of_row = self._deal(block)
        rows = np.arange(block * self._block, (block + 1) * self._block, dtype=np.int64)
        origins = rows.copy()
        repeated = np.flatnonzero(self._repeated(block, of_row))
        picks = np.floor(generator(self._seed, _PICKS, block).random(self._block)[repeated] * rows[repeated])
        picks = picks.astype(np.int64)
        for other in np.unique(picks // self._block):
            here = picks // self._block == other
            for stream in np.unique(of_row[repeated[here]]):
                mine = here & (of_row[repeated] == stream)
                origins[repeated[mine]] = self._nearest(int(other), int(stream), picks[mine], rows[repeated[mine]])
        return origins

    def _repeated(self, block: int, of_row: NDArray[np.int16]) -> NDArray[np.bool_]:
        repeated: NDArray[np.bool_] = generator(self._seed, _REPEATS, block).random(self._block) < self._shares[of_row]
        if block == 0:
            _, first = np.unique(of_row, return_index=True)
            repeated[first] = False
        return repeated

    def _nearest(self, block: int, stream: int, picks: Int64, rows: Int64) -> Int64:
        """Of a block, the original of the stream nearest before each pick, if need be after it but before the row."""
        originals = self._originals_of(block)[stream]
        if not len(originals):
            return np.full(len(picks), self._originals_of(0)[stream][0])
        before = np.maximum(np.searchsorted(originals, picks, side="right") - 1, 0)
        chosen = originals[before]
        return np.where(chosen < rows, chosen, self._originals_of(0)[stream][0])

    def _originals_of(self, block: int) -> list[Int64]:
        if block not in self._originals:
            of_row = self._deal(block)
            originals = ~self._repeated(block, of_row)
            self._originals[block] = [
                np.flatnonzero(originals & (of_row == stream)) + block * self._block
                for stream in range(len(self._shares))
            ]
        return self._originals[block]
