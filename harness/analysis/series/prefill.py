"""Time to the first token without a queue, by the length of the prompt: a few means, for the cost of a prefill."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.columns import NS_PER_MS, Columns
from harness.analysis.stats import Flags, Floats

if TYPE_CHECKING:
    import pandas as pd

MOST_BINS, LEAST_PER_BIN = 12, 5
MOST_CACHED = 0.1  # of a prompt, such as a chat template's
NAMES = ("tokens", "tokens_squared", "ms", "error_ms", "n")


def prefill_of(rows: Columns) -> pd.DataFrame:
    """Return the mean time from sent to the first token of successful requests, by length of the prompt.

    Columns: tokens, tokens_squared (means of a bin), ms, error_ms (standard error), n. Lengths share a bin if there are
    many. Requests whose prompt came from a cache are left out, and bins of fewer than LEAST_PER_BIN.
    The errors are of one relative deviation in all bins: a few requests do not tell that of their own.
    """
    import pandas as pd

    tokens = rows.counts["prompt_tokens"]
    ms = (rows.times["first_token"] - rows.times["sent"]) / NS_PER_MS
    cached = rows.cached | (rows.counts["cached_tokens"] > MOST_CACHED * tokens)
    known = rows.ok & np.isfinite(tokens) & np.isfinite(ms) & ~cached
    bins = [(tokens[chosen], ms[chosen]) for chosen in _bins(tokens, known) if chosen.sum() >= LEAST_PER_BIN]
    if not bins:
        return pd.DataFrame({name: [] for name in NAMES})
    relative = math.sqrt(np.mean([np.var(one, ddof=1) / np.mean(one) ** 2 for _, one in bins]))
    return pd.DataFrame(
        [
            (own.mean(), (own**2).mean(), one.mean(), relative * one.mean() / math.sqrt(len(one)), len(one))
            for own, one in bins
        ],
        columns=list(NAMES),
    )


def _bins(tokens: Floats, known: Flags) -> list[Flags]:
    """Return which rows are in each bin: a length each if they are few, else equal numbers of rows."""
    lengths = np.unique(tokens[known])
    if len(lengths) <= MOST_BINS:
        return [known & (tokens == one) for one in lengths]
    number = min(MOST_BINS, int(known.sum()) // LEAST_PER_BIN)
    edges = np.unique(np.quantile(tokens[known], np.linspace(0, 1, number + 1)))
    place = np.clip(np.searchsorted(edges, tokens, "right") - 1, 0, len(edges) - 2)
    return [known & (place == one) for one in range(len(edges) - 1)]
