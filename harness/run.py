"""A run, from the scenario to the stored folder: expand, then one supervised child process per cell.

Nothing here prints: `Watcher` is told what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from harness import __version__, bursts, calibration, provenance
from harness.matrix import Cell, Skip, TrialPlan, identity
from harness.scenario import Scenario
from harness.store import RunWriter
from harness.supervisor import ChildCommand, StopRequest, supervise
from harness.telemetry import Sampler
from harness.trial import CellSpec


class Watcher(Protocol):
    """Whoever wants to see a run go on."""

    def cell_begins(self, cell: dict[str, Any], number: int, total: int) -> None:
        """A cell is about to start; its entry in the manifest, its number and how many there are."""

    def event(self, cell: dict[str, Any], event: dict[str, Any]) -> None:
        """The child said something (see `harness.trial`)."""

    def stopping(self, level: int) -> None:
        """The user asked to stop: 1 finish what is in flight, 2 now."""


@dataclass(slots=True)
class RunInProgress:
    """What the steps of a run share."""

    scenario: Scenario
    writer: RunWriter
    watcher: Watcher
    stop: StopRequest = field(default_factory=StopRequest)
    cells: Sequence[Cell] = ()
    locust: Mapping[str, Any] = field(default_factory=dict)


def execute(
    scenario: Scenario,
    planned: Sequence[Cell | Skip],
    out: Path,
    watcher: Watcher,
    *,
    command: str,
    locust: Mapping[str, Any] | None = None,
) -> RunWriter:
    """Run the planned cells of a scenario and store them in `out`. The manifest's status says how it ended.

    locust: how it is used where a load asks for it (`locust_order.options`).
    Raises RunDirectoryExists if `out` is there already, StorageFailed if it cannot be written.
    """
    cells = [cell for cell in planned if isinstance(cell, Cell)]
    writer = RunWriter(out, first_manifest(scenario, planned, command))
    run = RunInProgress(scenario, writer, watcher, cells=cells, locust=locust or {})
    asyncio.run(run_cells(run, cells))
    return run.writer


def first_manifest(scenario: Scenario, planned: Sequence[Cell | Skip], command: str) -> dict[str, Any]:
    """The manifest before anything has run."""
    return {
        "harness_version": __version__,
        "name": scenario.title,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "running",
        "labels": dict(scenario.labels),
        "command": command,
        "scenario": scenario.resolved(),
        "provenance": provenance.collect() | {"calibration": calibration.summary_for_runs()},
        "notes": [],
        "cells": [cell_entry(entry) for entry in planned],
    }


def cell_entry(cell: Cell | Skip) -> dict[str, Any]:
    """A cell's part of the manifest."""
    entry: dict[str, Any] = {
        "id": cell.id,
        "index": cell.index,
        "model": cell.model,
        "engine": cell.engine,
        "level": cell.level,
        "variant": cell.variant,
        "repetition": cell.repetition,
        "status": "pending",
        "reason": None,
        "engine_info": {},
        "start": {},
        "trials": [],
    }
    if isinstance(cell, Skip):
        return entry | {"status": "skipped", "reason": cell.reason}
    entry["trials"] = [trial_entry(cell, plan) for plan in cell.trials]
    return entry


def trial_entry(cell: Cell, plan: TrialPlan) -> dict[str, Any]:
    """A trial's part of the manifest."""
    return {
        "id": plan.id,
        "index": plan.index,
        "load": plan.name,
        "kind": plan.load.kind,
        "bursts": bursts.spans_of(plan.load),
        "identity": identity(cell, plan),
        "status": "pending",
        "reason": None,
        "path": f"cells/{cell.id}/{plan.id}",
        "seed": plan.seed,
        "timeout_s": plan.timeout_s,
        "slo": plan.slo.model_dump(),
        "class_slo": {name: traffic.slo.model_dump() for name, traffic in plan.classes.items() if traffic.slo},
        "limits": list(plan.limits),
        "loop": None,
        "plan_hash": None,
        "window": None,
        "planned": None,
        "t0_ns": None,
        "t0_utc": None,
        "client": None,
    }


async def run_cells(run: RunInProgress, cells: Sequence[Cell]) -> None:
    """Every cell in its order, until the end or until the user stops."""
    manifest = run.writer.manifest
    with stop_on_signals(run):
        try:
            for number, cell in enumerate(cells, 1):
                if run.stop.level:
                    break
                entry = next(entry for entry in manifest["cells"] if entry["id"] == cell.id)
                run.watcher.cell_begins(entry, number, len(cells))
                await run_cell(run, cell, entry)
            manifest["status"] = final_status(run)
        finally:
            if manifest["status"] == "running":
                manifest["status"] = "failed"
            run.writer.save()


def final_status(run: RunInProgress) -> str:
    """How the run as a whole ended."""
    if run.stop.level:
        return "interrupted"
    cells = run.writer.manifest["cells"]
    return "failed" if any(cell["status"] == "failed" for cell in cells) else "complete"


async def run_cell(run: RunInProgress, cell: Cell, entry: dict[str, Any]) -> None:
    """One cell. What a broken child left over gets a fresh one; a child that never got to a trial ends the cell."""
    folder = run.writer.folder(f"cells/{cell.id}")
    per_trial = run.scenario.restart == "per_trial"
    with run.writer.samples(folder) as samples:
        sampler = Sampler(samples.add, client_pid=None, scope=cell.scope)
        async with sampling(sampler, run.scenario.telemetry.interval_s):
            while waiting := [trial for trial in entry["trials"] if trial["status"] == "pending"]:
                await run_child(run, cell, entry, waiting[:1] if per_trial else waiting, sampler)
                if run.stop.level or entry["status"] == "failed":
                    break
    run.writer.finish_samples(folder)
    close_entry(entry, interrupted=bool(run.stop.level))
    entry["unread"] = sampler.unread
    run.writer.save()


def more_by_locust(run: RunInProgress, waiting: Sequence[dict[str, Any]]) -> bool:
    """Whether Locust's workers are needed again once these trials have been run."""
    entries = {entry["id"]: entry for entry in run.writer.manifest["cells"]}
    now = [trial["path"] for trial in waiting]
    return any(
        plan.load.driver == "locust" and trial["status"] == "pending" and trial["path"] not in now
        for cell in run.cells
        for plan, trial in zip(cell.trials, entries[cell.id]["trials"], strict=True)
    )


async def run_child(
    run: RunInProgress, cell: Cell, entry: dict[str, Any], waiting: Sequence[dict[str, Any]], sampler: Sampler
) -> None:
    """Start a child for these trials and keep the manifest true while it runs."""
    folder = run.writer.folder(f"cells/{cell.id}")
    for trial in waiting:
        run.writer.folder(trial["path"])
    spec = CellSpec(
        scenario=run.scenario.resolved(),
        cell=cell.index,
        folder=str(folder.resolve()),
        trials=[(trial["index"], str((run.writer.path / trial["path"]).resolve())) for trial in waiting],
        locust={**run.locust, "more": more_by_locust(run, waiting)},
    )
    spec.save(folder / "child.json")
    command = ChildCommand(folder / "child.json", folder / "log.txt", cell.spec.env)
    story = Story(run, entry, sampler)
    reason = await supervise(command, run.stop, story.child_is, story.hear)
    story.close(reason)
    (folder / "child.json").unlink()
    run.writer.save()


class Story:
    """What a child said, written into the cell's entry of the manifest."""

    def __init__(self, run: RunInProgress, entry: dict[str, Any], sampler: Sampler) -> None:
        self._run, self._entry, self._sampler = run, entry, sampler
        self._child_pid = 0
        self._trial: dict[str, Any] | None = None
        self._began = time.monotonic()
        self._reached_a_trial = False

    def child_is(self, pid: int) -> None:
        """The child lives: whether its memory is the engine's is not known before that has started."""
        self._child_pid = pid
        self._sampler.watch([], pid)

    def hear(self, event: dict[str, Any]) -> None:
        """One event."""
        heard = {
            "started": self._started,
            "trial_begun": self._trial_begun,
            "trial_ended": self._trial_ended,
            "failed": self._failed,
        }.get(event["event"])
        if heard:
            heard({key: value for key, value in event.items() if key not in {"event", "trial"}}, event.get("trial"))
            self._run.writer.save()
        self._run.watcher.event(self._entry, event)

    def close(self, reason: str | None) -> None:
        """The child is gone. reason: why, if out of order."""
        if reason and self._trial is not None:
            moment = time.monotonic() - self._began
            self._end_trial("failed", f"{moment:.1f} s after the trial began: {reason}")
        elif reason and not self._reached_a_trial:
            self._fail_cell(f"before its first trial: {reason}")
        elif not self._reached_a_trial and self._entry["status"] == "pending" and not self._run.stop.level:
            self._fail_cell("its process ended without a word")

    def _started(self, facts: dict[str, Any], _: int | None) -> None:
        self._entry["engine_info"], self._entry["start"] = facts["engine"], facts["start"]
        pids = facts["engine"]["pids"]
        self._sampler.watch(pids, None if self._child_pid in pids else self._child_pid)

    def _trial_begun(self, facts: dict[str, Any], index: int | None) -> None:
        self._reached_a_trial = True
        self._began = time.monotonic()
        self._trial = next(trial for trial in self._entry["trials"] if trial["index"] == index)
        self._trial |= facts | {
            "status": "running",
            "start": dict(self._entry["start"]),  # of the start that this trial runs on: the cell may have several
            "t0_ns": time.monotonic_ns(),  # until the client has said when exactly
            "t0_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        self._sampler.take_others_on_gpus()

    def _trial_ended(self, facts: dict[str, Any], _: int | None) -> None:
        assert self._trial is not None
        self._trial["client"] = facts["client"]
        self._trial["t0_ns"] = facts["client"]["t0_ns"]
        self._end_trial(facts["status"], facts["reason"])

    def _failed(self, facts: dict[str, Any], _: int | None) -> None:
        if self._trial is not None:
            self._end_trial("failed", facts["reason"])
        elif not self._run.stop.level:
            self._fail_cell(facts["reason"])

    def _end_trial(self, status: str, reason: str | None) -> None:
        assert self._trial is not None
        self._trial |= {"status": status, "reason": reason}
        self._trial["others_on_gpus"] = self._sampler.take_others_on_gpus()
        self._run.writer.finish_records(self._run.writer.path / self._trial["path"])
        self._trial = None

    def _fail_cell(self, reason: str) -> None:
        self._entry |= {"status": "failed", "reason": reason}


def close_entry(entry: dict[str, Any], *, interrupted: bool) -> None:
    """The cell's status from its trials', and a reason for every trial that did not run."""
    for trial in entry["trials"]:
        if trial["status"] == "pending":
            why = "the run was interrupted before it" if interrupted else entry["reason"]
            trial |= {"status": "interrupted" if interrupted else "failed", "reason": why}
    if entry["status"] == "pending":
        statuses = {trial["status"] for trial in entry["trials"]}
        entry["status"] = next((status for status in ("failed", "interrupted") if status in statuses), "complete")


@contextlib.asynccontextmanager
async def sampling(sampler: Sampler, interval_s: float) -> AsyncIterator[None]:
    """Readings at absolute ticks for as long as the block lasts."""

    async def tick() -> None:
        due = time.monotonic()
        while True:
            sampler.sample()
            due = max(due + interval_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    task = asyncio.ensure_future(tick())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def stop_on_signals(run: RunInProgress) -> Any:
    """Ctrl-C or SIGTERM once: stop offering. Twice: stop now. Either way everything is saved."""

    def stop() -> None:
        run.stop.raise_level()
        run.watcher.stopping(run.stop.level)

    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
