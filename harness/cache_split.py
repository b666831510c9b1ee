"""Who was helped by a cache: the measured requests with and without, for results of their own."""

from __future__ import annotations

import numpy as np

from harness.columns import Columns, Flags
from harness.limits import CACHE_CLASSES

MOSTLY = 0.5


def cache_split(columns: Columns) -> dict[str, Flags]:
    """Flags of requests by the names in `limits.CACHE_CLASSES`; a pair only where both have measured requests.

    cached, uncached: by what the server said. Cached is a reply from a result cache, or one to a prompt of which at
    least half of the tokens came from a prefix cache. repeated, original: by the plan, whatever the server did.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = columns.counts["cached_tokens"] / columns.counts["prompt_tokens"]
    cached, uncached, repeated, original = CACHE_CLASSES
    found: dict[str, Flags] = {}
    for name, other, flags in (
        (cached, uncached, columns.cached | (share >= MOSTLY)),
        (repeated, original, columns.repeated),
    ):
        if (flags & columns.measured_rows).any() and (~flags & columns.measured_rows).any():
            found |= {name: flags, other: ~flags}
    return found
