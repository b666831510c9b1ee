"""In which order the cells of a repetition run, so that drift and what ran before hit all of them alike.

A machine warms up and slows down, and a cell finds the caches and temperatures that its predecessor left. Repetitions
come in pairs, the second in the opposite order, which cancels a steady drift. Over n pairs of n cells (n/2 where n is
even) each cell stands equally often at each place and directly behind each other cell: the rows of a square that is
balanced for carry-over (E. J. Williams, 1949). The first row is the order of the file; the seed shuffles the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby

from harness.cells import Cell, Skip


def in_run_order(planned: Sequence[Cell | Skip], seed: int) -> list[Cell | Skip]:
    """Cells that stand repetition by repetition, in the order in which they run; skips keep their places."""
    ordered: list[Cell | Skip] = []
    for repetition, group in groupby(planned, key=lambda one: one.repetition):
        entries = list(group)
        cells = [one for one in entries if isinstance(one, Cell)]
        turns = iter([cells[place] for place in places(len(cells), repetition, seed)])
        ordered += [next(turns) if isinstance(one, Cell) else one for one in entries]
    return ordered


def places(count: int, repetition: int, seed: int) -> list[int]:
    """The numbers 0 to count - 1 in the order of this repetition, which counts from 1."""
    pair, backwards = divmod(repetition - 1, 2)
    rows = max(1, count if count % 2 else count // 2)
    others = list(range(1, rows))
    random.Random(seed).shuffle(others)
    row = [0, *others][pair % rows]
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    number_of = {value: number for number, value in enumerate(zigzag)}
    found = [number_of[(value + row) % count] for value in zigzag]
    return found[::-1] if backwards else found
