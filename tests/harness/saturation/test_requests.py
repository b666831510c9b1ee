"""Requests of a search: what each of them missed, by the SLO of all or of its class."""

from __future__ import annotations

import numpy as np
import pytest

from harness.saturation.observed import State, Visit, backlog_grows
from harness.saturation.requests import Outcomes, Requirement, bounds_of, requirements_of, tightest_ttft_s

CHAT = {"ttft_ms": 200.0, "tpot_ms": None, "e2e_ms": None, "stall_ms": None}
BATCH = {"ttft_ms": None, "tpot_ms": None, "e2e_ms": 5000.0, "stall_ms": None}
SLO = (Requirement("slo", 0.95),)


def outcomes(ttft_ms: list[float], e2e_ms: list[float], ended: list[bool] | None = None) -> Outcomes:
    """Requests due a second apart; those that have not ended are in flight."""
    due_s = np.arange(len(ttft_ms), dtype=np.float64)
    done = np.array(ended or [True] * len(ttft_ms))
    ended_s = np.where(done, due_s + np.array(e2e_ms) / 1e3, np.inf)
    nothing = np.full(len(ttft_ms), np.nan)
    values = {"ttft_ms": np.array(ttft_ms), "tpot_ms": nothing, "e2e_ms": np.array(e2e_ms), "stall_ms": nothing}
    return Outcomes(due_s, ended_s, done, values)


def test_each_request_is_judged_by_its_class() -> None:
    """The same times are good for one class and bad for the other."""
    made = outcomes([100.0, 300.0, 300.0, 300.0], [900.0, 900.0, 900.0, 9000.0])
    bounds = bounds_of({}, [CHAT, BATCH], np.array([0, 0, 1, 1]))
    found = made.meeting(bounds, SLO, 100.0)
    assert found.missed["slo"].tolist() == [0, 1, 0, 1]
    assert {name: flags.tolist() for name, flags in found.parts.items()} == {
        "ttft": [0, 1, 0, 0],
        "e2e": [0, 0, 0, 1],
        "errors": [0, 0, 0, 0],
    }


def test_a_request_in_flight_is_decided_by_the_bound_of_its_class() -> None:
    """After 6 s one of the batch class has missed its 5 s; a chat is still undecided."""
    made = outcomes([np.nan, np.nan], [np.nan, np.nan], [False, False])
    found = made.meeting(bounds_of({}, [CHAT, BATCH], np.array([0, 1])), SLO, 7.0)
    assert np.isnan(found.missed["slo"][0])
    assert found.missed["slo"][1] == 1


def test_without_classes_all_have_the_same_bounds() -> None:
    """And no bound of a request of its own."""
    assert bounds_of(CHAT, [], np.array([])) == CHAT
    assert outcomes([300.0], [900.0]).meeting(CHAT, SLO, 9.0).ttft_bounds_s is None
    assert outcomes([300.0], [900.0]).meeting(CHAT, SLO, 9.0).missed["slo"].tolist() == [1]


def test_the_tightest_bound_of_all_classes_is_that_of_the_search() -> None:
    """Classes without a bound on TTFT do not count."""
    assert tightest_ttft_s(BATCH, [CHAT, BATCH]) == pytest.approx(0.2)
    assert tightest_ttft_s(CHAT, []) == pytest.approx(0.2)
    assert tightest_ttft_s(CHAT, [BATCH]) is None


@pytest.mark.parametrize(("ttft_ms", "grows"), [(1500.0, True), (900.0, False)])
def test_first_tokens_are_late_by_the_slo_of_their_class(ttft_ms: float, grows: bool) -> None:
    """Five times 200 ms is an overload for chats, whatever the class without a bound does."""
    made = outcomes([ttft_ms, 9000.0] * 50, [ttft_ms, 9000.0] * 50)
    found = made.meeting(bounds_of({}, [CHAT, BATCH], np.tile([0, 1], 50)), SLO, 1000.0)
    visit = Visit(0, State.SEARCH, 1.0, 0.0, 100.0, 0.0)
    assert backlog_grows(found, visit, 100.0, 0.2) is grows


def test_requirements_are_those_that_a_share_of_requests_decides() -> None:
    """A limit on a class is judged on the measurement alone."""
    limits = ["chat.ttft_ms p99 <= 1s", "ttft_ms p99 <= 2s", "error_rate <= 0"]
    assert [one.name for one in requirements_of(0.9, limits)] == ["slo", "ttft_ms p99 <= 2s"]
