"""Stored runs as sides by the value of a label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.comparison.comparison import compare
from harness.comparison.labels import by_label
from harness.comparison.parts import pairs_in_turns
from harness.comparison.sides import Side
from harness.errors import UsageError
from harness.store.manifest import Manifest, TrialEntry
from tests.harness.comparison.test_comparison import measured


def stored(minute: int, ttft_ms: float, cpu: str = "A", **labels: str) -> Side:
    """A run of one start that began at this minute, on a machine with this processor."""
    one = measured({"ttft_ms p50": (ttft_ms, ttft_ms - 1, ttft_ms + 1)})
    trial = TrialEntry(load="rate-4", loop="open", t0_utc=f"2026-11-30T07:{minute:02}:00+00:00")
    start = replace(one.starts[0], trial=trial)
    machine = {"must_match": {"cpu": cpu}}
    manifest = {"labels": labels, "created_utc": trial.t0_utc, "provenance": machine}
    whole = Manifest.model_validate({"name": "s", **manifest})
    return Side(f"r{minute}", Path(f"r{minute}"), whole, (replace(one, starts=(start,)),))


def test_runs_of_a_value_are_starts_of_one_side() -> None:
    """In the order in which they were made, whatever the order of their names; one without the label is left out."""
    runs = [stored(3, 63, branch="main"), stored(1, 61, branch="main"), stored(2, 72, branch="x"), stored(4, 99)]
    groups, without = by_label(runs, "branch")
    assert [*groups] == ["main", "x"]
    assert [one.name for one in without] == ["r4"]
    (main,) = groups["main"].measurements
    assert [start.values["all", "ttft_ms", "p50"] for start in main.starts] == [61, 63]
    assert main.pooled["all", "ttft_ms", "p50"].value == 62
    assert (groups["main"].name, groups["x"].name) == ("branch=main", "branch=x")


def test_runs_that_took_turns_are_pairs() -> None:
    """Four of each: the drift that both share cancels."""
    runs = [stored(2 * i, 60 + i, branch="main") for i in range(4)] + [
        stored(2 * i + 1, (60 + i) * 1.2, branch="x") for i in range(4)
    ]
    groups, _ = by_label(runs, "branch")
    pairs = pairs_in_turns(groups["main"], groups["x"])
    assert pairs == 4
    row = next(row for row in compare(groups["main"], groups["x"], pairs=pairs).rows if row.margin.metric == "ttft_ms")
    assert row.change.value == pytest.approx(1.2)
    assert row.change.interval() == pytest.approx((1.2, 1.2))


def test_few_starts_that_did_not_send_the_same_have_no_interval() -> None:
    """Two of each, one side after the other: the change is told, and that nobody can tell."""
    runs = [stored(i, 60 + i, branch="main" if i < 2 else "x") for i in range(4)]
    groups, _ = by_label(runs, "branch")
    assert pairs_in_turns(groups["main"], groups["x"]) == 0
    row = next(row for row in compare(groups["main"], groups["x"]).rows if row.margin.metric == "ttft_ms")
    assert row.change.method == "2 and 2 starts are too few for an interval"


def test_a_load_that_one_run_lacks_is_named() -> None:
    """It is in no number of that side: nothing is left out in silence."""
    runs = [stored(1, 61, branch="main"), stored(2, 63, branch="main"), stored(3, 70, branch="x")]
    more = measured(keys=("", "vllm", "", "", "rate-8"))
    runs = [replace(run, measurements=(*run.measurements, more)) if run is not runs[1] else run for run in runs]
    groups, _ = by_label(runs, "branch")
    assert compare(groups["main"], groups["x"]).missing == [
        "not every run of branch=main has vllm rate-8",
        "only branch=x has vllm rate-8",
    ]


def test_runs_of_two_machines_are_no_side() -> None:
    """The second run of a value is compared with the first of it, too; unless that is meant."""
    runs = [stored(1, 61, branch="main"), stored(2, 63, "B", branch="main"), stored(3, 70, branch="x")]
    why = "branch=main: r1 and r2 are not comparable: cpu: A and B. If that is meant, add --across hardware"
    with pytest.raises(UsageError, match=why):
        by_label(runs, "branch")
    groups, _ = by_label(runs, "branch", {"hardware"})
    assert [len(one.measurements[0].starts) for one in groups.values()] == [2, 1]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("brunch", "no run has this label; did you mean `branch`"),
        ("commit", "all runs that have it are commit=1; there is nothing to compare"),
    ],
)
def test_a_label_that_tells_nothing_apart_is_refused(key: str, why: str) -> None:
    """With the one that may be meant."""
    with pytest.raises(UsageError, match=why):
        by_label([stored(1, 60, branch="main", commit="1"), stored(2, 60, branch="x")], key)
