"""Why trials are not simply valid, told once for each kind of reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reports.data import ReportData
from reports.tables.checks import errors as errors_table
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
    ("errors", "words"),
    [
        ([(1.0, 9.0, False)], "between 1 s and 9 s"),
        ([(1.0, 1.0, False)], "at 1 s"),
        ([(1.0, 9.0, True)], "from 1 s on, none succeeded after"),
        ([(3.0, 9.0, True), (1.0, 4.0, False)], "between 1 s and 9 s"),
        ([(None, None, False)], "at an unknown time"),
    ],
)
def test_errors_have_a_time(errors: list[tuple[float | None, float | None, bool]], words: str) -> None:
    """That of all repetitions; that none succeeded after must be true of each."""
    found = [dict(zip(("first_s", "last_s", "ended"), one, strict=True)) for one in errors]
    assert when(found).replace("\u202f", " ") == words


def test_errors_that_were_not_measured_are_told_apart(full: ReportData) -> None:
    """Those of warm-up and cooldown are no part of the error rate; an older run does not tell them apart."""
    kind = {"status": "http_error", "http_status": 503, "requests": 5, "first_s": 1.0, "last_s": 9.0, "ended": False}
    errors = [[kind | {"measured": 2, "example": "a 1"}], [kind | {"example": "a 2"}, kind | {"example": "b"}], []]
    facts = [one | {"errors": found} for one, found in zip(full.facts, errors, strict=True)]
    (first, second, third) = errors_table(replace(full, facts=facts)).rows
    assert [cell.text for cell in first[:4]] == ["http error 503", "f16 · sustained", "2", "3"]
    assert [cell.text for cell in second[2:4]] == [cell.text for cell in third[2:4]] == ["5", "0"]


def test_repetitions_are_counted_together(full: ReportData) -> None:
    """Texts that differ in numbers only are of one kind."""
    kind = {"status": "timeout", "http_status": None, "requests": 5, "measured": 4, "ended": False}
    errors = [kind | {"first_s": 1.0, "last_s": 2.0, "example": f"port {number}"} for number in (1, 2)]
    facts = [full.facts[0] | {"errors": errors}]
    (row,) = errors_table(replace(full, facts=facts)).rows
    assert [cell.text for cell in row[2:4]] == ["8", "2"]


def test_attempts_that_were_sent_again_stand_among_the_errors(full: ReportData) -> None:
    """By cause and load, with how long each took; one that was never sent has no time."""
    busy = {"cause": "HTTP 503", "attempts": 3, "measured": 2, "first_s": 1.0, "last_s": 2.0}
    never = {"cause": "connect", "attempts": 1, "measured": 1, "first_s": 3.0, "last_s": 3.0}
    failed = [busy | {"p50_ms": 4.0, "max_ms": 6.0}, never | {"p50_ms": None, "max_ms": None}]
    facts = [full.facts[0] | {"retries": {"failed": failed}}]
    (busy_line, never_line) = (
        [cell.text.replace("\u202f", " ") for cell in row] for row in errors_table(replace(full, facts=facts)).rows
    )
    took = "each took 4.00 ms (median), 6.00 ms at most"
    assert busy_line == ["HTTP 503, sent again", "f16 · sustained", "2", "1", "between 1 s and 2 s", took]
    assert never_line == ["connect, sent again", "f16 · sustained", "1", "0", "at 3 s", "each was not sent"]
