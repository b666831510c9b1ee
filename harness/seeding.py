"""Random numbers in named streams: what one part of a plan draws never shifts what another part gets."""

from __future__ import annotations

import numpy as np


def generator(seed: int, *stream: int) -> np.random.Generator:
    """The random numbers of one stream of a seed, independent of its other streams (numpy's SeedSequence, Philox)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)))
