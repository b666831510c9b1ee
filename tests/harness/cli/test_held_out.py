"""`harness plan --validate`: the points that are measured and scored, and an end by the user."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.capacity.held_out import HeldOut
from harness.capacity.measured import Candidate
from harness.cli import held_out
from harness.cli.commands import run as command
from harness.errors import ExitCode, Interrupted
from harness.run.job import Job
from harness.scenario.plan import Assumptions
from harness.scenario.reader import load
from harness.schedule.matrix import expand
from harness.store.manifest import Manifest
from harness.store.run import RunWriter
from tests.planned import candidate

SCENARIO = """
engines: [{engine: simulated, options: {ttft_ms: 1, tpot_ms: 1}}]
workload: {output_tokens: 2}
load: [{kind: single_user, requests: 3}]
"""


def test_an_interrupted_point_is_not_scored_and_no_other_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with the exit code of an interrupt; no check is kept."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SCENARIO)
    scenario, measured = load(tmp_path / "s.yaml"), list[str]()

    def predicted(one: Candidate, point: HeldOut, *_: object, **__: object) -> Any:
        job = Job(scenario, list(expand(scenario)), tmp_path / point.text, stored=False)
        return SimpleNamespace(point=point, record={"predicted_utc": "2026-11-30T12:00:00+00:00"}, job=job)

    def interrupted(job: Job, *_: object, **__: object) -> None:
        measured.append(job.folder.name)
        RunWriter(job.folder, Manifest(format=1, status="interrupted", cells=[]))

    monkeypatch.setattr(held_out, "_predicted", predicted)
    monkeypatch.setattr(command, "measure", interrupted)
    best = SimpleNamespace(candidate=candidate())
    ranking: Any = SimpleNamespace(best=best, terms=SimpleNamespace(assumed=Assumptions()))
    with pytest.raises(Interrupted, match=r"`rate=0\.85` was not measured to its end and is not scored") as caught:
        held_out.checks(ranking, ["all"], consent=True, wait_s=0.0)
    assert caught.value.exit_code == ExitCode.INTERRUPTED
    assert measured == ["rate=0.85"]
    assert held_out.records() == []
