"""A bisection in its folder: which versions are measured, what is left out, and what goes on after an end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.comparison.rounds import Start
from harness.errors import RunUnreadable, TrialFailed
from harness.history.bisection.run import ENDS, LEFT_OUT, Outcome, Plan, as_data, conduct, step_folder
from harness.history.bisection.versions import Version
from harness.scenario.compare import Pairs
from harness.store.manifest import Manifest
from harness.store.run import RunWriter, record_writer
from reports.writers.bisection import as_markdown
from tests.fabricated import cell_entry, failed, streamed, trial_entry

VERSIONS = tuple(Version(f"b{number}", f"Change {number}") for number in range(9))
PLAN = Plan(VERSIONS, "ttft p50 +10%", 1, Pairs(4, 6), 30, {"name": "t"}, ("engines.0.command=x {commit}",))


class Lab:
    """Versions whose first tokens take longer from one on; the time of each start varies by 2 %.

    Attributes:
        starts: Versions in the order in which they were started.
        broken: Versions that cannot be started.
    """

    def __init__(
        self, guilty: int, broken: tuple[str, ...] = (), after: Callable[[int], None] = lambda _: None
    ) -> None:
        self.guilty, self.broken, self.after = guilty, broken, after
        self.starts: list[str] = []

    def __call__(self, version: Version, start: Start, place: Path) -> None:
        self.starts.append(version.name)
        self.after(len(self.starts))
        if version.name in self.broken:
            raise TrialFailed(f"{version.short}: it does not start")
        level = 100.0 if VERSIONS.index(version) < self.guilty else 130.0
        dice = np.random.default_rng((start.seed, VERSIONS.index(version)))
        store(place, level * float(dice.normal(1, 0.02)))


def store(place: Path, ttft_ms: float, lag_ms: float = 0.0) -> None:
    """A stored run of ten requests with these first tokens, sent so much after they were due."""
    trial = trial_entry(client={}, t0_utc=f"2026-11-30T07:00:00.{store_number():06}+00:00")
    cell = cell_entry(trials=[trial], path="cells/000")
    writer = RunWriter(place, Manifest(name="stored", status="complete", cells=[cell], scenario={}))
    with record_writer(writer.folder(trial.path)) as stream:
        for number in range(10):
            stream.add(streamed(number, 500.0 * number, ttft_ms=ttft_ms, lag_ms=lag_ms))
    writer.finish_records(place / trial.path)


_MADE = [0]


def store_number() -> int:
    """A number that grows with each run."""
    _MADE[0] += 1
    return _MADE[0]


def searched(lab: Lab, folder: Path, plan: Plan = PLAN, budget_s: float | None = None) -> Outcome:
    """A search to its end."""
    return conduct(plan, folder, lab, lambda _: None, budget_s)


def test_the_first_bad_version_is_named_with_its_evidence(tmp_path: Path) -> None:
    """It and the one before it were measured; the good one was started as often as all others together."""
    lab = Lab(guilty=3)
    outcome = searched(lab, tmp_path)
    assert (outcome.found.guilty, outcome.ended) == ((3,), "named")
    assert lab.starts.count("b0") == len(lab.starts) / 2
    data = as_data(PLAN, outcome)
    by_version = {one["version"]: one for one in data["tried"]}
    assert {"b2", "b3", "b8"} <= set(by_version)
    assert by_version["b8"]["low"] < 1.3 < by_version["b8"]["high"]
    assert (data["word"], data["exit_code"], data["guilty"][0]["version"]) == ("found", 0, "b3")
    text = as_markdown(data)
    assert text.startswith("## FIRST BAD b3 (")
    assert "Change 3" in text


def test_improvements_are_found_as_well(tmp_path: Path) -> None:
    """A version from which on everything is quicker."""
    lab = Lab(guilty=4)
    backwards = replace(PLAN, versions=tuple(reversed(VERSIONS)))
    outcome = searched(lab, tmp_path, backwards)
    assert [backwards.versions[step].name for step in outcome.found.guilty] == ["b3"]


def test_versions_that_do_not_differ_are_not_searched(tmp_path: Path) -> None:
    """The good against the bad one comes first, and ends it."""
    lab = Lab(guilty=99)
    outcome = searched(lab, tmp_path)
    assert outcome.row is None
    assert set(lab.starts) == {"b0", "b8"}
    data = as_data(PLAN, outcome)
    assert (data["word"], data["exit_code"]) == ("no difference", 6)
    assert as_markdown(data).startswith("## NO DIFFERENCE the good and the bad version do not surely differ")


def test_poor_data_of_the_ends_is_no_answer(tmp_path: Path) -> None:
    """It is told as such, with its own exit code."""

    def measure(version: Version, start: Start, place: Path) -> None:
        store(place, 100.0 if version == VERSIONS[0] else 200.0, lag_ms=60.0)

    outcome = conduct(PLAN, tmp_path, measure, lambda _: None)
    data = as_data(PLAN, outcome)
    assert (data["word"], data["exit_code"]) == ("poor data", 4)
    assert as_markdown(data).startswith("## POOR DATA ")


def test_a_version_that_cannot_be_measured_is_left_out(tmp_path: Path) -> None:
    """What it alone could tell apart stays together, and it is not tried again."""
    lab = Lab(guilty=3, broken=("b3", "b4"))
    outcome = searched(lab, tmp_path)
    assert outcome.found.guilty == (3, 4, 5)
    assert outcome.ended == "the versions that are left cannot be told apart"
    assert lab.starts.count("b3") + lab.starts.count("b4") <= 2
    assert all("it does not start" in why for why in outcome.left_out.values())
    data = as_data(PLAN, outcome)
    assert (data["word"], data["exit_code"]) == ("narrowed", 6)
    assert "b4: it does not start" in as_markdown(data)
    again = Lab(guilty=3)
    assert searched(again, tmp_path).found.guilty == (3, 4, 5)
    assert again.starts == []
    for step in outcome.left_out:
        (step_folder(PLAN, tmp_path, step) / LEFT_OUT).unlink()
    assert searched(again, tmp_path).found.guilty == (3,)


@pytest.mark.parametrize("broken", ["b0", "b8"])
def test_both_ends_must_be_measured(tmp_path: Path, broken: str) -> None:
    """Without them there is nothing to find."""
    with pytest.raises(TrialFailed, match=f"{broken}: it does not start"):
        searched(Lab(guilty=3, broken=(broken,)), tmp_path)


def test_a_good_version_that_no_longer_starts_ends_the_search(tmp_path: Path) -> None:
    """No step is left out for it."""

    def breaks(number: int) -> None:
        lab.broken = ("b0",) if number > 12 else ()

    lab = Lab(guilty=3, after=breaks)
    with pytest.raises(TrialFailed, match="the good version could not be measured again: b0: it does not start"):
        searched(lab, tmp_path, replace(PLAN, pairs=Pairs(4, 4)))


@pytest.mark.parametrize("last", [3, 12])
def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path: Path, last: int) -> None:
    """It comes to the same end, and starts nothing twice that was stored."""

    def kill(number: int) -> None:
        if number > last:
            raise KeyboardInterrupt

    first, second, whole = Lab(guilty=6, after=kill), Lab(guilty=6), Lab(guilty=6)
    with pytest.raises(KeyboardInterrupt):
        searched(first, tmp_path / "killed")
    ended = searched(second, tmp_path / "killed")
    expected = searched(whole, tmp_path / "whole")
    assert ended.found == expected.found
    assert first.starts[:last] + second.starts == whole.starts


def test_a_budget_and_a_number_of_pairs_end_the_search(tmp_path: Path) -> None:
    """With what is known by then."""
    few = searched(Lab(guilty=3), tmp_path / "few", replace(PLAN, most=5, pairs=Pairs(4, 4)))
    assert (few.pairs, few.ended, few.found.named) == (5, "all pairs are measured", False)
    spent = searched(Lab(guilty=3), tmp_path / "spent", budget_s=0.0)
    assert (spent.ended, len(list(tmp_path.glob("spent/step-*")))) == ("the budget is spent", 0)


def test_a_plan_is_stored_and_read(tmp_path: Path) -> None:
    """What is none is a sentence."""
    PLAN.save(tmp_path)
    assert Plan.read(tmp_path) == PLAN
    assert step_folder(PLAN, tmp_path, 8).name == ENDS
    for content in ("{", "[]", '{"format": 99}', '{"format": 1}'):
        (tmp_path / "bisect.json").write_text(content)
        with pytest.raises(RunUnreadable, match=r"bisect\.json is"):
            Plan.read(tmp_path)


def test_a_version_whose_requests_all_fail_is_left_out(tmp_path: Path) -> None:
    """As one that cannot be started: the search goes on with the others."""
    lab = Lab(guilty=3)

    def measure(version: Version, start: Start, place: Path) -> None:
        lab(version, start, place)
        if version.name == "b4":
            shutil.rmtree(place)
            store_failures(place)

    outcome = conduct(PLAN, tmp_path, measure, lambda _: None)
    assert outcome.found.guilty == (3,)
    assert "no load of both runs has this number" in outcome.left_out[4]


def store_failures(place: Path) -> None:
    """A stored run whose requests all failed."""
    trial = trial_entry(client={}, t0_utc=f"2026-11-30T07:00:00.{store_number():06}+00:00")
    cell = cell_entry(trials=[trial], path="cells/000")
    writer = RunWriter(place, Manifest(name="stored", status="complete", cells=[cell], scenario={}))
    with record_writer(writer.folder(trial.path)) as stream:
        for number in range(10):
            stream.add(failed(number, 500.0 * number, "http_error", 5.0))
    writer.finish_records(place / trial.path)


def test_a_budget_is_used_by_pairs_of_the_measured_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends of four pairs took 40 minutes: in an hour, two more pairs of ten minutes each are made."""
    lab = Lab(guilty=3)
    clock = SimpleNamespace(monotonic=lambda: 300.0 * len(lab.starts))
    monkeypatch.setattr("harness.history.bisection.run.time", clock)
    outcome = searched(lab, tmp_path, budget_s=3600.0)
    assert outcome.ended == "the budget is spent"
    assert len(lab.starts) == 2 * (4 + 2)
