"""Doubts about a search for the largest rate."""

from __future__ import annotations

from typing import Any

from harness.verdict.search import doubts
from tests.fabricated import trial_entry

FOUND: dict[str, Any] = {"late_ms": None, "confirmed": "no", "lower_rps": 3.0, "throughput_rps": 16.0}


def test_a_measurement_that_missed_the_slo_contradicts_the_rate_that_was_found() -> None:
    """If no rate was found, it contradicts nothing, and no longer search is advised."""
    trial = trial_entry(slo={"ttft_ms": 40.0})
    assert [one.code for one in doubts(trial, FOUND)] == ["search_missed"]
    assert list(doubts(trial, FOUND | {"lower_rps": 0.0})) == []
