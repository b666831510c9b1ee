"""Latencies of single requests, and which requests are good."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.latencies import good, of_each
from harness.analysis.reading import read
from harness.records import Status
from tests.fabricated import failed, streamed, trial_of

RECORDS = [
    streamed(0, 0, ttft_ms=100, tokens=11, gap_ms=20),
    streamed(1, 1000, ttft_ms=400, tokens=1),
    failed(2, 2000, Status.CONNECTION_ERROR, 5.0),
    streamed(3, 3000, ttft_ms=100, tokens=11, gap_ms=80),
]


def test_the_latencies_of_each_request() -> None:
    """Milliseconds from due: 100 to the first token, then ten gaps; none of a failed request."""
    found = of_each(read(trial_of(RECORDS)).columns)
    expected = {
        "ttft_ms": [100, 400, np.nan, 100],
        "tpot_ms": [20, np.nan, np.nan, 80],
        "e2e_ms": [300, 400, np.nan, 900],
    }
    assert {name: pytest.approx(values, nan_ok=True) for name, values in expected.items()} == found


@pytest.mark.parametrize(
    ("slo", "flags", "unchecked"),
    [
        ({}, [True, True, False, True], 0),
        ({"ttft_ms": 200}, [True, False, False, True], 0),
        ({"e2e_ms": 500}, [True, True, False, False], 0),
        ({"tpot_ms": 50}, [True, True, False, False], 1),  # a reply of one token has none to check
        ({"stall_ms": 50}, [True, True, False, False], 0),
        ({"ttft_ms": 400, "tpot_ms": 80, "e2e_ms": 900, "stall_ms": 80}, [True, True, False, True], 1),
    ],
)
def test_good_requests_meet_every_limit(slo: dict[str, float | None], flags: list[bool], unchecked: int) -> None:
    """A limit itself is good, a failure never."""
    met, without_tpot = good(read(trial_of(RECORDS)).columns, slo)
    assert (met.tolist(), without_tpot) == (flags, unchecked)
