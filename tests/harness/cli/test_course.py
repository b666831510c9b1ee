"""The course of a run: what is over, and the time that is left, in virtual time."""

from __future__ import annotations

from pathlib import Path

from harness.cli.course import BAR, Course
from harness.scenario.reader import load
from harness.schedule.matrix import expand

SCENARIO = """
engines: [{engine: simulated}]
load:
  - {kind: sustained, rate: 2, warmup: 5s, duration: 60s}
  - {kind: single_user, requests: 10}
"""


class Clock:
    """A clock that is set."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_plan_gives_the_time_of_loads_that_have_one(tmp_path: Path) -> None:
    """That of a number of requests by the engine's stated or typical speed, as `--dry-run` says."""
    (tmp_path / "s.yaml").write_text(SCENARIO)
    course = Course.of(list(expand(load(tmp_path / "s.yaml"))))
    assert course.total == 2
    left_s = course.left_s("000-simulated", 0, 30.0)
    assert left_s is not None
    assert left_s > 30.0
    course.ends("000-simulated", 1)
    assert course.left_s("000-simulated", 0, 30.0) == 30.0


def test_trials_that_an_earlier_session_completed_take_no_time(tmp_path: Path) -> None:
    """A resumed run counts what is left of it."""
    (tmp_path / "s.yaml").write_text(SCENARIO)
    course = Course.of(list(expand(load(tmp_path / "s.yaml"))), done={("000-simulated", 0)})
    assert course.total == 1


def test_time_left_is_that_of_the_running_trial_and_of_all_that_follow() -> None:
    """Without a word of the trial, what its plan leaves."""
    now = Clock()
    course = Course({("a", 0): 60.0, ("a", 1): 30.0, ("b", 0): 60.0}, now)
    course.begins()
    now.now_s += 20
    assert course.left_s("a", 0, 41.0) == 131.0
    assert course.left_s("a", 0, None) == 130.0


def test_a_load_of_unknown_length_takes_as_long_as_before() -> None:
    """On another configuration; those that will not run take no time, and are not counted."""
    now = Clock()
    course = Course({("a", 0): None, ("b", 0): None, ("c", 0): None}, now)
    course.begins()
    assert course.left_s("a", 0, None) is None
    now.now_s += 12
    course.ends("a", 0)
    course.begins()
    assert course.left_s("b", 0, None) == 24.0
    course.drop("c")
    assert course.left_s("b", 0, None) == 12.0
    assert (course.ended, course.total) == (1, 2)


def test_a_trial_that_ended_early_does_not_set_the_time_of_others() -> None:
    """It counts as ended."""
    now = Clock()
    course = Course({("a", 0): 60.0, ("b", 0): 60.0}, now)
    course.begins()
    now.now_s += 3
    course.ends("a", 0, complete=False)
    course.begins()
    assert (course.ended, course.total, course.left_s("b", 0, None)) == (1, 2, 60.0)


def test_the_bar_is_that_of_the_whole_run() -> None:
    """By time where the end is known, else by the number of trials."""
    now = Clock()
    course = Course({("a", 0): 60.0, ("a", 1): 60.0}, now)
    now.now_s += 30
    line = course.line(90.0)
    assert line.count("█") == BAR // 4
    assert line.endswith("0 of 2 trials · 1:30 left")
    assert course.line(None).endswith("0 of 2 trials · 0:30 so far")
