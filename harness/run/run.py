"""A run, from the scenario to the stored folder: expand, then one supervised child process per cell; and on again.

Nothing here prints: `Watcher` is told what happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from harness.errors import HarnessError
from harness.records import Sample
from harness.run.child import CellSpec
from harness.run.entries import first_manifest
from harness.run.events import Events, close_entry
from harness.run.lock import run_to_ourselves
from harness.run.pages import pages_beside
from harness.run.references import References
from harness.run.resume import begin_session, what_is_left
from harness.run.scoring import QualityOrder
from harness.run.supervisor import ChildCommand, StopRequest, supervise
from harness.run.unrecorded import Broken, write_unrecorded
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip
from harness.schedule.devices import CPU, visible_gpus
from harness.schedule.matrix import expand
from harness.signals import stop_signals
from harness.store.manifest import CellEntry, Manifest, PageReaderEntry, QualityEntry, SamplerEntry, TrialEntry
from harness.store.run import RunWriter
from harness.telemetry import provenance
from harness.telemetry.prometheus.scraper import ServerPages
from harness.telemetry.sampler import Sampler, Ticker, one_at_a_time


class Watcher(Protocol):
    """Whoever wants to see a run go on."""

    def cell_begins(self, cell: CellEntry, number: int, total: int) -> None:
        """A cell is about to start; its entry in the manifest, its number and how many there are."""

    def event(self, cell: CellEntry, event: dict[str, Any]) -> None:
        """The child said something (see `harness.run.child`)."""

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
    references: References | None = None


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

    locust: how it is used where a load asks for it (`harness.drivers.locust.options`).
    Raises RunDirectoryExists if `out` is there already, StorageFailed if it cannot be written.
    """
    writer = RunWriter(out, first_manifest(scenario, planned, command))
    with run_to_ourselves(out):
        cells = [cell for cell in planned if isinstance(cell, Cell)]
        run_to_the_end(RunInProgress(scenario, writer, watcher, cells=cells, locust=locust or {}), cells)
    return writer


def go_on(path: Path, watcher: Watcher, *, command: str, locust: Mapping[str, Any] | None = None) -> RunWriter:
    """Measure what a stored run lacks; nothing, if it is complete.

    Raises UsageError if another process is at it, or as `resume.what_is_left`.
    """
    with run_to_ourselves(path):
        rest = what_is_left(path)
        if rest.cells:
            begin_session(rest, command)
            cells = [cell for cell in rest.planned if isinstance(cell, Cell)]
            run = RunInProgress(rest.scenario, rest.writer, watcher, cells=cells, locust=locust or {})
            run_to_the_end(run, rest.cells)
        elif rest.writer.manifest.status in ("running", "interrupted"):
            rest.writer.manifest.status = final_status(rest.writer.manifest)
            rest.writer.save()
    return rest.writer


def run_to_the_end(run: RunInProgress, cells: Sequence[Cell]) -> None:
    """These cells of a run, one after the other. `run.cells`: all that the run has, measured in this session or not."""
    told = run.writer.manifest.quality = dict(run.writer.manifest.quality)
    section = run.scenario.quality
    every = [cell for cell in expand(run.scenario) if isinstance(cell, Cell)] if section is not None else []
    run.references = References(section, run.cells, run.writer.path, run.scenario.resolved(), told, every=every)
    try:
        asyncio.run(run_cells(run, cells))
    finally:
        run.references.close()


async def run_cells(run: RunInProgress, cells: Sequence[Cell]) -> None:
    """Every cell in its order, until the end or until the user stops."""
    manifest = run.writer.manifest
    with stop_on_signals(run):
        try:
            for number, cell in enumerate(cells, 1):
                if run.stop.level:
                    break
                entry = next(entry for entry in manifest.cells if entry.id == cell.id)
                manifest.sessions[-1].cells.append(cell.id)
                run.watcher.cell_begins(entry, number, len(cells))
                await run_cell(run, cell, entry)
            manifest.status = "interrupted" if run.stop.level else final_status(manifest)
        finally:
            if manifest.status == "running":
                manifest.status = "failed"
            provenance.add_end(manifest.sessions[-1].provenance.context)
            run.writer.save()


def final_status(manifest: Manifest) -> str:
    """Return how the run as a whole ended, once every cell had its turn."""
    return "failed" if any(cell.status == "failed" for cell in manifest.cells) else "complete"


async def run_cell(run: RunInProgress, cell: Cell, entry: CellEntry) -> None:
    """One cell. What a broken child left over gets a fresh one; a child that never got to a trial ends the cell."""
    folder = run.writer.folder(entry.path)
    per_trial = run.scenario.restart == "per_trial"
    with run.writer.samples(folder) as samples:
        keep = one_at_a_time(samples.add)
        sampler, pages = reading_for(run.scenario, cell, keep), pages_beside(cell, keep)
        with reading(pages, entry), sampling(sampler, run.scenario.telemetry.interval_s, entry):
            quality = await quality_order(run, cell, entry)
            while (waiting := [one for one in entry.trials if one.status == "pending"]) or quality:
                if run.stop.level:
                    break  # while the reference was scored
                now = waiting[:1] if per_trial else waiting
                last = len(now) == len(waiting)
                await run_child(run, cell, entry, now, (sampler, pages), quality if last else None)
                quality = None if scored(entry) or (last and not waiting) else quality
                if run.stop.level or entry.status in ("failed", "skipped"):
                    break
    run.writer.finish_samples(folder)
    close_entry(entry, interrupted=bool(run.stop.level))
    run.writer.save()


async def quality_order(run: RunInProgress, cell: Cell, entry: CellEntry) -> QualityOrder | None:
    """What the cell's child is to score; None where nothing is asked, done already, or cannot be had (the entry says
    why then).
    """
    if run.references is None or not run.references.wants(cell) or (entry.quality and entry.quality.positions):
        return None
    refusal = run.references.refusal(cell)
    if refusal is not None:
        entry.quality = QualityEntry(status="skipped", reason=refusal)
        return None
    order = await run.references.order_for(cell, run.stop, lambda event: run.watcher.event(entry, event))
    refusal, given = (None, order) if isinstance(order, QualityOrder) else (order, None)
    entry.quality = QualityEntry(status="failed" if given is None else "pending", reason=refusal)
    run.writer.save()
    return given


def scored(entry: CellEntry) -> bool:
    """Whether scoring has come to an end, good or bad."""
    return entry.quality is None or entry.quality.status != "pending"


def more_by_locust(run: RunInProgress, waiting: Sequence[TrialEntry]) -> bool:
    """Whether Locust's workers are needed again once these trials have been run."""
    entries = {entry.id: entry for entry in run.writer.manifest.cells}
    now = [trial.path for trial in waiting]
    return any(
        plan.load.driver == "locust" and trial.status == "pending" and trial.path not in now
        for cell in run.cells
        for plan, trial in zip(cell.trials, entries[cell.id].trials, strict=False)  # none where it was skipped
    )


async def run_child(
    run: RunInProgress,
    cell: Cell,
    entry: CellEntry,
    waiting: Sequence[TrialEntry],
    readers: tuple[Sampler, ServerPages],
    quality: QualityOrder | None = None,
) -> None:
    """Start a child for these trials, and for scoring after them; keep the manifest true while it runs."""
    folder = run.writer.folder(entry.path)
    for trial in waiting:
        run.writer.folder(trial.path)
    spec = CellSpec(
        scenario=run.scenario.resolved(),
        cell=cell.index,
        folder=str(folder.resolve()),
        trials=[(trial.index, str((run.writer.path / trial.path).resolve())) for trial in waiting],
        locust={**run.locust, "more": more_by_locust(run, waiting)},
        quality={} if quality is None else asdict(quality),
        salt=salt_of(run.writer, cell, entry) if cell.stays_up else 0,
    )
    spec.save(folder / "child.json")
    command = ChildCommand.of(cell, folder, run.scenario.patience_s)
    events = Events(run.writer, entry, readers, run.stop, run.watcher.event)
    reason = await supervise(command, run.stop, events.child_is, events.hear)
    events.close(reason)
    if events.broken is not None:
        await complete_broken(run, events, spec, command)
    (folder / "child.json").unlink()
    run.writer.save()


async def complete_broken(run: RunInProgress, events: Events, spec: CellSpec, command: ChildCommand) -> None:
    """Give each planned request of a trial that broke off a row, where the plan can be made."""
    trial = events.broken
    assert trial is not None
    folder = str((run.writer.path / trial.path).resolve())
    why = "its process was gone before it was over"
    broken = Broken(spec.scenario, spec.cell, trial.index, spec.salt, folder, events.broken_until_ns, why)
    answer = await write_unrecorded(broken, command, run.stop)
    if "failed" in answer:
        trial.reason = f"{trial.reason}; requests without a record have no rows: {answer['failed']}"
    events.close_broken(TrialEntry.model_validate(answer.get("facts", {})))


def salt_of(writer: RunWriter, cell: Cell, entry: CellEntry) -> int:
    """The same for all trials of one attempt at a cell of one run, and no other, so that a server which stays up has
    none of their prompts in a cache.
    """
    what = f"salt {writer.path.name} {writer.manifest.created_utc} {cell.id} {entry.attempt}"
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:7], "big")


def reading_for(scenario: Scenario, cell: Cell, sink: Callable[[Sample], None]) -> Sampler:
    """What reads this machine for a cell: of the GPUs those that the scenario names, or that its engine may use."""
    gpus, remark = scenario.telemetry.gpus, None
    if gpus is None:
        try:
            gpus = _own_gpus(cell)
        except ValueError as error:
            remark = str(error)
    sampler = Sampler(sink, client_pid=None, scope=cell.scope, gpus=gpus)
    if remark:
        sampler.unread.append(remark)
    return sampler


def _own_gpus(cell: Cell) -> tuple[int, ...] | None:
    """Those that the scenario's `devices` gives an engine, or else the environment that it inherits; None: all. What a
    server that runs already inherited is not known. Raises ValueError as `visible_gpus`.
    """
    if cell.spec.devices:
        return tuple(int(one) for one in cell.spec.devices if one != CPU)
    return None if cell.spec.options.get("url") else visible_gpus({**os.environ, **cell.spec.env})


@contextlib.contextmanager
def reading(pages: ServerPages, entry: CellEntry) -> Iterator[None]:
    """Read the pages for as long as the block lasts. What could not be read, and what the readings took, goes into the
    cell's entry.
    """
    try:
        with pages.reading():
            yield
    finally:
        entry.unread = [*entry.unread, *pages.unread]
        entry.page_reader = None if pages.cpu_share is None else PageReaderEntry(cpu_share=pages.cpu_share)


@contextlib.contextmanager
def sampling(sampler: Sampler, interval_s: float, entry: CellEntry) -> Iterator[None]:
    """Readings at absolute ticks for as long as the block lasts, on a thread: the loop has other work, such as closing
    a long trial's files. What could not be read, and what the readings took, goes into the cell's entry.

    Raises what storing a reading raised.
    """
    ticker = Ticker(sampler.sample, interval_s)
    ticker.start()
    try:
        yield
    finally:
        failure = ticker.stop()
        sampler.close()
        if failure is not None and not isinstance(failure, HarnessError):  # what was measured is worth more
            sampler.unread.append(
                f"readings ended after {ticker.pace.ticks} ticks: {type(failure).__name__}: {failure}"
            )
        entry.unread = sampler.unread
        entry.sampler = SamplerEntry(scope=sampler.scope, **ticker.pace.summary())
    if isinstance(failure, HarnessError):
        raise failure


@contextlib.contextmanager
def stop_on_signals(run: RunInProgress) -> Any:
    """Ctrl-C, SIGTERM or SIGHUP once: stop offering. Twice: stop now. Either way everything is saved."""

    def stop() -> None:
        run.stop.raise_level()
        run.watcher.stopping(run.stop.level)

    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in stop_signals()}
    for number in before:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
