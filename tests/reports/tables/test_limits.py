"""Limits in the words of the results table, each with its worst case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reports.data import ReportData
from reports.tables.limits import in_words, limits, measured_of, rows

MS, SHARE, BYTES, COUNT = ("time", "ms"), ("share", "share"), ("bytes", "bytes"), ("number", "count")


def verdict(limit: str, value: float | None, **more: Any) -> dict[str, Any]:
    """What the gate says of a limit."""
    return {"limit": limit, "metric": limit.split(" ")[0], "value": value, "low": None, "high": None, "n": 100} | more


@pytest.mark.parametrize(
    ("limit", "shown", "words"),
    [
        ("ttft_ms p95 <= 500", MS, "TTFT p95 <= 500 ms"),
        ("ttft_ms p95 <= 0.5s", MS, "TTFT p95 <= 0.5 s"),
        ("chat.e2e_ms p99 < 2000", MS, "chat: E2E p99 < 2000 ms"),
        ("error_rate <= 0.01", SHARE, "errors <= 1 %"),
        ("attainment >= 95%", SHARE, "SLO met >= 95 %"),
        ("rss_peak_bytes <= 1GiB", BYTES, "rss_peak_bytes <= 1 GiB"),
        ("load_s <= 30", ("time", "s"), "startup <= 30 s"),
        ("errors <= 10 per 5m", COUNT, "errors <= 10 per 5m"),
        ("ttft_ms p95 <= 1.10 * base", MS, "TTFT p95 <= 1.10 * base"),
        ("output_tokens_per_s >= 1234567.5", ("number", "tokens/s"), "output >= 1 234 567.5 tokens/s"),
        ("goodput_rps >= 5", ("number", "requests/s"), "goodput >= 5 requests/s"),
        ("mean_concurrency <= 8", ("number", "requests"), "in flight mean <= 8 requests"),
        ("no limit at all", MS, "no limit at all"),
    ],
)
def test_a_limit_is_written_as_its_column(limit: str, shown: tuple[str, str], words: str) -> None:
    """With its unit, as the scenario wrote it or the metric's own."""
    assert in_words(limit, shown) == words


def test_a_number_has_the_unit_of_its_limit() -> None:
    """A share of errors has the numbers behind it; a variant's limit is told as a number."""
    assert measured_of(verdict("attainment >= 95%", 0.9414), SHARE) == "94.1 %"
    assert measured_of(verdict("rss_peak_bytes <= 1GiB", 7.566e7), BYTES) == "72.2 MiB"
    assert measured_of(verdict("error_rate <= 0.01", 0.12), SHARE) == "12 of 100 (12.0 %)"
    assert measured_of(verdict("ttft_ms p95 <= 500", 746.0, certainty="sure"), MS) == "746 ms (sure)"
    assert measured_of(verdict("load_s <= 30", 6.3e-5), ("time", "s")).replace("\u202f", " ") == "< 0.001 s"
    assert measured_of(verdict("errors <= 10 per 5m", 10.0, certainty="likely"), COUNT) == "10 (likely)"
    against = verdict("ttft_ms p95 <= 1.10 * base", 61.2, certainty="likely", bound=55.0)
    assert measured_of(against, MS) == "61.2 ms (likely, limit 55.0 ms)"
    assert measured_of(verdict("ttft_ms p95 <= 500", None, low=400.0), MS).replace("\u202f", " ") == "> 400 ms"
    cost = verdict("cost_per_1m_output_tokens_usd <= 5", None, high=2.28, certainty="likely")
    assert measured_of(cost, ("number", "USD")).replace("\u202f", " ") == "< 2.28 USD (likely)"
    assert measured_of(verdict("ttft_ms p95 <= 500", None), MS) == ""


def test_the_worst_case_against_a_variant_is_the_largest_multiple(sweep: ReportData) -> None:
    """Not the slowest load: that of the variant was as slow there."""
    own = [one for one in sweep.verdicts if one["metric"] == "ttft_ms"]
    limit = {"limit": "ttft_ms p95 <= 1.10 * base", "outcome": "fail"}
    bounds = [one["value"] / (2.0 if number == 1 else 1.2) for number, one in enumerate(own)]
    against = [one | limit | {"bound": bound} for one, bound in zip(own, bounds, strict=True)]
    (row,) = rows(replace(sweep, verdicts=against))
    assert row.place == "2/s"


def test_a_number_beside_its_limit_has_the_digits_that_tell_it_apart() -> None:
    """Nobody understands why 500 ms violates a limit of 500 ms."""
    assert measured_of(verdict("ttft_ms p95 <= 500", 500.3, certainty="likely", bound=500.0), MS) == "500.3 ms (likely)"
    assert measured_of(verdict("ttft_ms p95 <= 500", 500.0004, bound=500.0), MS) == "500.0004 ms"
    assert measured_of(verdict("ttft_ms p95 <= 500", 500.0, bound=500.0), MS) == "500 ms"
    assert measured_of(verdict("attainment >= 95%", 0.94996, bound=0.95), SHARE) == "94.996 %"
    assert measured_of(verdict("rss_peak_bytes <= 2GiB", 2.15e9, bound=2.0**31), BYTES) == "2,150,000,000 bytes"
    assert measured_of(verdict("ttft_ms p95 <= 500", 746.0, bound=500.0), MS) == "746 ms"


def test_a_limit_has_one_row_with_its_worst_case(sweep: ReportData) -> None:
    """Violated ones first; the other cases in the order of the run."""
    first, second = rows(sweep)
    assert (first.outcome, first.place, first.others) == ("fail", "8/s", (("pass", "1/s, 2/s, 4/s"),))
    assert (second.outcome, second.measured, second.others) == ("pass", "0 of 900", ())
    assert [row[0].text for row in limits(sweep).rows] == ["FAIL", "PASS"]
