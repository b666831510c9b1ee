"""Time to the first token by length of the prompt: means of bins, for the cost of a prefill."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.reading import read
from harness.analysis.series.prefill import MOST_BINS, prefill_of
from harness.records import Record
from tests.fabricated import failed, streamed, trial_of


def bins_of(records: list[Record]) -> pd.DataFrame:
    """The bins of a trial."""
    return prefill_of(read(trial_of(records)).columns.measured)


def sent(number: int, tokens: int, **changes: object) -> Record:
    """A request whose first token takes 1 ms for each token of its prompt."""
    return streamed(number, 100.0 * number, ttft_ms=float(tokens), prompt_tokens=tokens, **changes)


def test_a_few_lengths_are_a_bin_each() -> None:
    """With the mean of each, and standard errors of a common relative deviation."""
    found = bins_of([sent(number, 100 * (1 + number % 3), lag_ms=number % 2) for number in range(60)])
    assert list(found["tokens"]) == [100, 200, 300]
    assert list(found["tokens_squared"]) == [100**2, 200**2, 300**2]
    assert list(found["n"]) == [20, 20, 20]
    assert list(found["ms"]) == pytest.approx([99.5, 199.5, 299.5])
    assert list(found["error_ms"] / found["ms"]) == pytest.approx([found["error_ms"][0] / found["ms"][0]] * 3)


def test_many_lengths_share_bins() -> None:
    """Equal numbers of requests; the mean of the squares is that of the requests, not of the bin's middle."""
    found = bins_of([sent(number, 100 + number) for number in range(120)])
    assert len(found) == MOST_BINS
    assert int(found["n"].sum()) == 120
    assert found["tokens_squared"][0] == pytest.approx(np.mean(np.arange(100, 110) ** 2))


def test_prompts_from_a_cache_and_failures_do_not_count() -> None:
    """Neither says what a prefill costs."""
    records = [sent(number, 100 * (1 + number % 2), cached_tokens=90 if number < 20 else 0) for number in range(40)]
    records += [failed(40 + number, 100.0 * number, "error", 5.0) for number in range(10)]
    assert list(bins_of(sorted(records, key=lambda one: one.due_ns or 0))["n"]) == [10, 10]


def test_few_requests_are_no_bin() -> None:
    """Four of a length say little."""
    assert bins_of([sent(number, 100) for number in range(4)]).empty
