"""Why trials are not simply valid, told once for each kind of reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reports.data import ReportData
from reports.tables.checks import reasons, when
from reports.writers import html, markdown

LATE = {"code": "client_lag", "level": "warn", "advice": "Lower the rate."}


def judged(data: ReportData, *found: list[dict[str, Any]]) -> ReportData:
    """The run with these reasons against its trials, in order."""
    places = [{"cell": cell.id, "trial": trial.id} for cell, trial in data.trials()]
    return replace(
        data,
        validity=[
            place | {"verdict": own[0]["level"] if own else "valid", "reasons": own}
            for place, own in zip(places, found, strict=True)
        ],
    )


def test_a_kind_of_reason_is_one_row(full: ReportData) -> None:
    """With the number of trials, one of them in full and all of them folded; what spoils trials comes first."""
    late = [LATE | {"sentence": f"Sent {ms} ms late."} for ms in (3, 5, 7)]
    spoilt = LATE | {"level": "invalid", "sentence": "Sent 90 ms late."}
    data = judged(full, [late[0]], [late[1]], [late[2]], [spoilt])
    first, second = reasons(data).rows
    assert [cell.text for cell in first[:1] + first[2:]] == ["poor", "Sent 90 ms late.", "Lower the rate."]
    assert second[1].text == "in 3 of 4 trials"
    assert second[2].text == "For example tiny · simulated · f16, sustained: Sent 3 ms late."
    assert second[3].text == "Lower the rate."
    assert [line.partition(": ")[2] for line in second[1].folded] == [
        f"Sent {ms} ms late. Lower the rate." for ms in (3, 5, 7)
    ]
    assert all(line in html.render(data) for line in second[1].folded)
    assert "in 3 of 4 trials" in markdown.render(data)


def test_what_all_trials_have_in_common_is_said_of_all(full: ReportData) -> None:
    """The same words need no example; other advice is that of the example."""
    same = [LATE | {"sentence": "Sent late.", "advice": f"Measure {times} times as long."} for times in (2, 3, 4, 5)]
    (row,) = reasons(judged(full, *([one] for one in same))).rows
    assert [cell.text for cell in row] == [
        "usable",
        "in all 4 trials",
        "Sent late.",
        "For tiny · simulated · f16, sustained: measure 2 times as long.",
    ]


def test_a_trial_with_two_of_a_kind_is_one_trial(full: ReportData) -> None:
    """Both sentences stand in its row."""
    twice = [LATE | {"sentence": "Tokens are 3% apart."}, LATE | {"sentence": "Requests are 2% apart."}]
    (row,) = reasons(judged(full, twice, [], [], [])).rows
    assert row[1].text == "tiny · simulated · f16, sustained"
    assert row[2].text == "Tokens are 3% apart. Requests are 2% apart."
    assert row[3].text == "Lower the rate."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"requests": 5}, "between 1 s and 9 s (5 requests)"),
        ({"requests": 5, "measured": 5}, "between 1 s and 9 s (5 requests)"),
        ({"requests": 5, "measured": 2}, "between 1 s and 9 s (5 requests, 2 of them measured)"),
        ({"requests": 5, "measured": 0}, "between 1 s and 9 s (5 requests, none of them measured)"),
        ({"requests": 1, "measured": 0, "last_s": 1.0}, "at 1 s (1 request, none of them measured)"),
        (
            {"requests": 5, "measured": 4, "ended": True},
            "from 1 s on (5 requests, 4 of them measured, none succeeded after)",
        ),
    ],
)
def test_errors_that_were_not_measured_are_told_apart(error: dict[str, Any], words: str) -> None:
    """Those of warm-up and cooldown are no part of the error rate; an older run does not tell them apart."""
    assert when({"first_s": 1.0, "last_s": 9.0, "ended": False} | error).replace("\u202f", " ") == words
