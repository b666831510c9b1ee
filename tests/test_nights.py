"""The fourteen real nights themselves: which commit a night has, how large the change is, and what is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.nights import ARRIVED, LEAST, QUIET, SLOW, Nights, report
from harness.scenario.reader import load

SPREAD = 0.03


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """Nights whose values are known, with all commits; nothing is measured."""
    values = 10 * np.exp(SPREAD * np.array([*[1, -1] * (QUIET // 2), 0, 8, 8, 8]))
    monkeypatch.setattr(Nights, "_points", lambda self: [{"value": value} for value in values])
    made = Nights(tmp_path)
    made._prepare()
    made._commit_until(QUIET + SLOW)
    return made


def test_commits_arrive_one_a_day_and_eight_on_the_day_of_the_change(nights: Nights) -> None:
    """One of the eight makes tokens slower, and so are all after it."""
    commits = nights.commits()
    assert len(commits) == len({*commits}) == QUIET + SLOW + ARRIVED - 1
    places = [commits.index(nights.commit_of(number)) for number in range(1, nights.last + 1)]
    assert places == [*range(QUIET), *range(QUIET - 1 + ARRIVED, QUIET + SLOW + ARRIVED - 1)]
    slow = [float(nights._git("show", f"{one}:stretch")) > 1 for one in commits]
    assert slow.index(True) == commits.index(nights.guilty)
    assert all(slow[slow.index(True) :])


def test_the_change_is_five_deviations_of_the_nights_but_at_least_eight_per_cent(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the scale of logarithms, on which nights are compared."""
    assert nights.deviation == pytest.approx(SPREAD, rel=0.05)
    assert np.log1p(nights.slowdown) == pytest.approx(5 * nights.deviation, abs=0.001)
    monkeypatch.setattr(Nights, "_points", lambda self: [{"value": 10.0}] * QUIET)
    assert Nights(nights.folder).slowdown == LEAST


def test_the_scenario_of_a_night_names_its_commit(nights: Nights) -> None:
    """So both builds can be started again."""
    scenario = load(nights.folder / "nightly.yaml", labels=["commit=abc"])
    assert "/builds/{label.commit}/serve" in str(scenario.engines[0].command)


def stored(nights: Nights, *, guilty: str, since: str, trial: dict[str, Any]) -> None:
    """The alert of the last night, the bisection and a run, as the commands store them."""
    suspects = [nights.commit_of(QUIET), nights.commit_of(QUIET + 1)]
    alert = {
        "state": "regressed",
        "title": "slower",
        "since": since,
        "suspects": suspects,
        "confirmed": True,
        "new": True,
    }
    for number in range(1, nights.last + 1):
        nights.told(number).parent.mkdir()
        nights.told(number).write_text(json.dumps({"alerts": [alert] if number == nights.last else []}))
    found = {"guilty": [{"version": guilty, "chance": 0.99}], "steps": ARRIVED, "pairs": 9}
    for name, content in (("bisect/bisection.json", found), ("runs/a/manifest.json", {"cells": [{"trials": [trial]}]})):
        (nights.folder / name).parent.mkdir(parents=True)
        (nights.folder / name).write_text(json.dumps(content))
    (nights.folder / "builds.log").write_text("1000.0 1005.0 abc\n")


@pytest.mark.parametrize(
    ("since", "begun_s", "right"), [("2026-11-27", 10, True), ("2026-11-25", 10, False), ("2026-11-27", 4, False)]
)
def test_what_is_right(nights: Nights, since: str, begun_s: int, right: bool) -> None:
    """The night, the commit, and no load beside a build."""
    trial = {"begun_ns": begun_s * 10**9, "t0_ns": 0, "ended_ns": 20 * 10**9, "t0_utc": "1970-01-01T00:16:40+00:00"}
    stored(nights, guilty=nights.guilty, since=f"{since}T02:00:00+00:00", trial=trial)
    lines, good = report(nights)
    assert good is right, lines
    assert any(line.startswith(f"COMMIT  {nights.guilty[:10]}") for line in lines)
