"""A tuning in its folder: what is started, what is kept out, what goes on after an end, and what is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.comparison.gate import Gate
from harness.comparison.rounds import Start
from harness.errors import RunUnreadable, TrialFailed, UsageError
from harness.scenario.compare import Pairs
from harness.scenario.model import Scenario
from harness.scenario.reader import load
from harness.store.manifest import Manifest
from harness.store.run import RunWriter, record_writer
from harness.tuning import run as tuning_run
from harness.tuning.axes import parse_axes
from harness.tuning.candidates import Candidate, Target, candidates, one_start, target_of
from harness.tuning.plain import as_data
from harness.tuning.plan import Plan
from harness.tuning.race import Rounds
from harness.tuning.run import Clock, Outcome, conduct, outcome
from reports.writers.tuning import as_html, as_markdown
from tests.fabricated import cell_entry, streamed, trial_entry

OVER = ("options.max_batch=1,2,4",)
MADE = [0]


class Lab:
    """Maker of stored runs of ten requests, whose first tokens vary by 1 %.

    Attributes:
        ttft_ms: True value of each candidate by its name.
        broken: Folders, by a part of their names, whose runs fail.
        starts: Names of what was started, in order.
        scored: What was scored.
        slo: Of its requests.
        now_s: Its time: a start takes a second.
        scoring_s: What scoring takes of it.
    """

    def __init__(
        self, broken: Collection[str] = (), after: Callable[[int], None] = lambda _: None, **ttft_ms: float
    ) -> None:
        self.ttft_ms, self.broken, self.after = {"defaults": 100.0, **ttft_ms}, broken, after
        self.starts: list[str] = []
        self.scored: list[str] = []
        self.options: dict[str, Any] = {}
        self.slo: dict[str, float | None] = {"ttft_ms": None}
        self.now_s, self.scoring_s = 0.0, 0.0

    def start(self, candidate: Candidate, start: Start, folder: Path) -> None:
        self.starts.append(f"{folder.parent.name}: {candidate.name}")
        self.now_s += 1
        self.after(len(self.starts))
        dice = np.random.default_rng((start.seed, candidate.number))
        true = self.ttft_ms.get(candidate.name.replace("max_batch=", "b"), 100.0)
        failed = any(part in str(folder) for part in self.broken)
        self.store(folder, true * float(dice.normal(1, 0.01)), "no room" if failed else None)

    def scores(self, defaults: Candidate, best: Candidate, gate: Gate, folder: Path) -> None:
        self.scored.append(f"{defaults.name}, {best.name}")
        self.now_s += self.scoring_s

    def store(self, folder: Path, ttft_ms: float, failure: str | None) -> None:
        MADE[0] += 1
        begun = f"2026-11-30T07:00:00.{MADE[0]:06}+00:00"
        trial = trial_entry(client={}, t0_utc=begun, limits=["ttft_ms p50 <= 1000"], slo=self.slo)
        cell = cell_entry(trials=[trial], path="cells/000")
        status = "complete" if failure is None else "failed"
        if failure is not None:
            cell.status, cell.reason = "failed", failure
        if folder.exists():
            folder.rename(folder.with_name(f"{folder.name}-ended"))
        writer = RunWriter(folder, Manifest(name="stored", status=status, cells=[cell], scenario={}))
        with record_writer(writer.folder(trial.path)) as stream:
            for number in range(10):
                stream.add(streamed(number, 500.0 * number, ttft_ms=ttft_ms, lag_ms=0.0))
        writer.finish_records(folder / trial.path)


class Tuning:
    """A plan with its candidates, in a folder."""

    def __init__(self, folder: Path, over: Sequence[str] = OVER, **changes: Any) -> None:
        file = folder / "s.yaml"
        blocks = [{"engine": "simulated", "options": {"max_batch": 8}}]
        file.write_text(json.dumps({"engines": blocks, "load": [{"kind": "single_user", "requests": 5}]}))

        def read(more: Sequence[str]) -> Scenario:
            return one_start(load(file, sets=more), None)

        self.folder, self.target = folder / "out", target_of(read(()), {})
        self.candidates = candidates(self.target, parse_axes(over), read)
        stored = tuple(one.stored() for one in self.candidates)
        plan = Plan(tuple(over), "ttft p50 +5%", 7, Rounds(2, 4), Pairs(4, 6), None, stored)
        self.plan = replace(plan, **changes)

    def conducted(self, lab: Lab, told: list[Outcome] | None = None) -> dict[str, Any]:
        """The tuning to its end, as plain data."""
        tell = (lambda _: None) if told is None else told.append
        return self.data(conduct(self.plan, self.candidates, self.folder, lab, tell))

    def data(self, found: Outcome) -> dict[str, Any]:
        target: Target = self.target
        return as_data(self.plan, target, self.candidates, found, self.folder)


def fates(data: dict[str, Any]) -> dict[str, str]:
    """What became of each candidate."""
    return {one["name"]: one["fate"] for one in data["candidates"]}


def test_the_best_is_raced_then_confirmed_by_fresh_pairs(tmp_path: Path) -> None:
    """Losers are not started again; each round has all that are left, the pairs both sides."""
    lab, told = Lab(b1=150.0, b2=110.0, b4=70.0), list[Outcome]()
    tuning = Tuning(tmp_path)
    data = tuning.conducted(lab, told)
    assert (data["word"], data["best"], data["confirming_pairs"]) == ("better", "max_batch=4", 4)
    assert fates(data) == {"defaults": "worse", "max_batch=1": "worse", "max_batch=2": "worse", "max_batch=4": "best"}
    assert data["confirmed"]["low"] < 0.7 < data["confirmed"]["high"]
    rounds = [one.partition(":")[0] for one in lab.starts]
    assert [rounds.count(one) for one in dict.fromkeys(rounds)] == [4, 4, 2, 2, 2, 2]
    assert lab.scored == ["defaults, max_batch=4"]
    assert [one.race.standing.rounds for one in told[:2]] == [1, 2]
    assert tuning.data(outcome(tuning.plan, tuning.candidates, tuning.folder)) == data
    assert data["use"]["sets"] == ["engines.0.options.max_batch=4"]


def test_equal_candidates_end_early_and_keep_the_defaults(tmp_path: Path) -> None:
    """With 1 % of noise and a margin of 5 %, a few rounds suffice for a tie."""
    lab = Lab()
    data = Tuning(tmp_path).conducted(lab)
    assert (data["word"], data["uses"], data["exit_code"]) == ("tie", False, 0)
    assert "differ by less than the margin" in data["ended"]
    text = as_markdown(data)
    assert text.startswith("## KEEP THE DEFAULTS")
    assert "no candidate is better by more than 5 %" in text
    assert "KEEP THE DEFAULTS" in as_html(data)


def test_pairs_go_on_while_it_is_open_whether_the_best_is_better(tmp_path: Path) -> None:
    """A gain of about the margin is no worse after four pairs, which would end a gate."""
    data = Tuning(tmp_path, ("options.max_batch=4,8",)).conducted(Lab(b4=94.8))
    assert (data["word"], data["confirming_pairs"], data["exit_code"]) == ("cannot tell", 6, 6)
    assert "is shown to be better by more than 5 % (best: max_batch=4 −" in as_markdown(data).replace("\\", "")


def test_a_failed_start_takes_a_candidate_out_and_the_next_one_its_place(tmp_path: Path) -> None:
    """In the race or in the pairs. Whom it had beaten comes back. What failed is not tried again."""
    lab = Lab(b1=50.0, b2=60.0, b4=70.0, broken=["round-01/01-max_batch-1", "confirm-02-max_batch-2/pair-02/head"])
    tuning = Tuning(tmp_path)
    data = tuning.conducted(lab)
    found = {one["name"]: (one["fate"], one["why"]) for one in data["candidates"]}
    assert found["max_batch=1"] == ("failed", "no room")
    assert found["max_batch=2"] == ("failed", "no room (in its pairs)")
    assert (data["word"], data["best"]) == ("better", "max_batch=4")
    starts = len(lab.starts)
    assert tuning.conducted(lab) == data
    assert len(lab.starts) == starts


def test_a_tuning_that_was_ended_goes_on(tmp_path: Path) -> None:
    """Wherever it ended; it comes to the same."""
    over = ("options.max_batch=4,8",)
    whole = Tuning(tmp_path, over)
    expected = whole.conducted(Lab(b4=70.0))

    class Ended(Exception):
        pass

    for last in (1, 6):

        def after(number: int, last: int = last) -> None:
            if number > last:
                raise Ended

        (tmp_path / str(last)).mkdir()
        tuning = Tuning(tmp_path / str(last), over)
        with pytest.raises(Ended):
            tuning.conducted(Lab(b4=70.0, after=after))
        so_far = tuning.data(outcome(tuning.plan, tuning.candidates, tuning.folder))
        assert so_far["word"] == "unfinished"
        again = tuning.conducted(Lab(b4=70.0))
        assert {**again, "folder": ""} == {**expected, "folder": ""}


def test_defaults_that_fail_or_lack_the_number_end_a_tuning(tmp_path: Path) -> None:
    """At once: no other candidate is started. A command that goes on, or reports, ends alike."""
    lab, tuning = Lab(broken=["00-defaults"]), Tuning(tmp_path)
    why = "the defaults cannot be measured: no room; begin a new tuning"
    for _ in range(2):
        with pytest.raises(TrialFailed, match=why):
            tuning.conducted(lab)
    assert len(lab.starts) == 1
    with pytest.raises(TrialFailed, match=why):
        outcome(tuning.plan, tuning.candidates, tuning.folder)
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="the defaults have no goodput_rps that can be compared"):
        Tuning(tmp_path / "other", number="goodput_rps -5%").conducted(Lab())


def test_a_number_of_zero_takes_a_candidate_out(tmp_path: Path) -> None:
    """It has no logarithm, so that nothing can be compared with it; of the defaults it ends the tuning."""
    over, number, lab = ("options.max_batch=1,8",), "goodput_rps -5%", Lab(b1=500.0)
    lab.slo = {"ttft_ms": 200.0}
    data = Tuning(tmp_path, over, number=number).conducted(lab)
    (one,) = (one for one in data["candidates"] if one["name"] == "max_batch=1")
    assert (one["fate"], one["why"]) == ("poor data", "its number is zero, or only a bound of it is known")
    assert (data["word"], data["best"]) == ("none left", None)
    json.dumps(data, allow_nan=False)
    (tmp_path / "other").mkdir()
    lab.slo = {"ttft_ms": 50.0}
    with pytest.raises(UsageError, match="the defaults have no goodput_rps that can be compared"):
        Tuning(tmp_path / "other", over, number=number).conducted(lab)


def test_the_defaults_may_fail_in_the_pairs_too(tmp_path: Path) -> None:
    """Then nothing can be said of any candidate."""
    with pytest.raises(TrialFailed, match="the defaults cannot be measured again: pair 1, base"):
        Tuning(tmp_path).conducted(Lab(b4=70.0, broken=["pair-01/base"]))


def by_its_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a tuning read the time of its lab."""
    monkeypatch.setattr(tuning_run, "time", SimpleNamespace(monotonic=lambda: lab.now_s))
    monkeypatch.setattr(tuning_run, "Clock", lambda budget_s: Clock(budget_s, began=0.0))


def test_scoring_counts_against_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is spent afterwards: the least number of pairs is measured, though the change is not known well enough."""
    lab = Lab(b4=94.8)
    lab.scoring_s = 2000.0
    by_its_time(lab, monkeypatch)
    data = Tuning(tmp_path, ("options.max_batch=4,8",), budget_s=1000.0).conducted(lab)
    assert (data["word"], data["confirming_pairs"]) == ("cannot tell", 4)


def test_the_next_candidate_is_confirmed_only_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16.5 s suffice for eight starts of the race and one candidate's eight, and not once more."""
    lab = Lab(b1=50.0, b2=60.0, b4=70.0, broken=["confirm-01-max_batch-1/pair-01/head"])
    by_its_time(lab, monkeypatch)
    data = Tuning(tmp_path, budget_s=16.5).conducted(lab)
    assert (data["word"], data["best"], data["exit_code"]) == ("unfinished", "max_batch=2", 6)
    assert data["why"] == "the budget is spent; the fresh pairs of the best candidate are not measured"
    assert not any("confirm-02" in one for one in map(str, (tmp_path / "out").iterdir()))


def test_a_plan_is_stored_and_read_again(tmp_path: Path) -> None:
    """A folder without one, or with a damaged one, is a sentence."""
    plan = Tuning(tmp_path).plan
    plan.save(tmp_path)
    assert Plan.read(tmp_path) == plan
    assert len({plan.seed_of_round(number) for number in range(9)} | {plan.seed_of_pairs(n) for n in range(9)}) == 18
    (tmp_path / "tune.json").write_text("{}")
    with pytest.raises(RunUnreadable, match=r"tune\.json is no plan of a tuning"):
        Plan.read(tmp_path)
    (tmp_path / "tune.json").write_text('{"format": 99}')
    with pytest.raises(RunUnreadable, match="newer version"):
        Plan.read(tmp_path)
