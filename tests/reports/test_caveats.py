"""Caveats: one sentence per cause, true of the loads that it names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reports import caveats
from reports.data import ReportData

LATE = {"code": "client_late", "level": "warn", "sentence": "Requests left 2 ms late.", "advice": "Lower the rate."}


def effect(value: float, high: float) -> dict[str, Any]:
    """An effect on a p95."""
    return {"metric": "ttft_ms", "statistic": "p95", "value": value, "low": value, "high": high}


def judged(data: ReportData, *reasons: Sequence[dict[str, Any]]) -> ReportData:
    """The run with these reasons for its first trials, none for the others."""
    padded = [*reasons, *[[]] * len(data.validity)]
    pairs = zip(data.validity, padded, strict=False)
    validity = [one | {"verdict": "warn" if given else "valid", "reasons": list(given)} for one, given in pairs]
    return replace(data, validity=validity, verdicts=())


def test_a_sentence_of_one_load_does_not_speak_for_all(sweep: ReportData) -> None:
    """It names the load with the largest effect, and in how many others it was seen."""
    mild, strong = (
        LATE | {"effects": [effect(100, 106)]},
        LATE | {"effects": [effect(100, 150)], "sentence": "9 ms late"},
    )
    (found,) = caveats.caveats(judged(sweep, [mild], [strong]))
    assert found.text == "in 2 of 4 loads, most at 2/s: 9 ms late. Lower the rate."


def test_a_sentence_that_is_true_of_all_is_said_once(sweep: ReportData) -> None:
    """Without an example."""
    (found,) = caveats.caveats(judged(sweep, *[[LATE]] * 4))
    assert found.text == "in all 4 loads: Requests left 2 ms late. Lower the rate."


def test_of_a_single_load_no_name_is_needed(sweep: ReportData) -> None:
    """In a run of several it is named."""
    (found,) = caveats.caveats(judged(sweep, [LATE]))
    assert found.text == "1/s: Requests left 2 ms late. Lower the rate."


def test_poor_data_come_first_then_the_largest_effect(sweep: ReportData) -> None:
    """An effect is a share of the shown value."""
    large = LATE | {"code": "arrivals", "effects": [effect(100, 200)]}
    small = LATE | {"effects": [effect(1000, 1100)]}
    poor = LATE | {"code": "token_counts", "level": "invalid"}
    assert [one.code for one in caveats.caveats(judged(sweep, [small, large, poor]))] == [
        "token_counts",
        "arrivals",
        "client_late",
    ]


def test_failed_requests_come_before_a_small_effect_on_a_latency(sweep: ReportData) -> None:
    """Each finding counts as a multiple of what is tolerated; one without a bound comes first."""
    late = LATE | {"effects": [effect(100, 107)], "size": 1.4}
    errors, lost = (LATE | {"code": code, "size": size} for code, size in (("errors", 21.4), ("load_missing", None)))
    found = caveats.caveats(judged(sweep, [late, errors, lost]))
    assert [one.code for one in found] == ["load_missing", "errors", "client_late"]


def test_more_than_three_are_counted(sweep: ReportData) -> None:
    """The report has them."""
    data = judged(sweep, [LATE | {"code": code} for code in ("a", "b", "c", "d", "e")])
    assert caveats.summary(data)[3:] == ["2 more in report.html"]


def test_advice_does_not_contradict_the_scenario(sweep: ReportData) -> None:
    """Where a limit on the error rate is set, nobody is told to set one."""
    errors = LATE | {"code": "errors", "advice": "State what is acceptable with a limit on the error rate."}
    data = judged(sweep, [errors])
    (without,) = caveats.caveats(data)
    (with_limit,) = caveats.caveats(replace(data, verdicts=sweep.verdicts))
    assert "State what is acceptable" in without.text
    assert "State what is acceptable" not in with_limit.text
