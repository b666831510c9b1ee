"""Independent streams of random numbers: the draws of one part of a schedule never shift those of another part."""

from __future__ import annotations

import numpy as np


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Return the generator of one stream of a seed, independent of its other streams (SeedSequence, Philox)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)))
