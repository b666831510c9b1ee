"""The search for the largest rate, on queues whose truth is known."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from harness.saturation.observed import Observed, State
from harness.saturation.probe import searched
from harness.saturation.requests import Requests, Requirement
from harness.saturation.search import Search, Settings, find
from tests.saturating import MEAN_S, SERVERS, SHARE, SLO_S, TRUE_RATE, QueueProbe, attainment, bisected, search_of

RUNS = 10  # each half a second; `make saturation` runs 50


def test_the_lower_rate_can_be_planned_with() -> None:
    """Known answer 19: on 32 servers whose true rate is 14.21/s, within 900 virtual seconds.

    Nine of ten lower rates are at most the truth (its own probability is 90 %, so two of ten may exceed it by chance),
    none by more than 3 %; four of five are at least 92 % of it.
    """
    found = [search_of(seed) for seed in range(RUNS)]
    lower = np.array([search.found.lower for search, _ in found if search.found is not None]) / TRUE_RATE
    assert len(lower) == RUNS
    assert (lower <= 1).sum() >= 8
    assert lower.max() <= 1.03
    assert (lower >= 0.92).sum() >= 8
    assert max(seconds for _, seconds in found) <= 900


def test_the_truth_of_the_queue_is_what_long_runs_give() -> None:
    """At 14.21/s 95 % of the waits are within the SLO; 3 % more load loses clearly more."""
    at_truth = np.mean([attainment(TRUE_RATE, seed, 30_000) for seed in range(3)])
    assert at_truth == pytest.approx(SHARE, abs=0.01)
    assert attainment(1.03 * TRUE_RATE, 5, 30_000) < at_truth - 0.015


def test_bisection_of_minutes_overstates_about_half_the_time() -> None:
    """What other tools do: a trial of 60 s from an empty server misses the rare long queues that decide."""
    over = np.mean([bisected(seed, 60) > 1.03 * TRUE_RATE for seed in range(40)])
    assert 0.3 <= over <= 0.7


def test_a_search_ramps_pauses_searches_and_confirms() -> None:
    """The parts follow each other; a pause sends nothing; the confirmation is at the lower rate then known."""
    search, _ = search_of(3)
    states = [one.state for one in search.visits]
    assert states[0] is State.RAMP
    assert states[-1] is State.CONFIRM
    assert State.PAUSE in states
    assert State.SEARCH in states
    assert all((one.rate == 0) == (one.state is State.PAUSE) for one in search.visits)
    assert [one.rate for one in search.visits if one.state is State.RAMP] == [1, 2, 4, 8, 16, 32]
    assert all(a.end_s == b.start_s for a, b in zip(search.visits, search.visits[1:], strict=False))


def test_a_server_that_keeps_up_with_all_that_may_be_sent_has_no_upper_rate() -> None:
    """With a largest rate of 4/s on a server of 16/s nothing is found but that: no number is made up."""
    search, _ = search_of(1, largest_rate=4.0)
    assert search.found is None
    assert search.ended == "largest_rate"


def test_without_a_confirmation_the_search_ends_with_its_width() -> None:
    """Nothing is sent after the estimate is narrow enough."""
    search, _ = search_of(35, confirm_s=0.0)
    assert search.visits[-1].state is State.SEARCH
    assert search.ended == "width"
    assert search.found is not None
    assert search.found.decisive.half_width <= search.settings.width


def test_an_slo_that_no_rate_meets_ends_the_search_at_the_lowest_rate() -> None:
    """Every first token takes 50 ms, and the SLO is 40 ms: the search goes down, and does not use up its time."""
    probe, search = QueueProbe(2, slo_s=0.04), Search(Settings((Requirement("slo", SHARE),), ttft_s=0.04))
    searched(search, probe, probe.requests())
    assert search.found is not None
    assert search.found.decisive.at_floor
    assert search.ended == "lowest_rate"
    assert search.visits[-1].state is State.CONFIRM
    assert 0 < search.visits[-1].rate <= 0.02 * search.found.facts.most_rps
    assert probe.now_s < 700


def test_the_requirement_with_the_least_rate_is_named() -> None:
    """Two requirements on the same requests: the stricter one decides."""
    probe, search = QueueProbe(35), Search(Settings((Requirement("slo", SHARE),), ttft_s=SLO_S, confirm_s=0.0))
    searched(search, probe, probe.requests())
    assert search.found is not None
    both = [with_another(one, "loose") for one in search.observed(probe.requests())]
    found = find(both, [Requirement("slo", SHARE), Requirement("loose", 0.5)], 1.0, search.found.facts)
    assert found.binding == "slo"
    assert found.lower == found.by_requirement["slo"].lower
    assert found.by_requirement["loose"].value > found.by_requirement["slo"].value


def with_another(one: Observed, name: str) -> Observed:
    """A visit with a second requirement that the same requests missed."""
    missed, effective = {**one.missed, name: one.missed["slo"]}, {**one.effective, name: one.effective["slo"]}
    return replace(one, missed=missed, effective=effective)


@dataclass
class RefusingProbe(QueueProbe):
    """The same servers without a queue: a request that finds all of them busy fails within a millisecond."""

    refused: list[bool] = field(default_factory=list)

    def send(self, rate: float, seconds: float) -> None:
        """Let arrivals of a rate come for some time; each service takes the mean time."""
        end_s = self.now_s + seconds
        for due in np.sort(self.random.uniform(self.now_s, end_s, self.random.poisson(rate * seconds))):
            refused = self.free[0] > due
            if not refused:
                heapq.heapreplace(self.free, due + self.mean_s)
            self.due.append(due)
            self.begun.append(due)
            self.ended.append(due + (0.001 if refused else self.mean_s))
            self.refused.append(refused)
        self.now_s = end_s

    def requests(self) -> Requests:
        """What a client knows now: a refused request has no latency."""
        found, refused = super().requests(), np.array(self.refused, dtype=np.bool_)
        e2e_s, ttft_s = (np.where(refused, np.nan, one) for one in (found.e2e_s, found.ttft_s))
        missed = np.where(refused & np.isfinite(found.ended_s), 1.0, found.missed["slo"])
        return replace(found, e2e_s=e2e_s, ttft_s=ttft_s, missed={"slo": missed}, parts={"errors": missed})


def test_a_server_that_refuses_requests_is_not_flooded() -> None:
    """32 servers without a queue complete 16/s at most, and at 13/s about 5 % find all of them busy (Erlang)."""
    search, probe = Search(Settings((Requirement("slo", SHARE),), ttft_s=SLO_S)), RefusingProbe(4)
    searched(search, probe, probe.requests())
    assert max(one.rate for one in search.visits) <= 4 * SERVERS / MEAN_S
    assert search.found is not None
    assert search.found.facts.most_rps == pytest.approx(SERVERS / MEAN_S, rel=0.2)
    assert 8 < search.found.lower < SERVERS / MEAN_S
