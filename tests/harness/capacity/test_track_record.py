"""The planner's track record: what is kept, and its errors so far."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from harness.capacity.track_record import FOLDER, errors, keep, kept


def check(
    kind: str = "rate", *, ttft: float | None = None, rate: float | None = None, **of_rate: Any
) -> dict[str, Any]:
    """A check with the natural logarithms of its errors."""
    unknown = {"predicted": None, "measured": None, "interval": [], "log_error": None, "inside": None}
    one = {
        "rate_rps": 4.0,
        "why": [],
        "load": 0.9,
        "chance": 0.9,
        "measured": "yes",
        "wrong": False,
        "output_tokens_per_s": unknown,
    }
    one |= {"ttft_p95_ms": unknown | {"log_error": ttft}} | of_rate
    rates = dict.fromkeys(("holds_rps", "fails_rps", "error_least", "error_largest"))
    named = {"asked": "rate=1", "predicted_from": "chat", "configuration": "vllm", "run": "held-out-1", "kind": kind}
    numbers = {"replicas": 1, "cv": None, "output": 1.0, "predicted_rps": 5.0, "rate_error": rate, "rates": [one]}
    return named | numbers | rates | {"predicted_utc": None, "measured_utc": "2026-11-30T12:00:00+00:00"}


def row(records: list[dict[str, Any]], number: str, kind: str) -> dict[str, Any]:
    """A row of the errors."""
    (found,) = [one for one in errors(records) if (one["number"], one["kind"]) == (number, kind)]
    return found


def test_the_typical_error_is_the_mean_factor() -> None:
    """Twice as much and half of it are errors of the same size."""
    found = row([check(ttft=math.log(2)), check(ttft=-math.log(2))], "ttft_p95_ms", "rate")
    assert (found["n"], found["typical"], found["largest"]) == (2, pytest.approx(1.0), pytest.approx(1.0))
    assert row([check(rate=0.1), check(rate=-0.3)], "rate_rps", "rate")["typical"] == pytest.approx(math.expm1(0.2))


def test_predictions_inside_of_the_measured_interval_are_counted() -> None:
    """Of those whose interval is known."""
    parts = [{"log_error": 0.1, "inside": inside} for inside in (True, False, None)]
    found = row([check(ttft_p95_ms=one) for one in parts], "ttft_p95_ms", "rate")
    assert (found["n"], found["inside"], found["judged"]) == (3, 1, 2)


def test_errors_are_told_for_each_kind_of_point_and_for_all() -> None:
    """A single kind is told once."""
    both = [check("rate", ttft=0.1), check("replicas", ttft=0.3)]
    assert row(both, "ttft_p95_ms", "all")["n"] == 2
    assert {one["kind"] for one in errors(both[:1])} == {"rate"}
    assert errors([]) == []


def test_ttft_below_80_percent_load_is_told_apart() -> None:
    """The tail of a queue is steep above it."""
    found = [check(ttft=0.1, load=0.5), check(ttft=0.5, load=0.95)]
    assert row(found, "ttft_p95_ms_moderate", "rate")["largest"] == pytest.approx(math.expm1(0.1))


def test_outcomes_that_are_not_sure_are_not_judged() -> None:
    """Nor those without a prediction."""
    found = [check(wrong=True), check(), check(measured="unknown"), check(chance=None)]
    assert row(found, "holds", "rate") == {"kind": "rate", "number": "holds", "n": 2, "wrong": 1}


def test_checks_are_kept_by_name_and_damaged_ones_left_out(tmp_path: Path) -> None:
    """A prediction that nobody measured is no check; the same name replaces."""
    keep(check(ttft=0.1), tmp_path, "one")
    keep(check(ttft=0.2), tmp_path, "one")
    keep(check() | {"measured_utc": None}, tmp_path, "predicted")
    (tmp_path / FOLDER / "broken.json").write_text("{")
    (tmp_path / FOLDER / "list.json").write_text("[]")
    keep(check() | {"rates": [{}]}, tmp_path, "incomplete")
    assert [one["rates"][0]["ttft_p95_ms"]["log_error"] for one in kept(tmp_path)] == [0.2]
    assert kept(tmp_path / "none") == []
