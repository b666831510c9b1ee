"""Each metric of docs/metrics.md says what is true, found again at the end of the way that users go."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.metrics import COSTS
from tests.known_answers.case import Case
from tests.known_answers.cases import GROUPS, Group, Run, every
from tests.known_answers.measured import Measured
from tests.known_answers.page import named, on_the_page, table

RunOnce = Callable[[Run], Measured]
OF_REQUESTS = ("Distributions", "Rates and shares")
NOT_OVER_A_SOCKET = {
    "reported_total_ms",  # said by other dialects alone
    "reported_prompt_ms",
    "reported_generation_ms",
    "reported_memory_peak_bytes",
}


@pytest.fixture(scope="session")
def measured_by(tmp_path_factory: pytest.TempPathFactory) -> RunOnce:
    """Each run is made once, when it is asked for."""
    made: dict[Run, Measured] = {}

    def once(run: Run) -> Measured:
        if run not in made:
            made[run] = run(tmp_path_factory.mktemp("known"))
        return made[run]

    return once


def test_each_metric_has_a_case() -> None:
    """None is named in docs/metrics.md that has none, and none has a case that is not named there."""
    assert {one.name for one in named()} == {case.metric for _, case in every()}


def test_each_metric_of_requests_is_known_in_virtual_time_and_over_a_socket() -> None:
    """Both ways on which requests are measured."""
    wanted = {one.name for one in named() if one.section.startswith(OF_REQUESTS)}
    for title, without in (("virtual time", set[str]()), ("a socket", NOT_OVER_A_SOCKET)):
        (group,) = (group for group in GROUPS if group.title == title)
        assert wanted - without == {case.metric for case in group.cases} & wanted


def test_the_page_has_these_cases() -> None:
    """Metric, case and truth of each, in the order of docs/metrics.md; `python -m tests.known_answers` writes them."""
    without_measured = [line.split(" | ")[:3] for line in on_the_page()]
    assert without_measured == [line.split(" | ")[:3] for line in table({})]


@pytest.mark.slow
@pytest.mark.parametrize(("group", "case"), [pytest.param(*one, id=one[1].label) for one in every()])
def test_it_says_what_is_true(group: Group, case: Case, measured_by: RunOnce) -> None:
    """What the summary says lies between the least and the most that can be so."""
    run = measured_by(group.run)
    least, most = case.allowed(run)
    assert least <= case.measured(run) <= most


@pytest.mark.slow
def test_the_page_has_what_is_measured(measured_by: RunOnce) -> None:
    """Of the runs that give the same every time."""
    assert on_the_page() == table({group.run: measured_by(group.run) for group in GROUPS if group.repeated})


@pytest.mark.slow
@pytest.mark.parametrize("group", [one for one in GROUPS if one.title != "virtual time"], ids=lambda one: one.title)
def test_a_machine_without_a_price_has_no_costs(group: Group, measured_by: RunOnce) -> None:
    """Where the scenario names no machine, nobody knows what its hour costs."""
    assert not {*COSTS} & set(measured_by(group.run).summary["metric"])
