"""Judge a search for the largest rate: whether the load generator was its limit, and whether the measurement agrees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.saturation.requests import tightest_ttft_s
from harness.store.manifest import TrialEntry
from harness.verdict import thresholds
from harness.verdict.reason import Level, Reason
from harness.verdict.tolerance import number


def doubts(trial: TrialEntry, found: Mapping[str, Any] | None) -> Iterator[Reason]:
    """Yield the reasons for which the largest rate may be another one. `found`: see `saturation.result.as_fact`."""
    if found is None:
        return
    bound_s, late_ms = tightest_ttft_s(trial.slo, list(trial.class_slo.values())), found["late_ms"]
    if bound_s and late_ms is not None:
        bound_ms = 1e3 * bound_s
        sentence = f"The load generator sent 1 % of the search's requests more than {number(late_ms)} ms late;"
        sentence += f" the SLO's TTFT is {number(bound_ms)} ms. The server may take a higher rate."
        advice = "Free processor cores: latencies count from the scheduled time."
        yield from thresholds.SEARCH_LATE.reasons(late_ms / bound_ms, sentence, advice)
    none_is_known = not found["lower_rps"] and found["throughput_rps"] is not None
    if found["confirmed"] == "no" and not none_is_known:
        sentence = "The measurement at the lower rate missed the SLO: the largest rate is lower than the search found."
        advice = "Search again with a longer `within`; the server may have slowed down meanwhile."
        yield Reason("search_missed", Level.WARN, sentence, advice)
