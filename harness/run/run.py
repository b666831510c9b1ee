"""Execute or resume a run: one supervised child process per cell. A `Watcher` receives the progress."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from engines.process.log import mask
from harness.errors import HarnessError
from harness.records import Sample
from harness.run.child import CellSpec
from harness.run.entries import first_manifest
from harness.run.events import Events, close_entry
from harness.run.lock import refuse_links, run_to_ourselves
from harness.run.pages import pages_beside
from harness.run.references import References, Scoring
from harness.run.resume import begin_session, what_is_left
from harness.run.scoring import QualityOrder
from harness.run.supervisor import ChildCommand, StopRequest, supervise
from harness.run.turns import Turn
from harness.run.unrecorded import Incomplete, write_unrecorded
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip
from harness.schedule.devices import CPU, visible_gpus
from harness.schedule.matrix import expand
from harness.signals import ASKED, stop_signals
from harness.store.manifest import CellEntry, Manifest, PageReaderEntry, QualityEntry, SamplerEntry, TrialEntry
from harness.store.run import RunWriter
from harness.telemetry import provenance
from harness.telemetry.prometheus.scraper import ServerPages
from harness.telemetry.sampler import Sampler, Ticker, one_at_a_time


class Watcher(Protocol):
    """Receiver of the progress of a run."""

    def cell_begins(self, cell: CellEntry, number: int, total: int) -> None:
        """Receive the start of a cell, with its number of `total`."""

    def event(self, cell: CellEntry, event: dict[str, Any]) -> None:
        """Receive an event of the child (`harness.run.child`)."""

    def stopping(self, level: int) -> None:
        """Receive the user's request to stop: 1 finish the requests in flight, 2 now."""


@dataclass(slots=True)
class RunInProgress:
    """State that the steps of a run share.

    Attributes:
        cells: All of the run, measured in this session or not.
        turn: Place of the cell that runs beside that of another run; None if no other is up.
        beside: Processes of the other run.
    """

    scenario: Scenario
    writer: RunWriter
    watcher: Watcher
    stop: StopRequest = field(default_factory=StopRequest)
    cells: Sequence[Cell] = ()
    locust: Mapping[str, Any] = field(default_factory=dict)
    references: References | None = None
    turn: Turn | None = None
    beside: list[int] = field(default_factory=list)
    scoring: Scoring = field(default_factory=Scoring)


def execute(
    scenario: Scenario,
    planned: Sequence[Cell | Skip],
    out: Path,
    watcher: Watcher,
    *,
    command: str,
    locust: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    scoring: Scoring | None = None,
) -> RunWriter:
    """Run the planned cells of a scenario and store them in `out`. The manifest's status is the outcome.

    Raises RunDirectoryExists if `out` exists, StorageFailed if it cannot be written.

    Args:
        locust: Options of `harness.drivers.locust.options` for loads that use Locust.
        notes: Remarks for the reader, in sentences.
        scoring: What it scores, if several runs share a reference.
    """
    manifest = first_manifest(scenario, planned, command)
    manifest.notes = [*manifest.notes, *notes]
    writer = RunWriter(out, manifest)
    with run_to_ourselves(out):
        cells = [cell for cell in planned if isinstance(cell, Cell)]
        made = RunInProgress(scenario, writer, watcher, cells=cells, locust=locust or {}, scoring=scoring or Scoring())
        _run_all(made, cells)
    return writer


def go_on(path: Path, watcher: Watcher, *, command: str, locust: Mapping[str, Any] | None = None) -> RunWriter:
    """Measure the incomplete cells of a stored run.

    Raises UsageError if another process makes the run, if it holds links, or as `resume.what_is_left`.
    """
    refuse_links(path)
    with run_to_ourselves(path):
        rest = what_is_left(path)
        for log in path.rglob("log.txt"):  # of a run that was killed before it masked them
            mask(log)
        if rest.cells:
            begin_session(rest, command)
            cells = [cell for cell in rest.planned if isinstance(cell, Cell)]
            _run_all(RunInProgress(rest.scenario, rest.writer, watcher, cells=cells, locust=locust or {}), rest.cells)
        elif rest.writer.manifest.status in ("running", "interrupted"):
            rest.writer.manifest.status = final_status(rest.writer.manifest)
            rest.writer.save()
    return rest.writer


def _run_all(run: RunInProgress, cells: Sequence[Cell]) -> None:
    find_references(run)
    try:
        asyncio.run(run_cells(run, cells))
    finally:
        close_references(run)


def find_references(run: RunInProgress) -> None:
    """Set the references of a run for its quality."""
    made = run.writer.manifest.quality = dict(run.writer.manifest.quality)
    section = run.scenario.quality
    every = [cell for cell in expand(run.scenario) if isinstance(cell, Cell)] if section is not None else []
    folder, resolved = run.writer.path, run.scenario.resolved()
    run.references = References(section, run.cells, folder, resolved, made, every=every, scoring=run.scoring)


def close_references(run: RunInProgress) -> None:
    """Delete the scores of the references."""
    if run.references is not None:
        run.references.close()


async def run_cells(run: RunInProgress, cells: Sequence[Cell]) -> None:
    """Run cells in their order, until the user stops."""
    with stop_on_signals(run), ending(run):
        for number, cell in enumerate(cells, 1):
            if run.stop.level:
                break
            await run_cell(run, cell, begun(run, cell, number, len(cells)))


@contextlib.contextmanager
def ending(run: RunInProgress) -> Iterator[None]:
    """Set the outcome of a run at the end of the block, and save it."""
    manifest = run.writer.manifest
    try:
        yield
        manifest.status = "interrupted" if run.stop.level else final_status(manifest)
    finally:
        if manifest.status == "running":
            manifest.status = "failed"
        provenance.add_end(manifest.sessions[-1].provenance.context)
        run.writer.save()


def begun(run: RunInProgress, cell: Cell, number: int, total: int) -> CellEntry:
    """Return the entry of a cell that begins now, with its number of `total`."""
    manifest = run.writer.manifest
    entry = next(entry for entry in manifest.cells if entry.id == cell.id)
    manifest.sessions[-1].cells.append(cell.id)
    run.watcher.cell_begins(entry, number, total)
    return entry


def final_status(manifest: Manifest) -> str:
    """Return the status of a run whose cells have all run."""
    return "failed" if any(cell.status == "failed" for cell in manifest.cells) else "complete"


async def run_cell(run: RunInProgress, cell: Cell, entry: CellEntry) -> None:
    """Run one cell. A new child takes the trials that a failed one left; a child that reaches none ends the cell."""
    folder = run.writer.folder(entry.path)
    per_trial = run.scenario.restart == "per_trial"
    with run.writer.samples(folder) as samples:
        keep = one_at_a_time(samples.add)
        sampler, pages = reading_for(run.scenario, cell, keep, run.beside), pages_beside(cell, keep)
        with reading(pages, entry), sampling(sampler, run.scenario.telemetry.interval_s, entry):
            quality = await quality_order(run, cell, entry)
            while (waiting := [one for one in entry.trials if one.status == "pending"]) or quality:
                if run.stop.level:
                    break  # while the reference was scored
                now = waiting[:1] if per_trial else waiting
                last = len(now) == len(waiting)
                await run_child(run, cell, entry, now, (sampler, pages), quality if last else None)
                ended = entry.quality is None or entry.quality.status != "pending"
                quality = None if ended or (last and not waiting) else quality
                if run.stop.level or entry.status in ("failed", "skipped") or run.turn is not None:
                    break  # of two runs in turns, neither goes on with another start of its engine
    run.writer.finish_samples(folder)
    close_entry(entry, interrupted=bool(run.stop.level))
    run.writer.save()


async def quality_order(run: RunInProgress, cell: Cell, entry: CellEntry) -> QualityOrder | None:
    """Return the order to score the cell; None if not requested, done, or impossible (the entry has the reason)."""
    if run.references is None or not run.references.wants(cell) or (entry.quality and entry.quality.positions):
        return None
    refusal = run.references.refusal(cell)
    if refusal is not None:
        entry.quality = QualityEntry(status="skipped", reason=refusal)
        return None
    order = await run.references.order_for(cell, run.stop, lambda event: run.watcher.event(entry, event))
    reason = order if isinstance(order, str) else None
    entry.quality = QualityEntry(status="failed" if reason else "pending", reason=reason)
    run.writer.save()
    return None if isinstance(order, str) else order


def more_by_locust(run: RunInProgress, waiting: Sequence[TrialEntry]) -> bool:
    """Return whether Locust's workers are needed again after these trials."""
    entries = {entry.id: entry for entry in run.writer.manifest.cells}
    now = [trial.path for trial in waiting]
    return any(
        plan.load.driver == "locust" and trial.status == "pending" and trial.path not in now
        for cell in run.cells
        for plan, trial in zip(cell.trials, entries[cell.id].trials, strict=False)  # a skipped cell has none
    )


async def run_child(
    run: RunInProgress,
    cell: Cell,
    entry: CellEntry,
    waiting: Sequence[TrialEntry],
    readers: tuple[Sampler, ServerPages],
    quality: QualityOrder | None = None,
) -> None:
    """Run these trials, and scoring after them, in a child; record its events in the manifest."""
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
        in_turns=run.turn is not None,
    )
    spec.save(folder / "child.json")
    command = ChildCommand.of(cell, folder, run.scenario.stall_timeout_s)
    events = Events(run.writer, entry, readers, run.stop, run.watcher.event)
    reason = await supervise(command, run.stop, events.child_is, events.receive, run.turn)
    events.close(reason)
    if reason and run.turn is not None and any(trial.status == "pending" for trial in entry.trials):
        entry.status, entry.reason = "failed", entry.reason or reason
    if events.incomplete is not None:
        await complete_records(run, events, spec, command)
        mask(command.log)
    (folder / "child.json").unlink()
    run.writer.save()


async def complete_records(run: RunInProgress, events: Events, spec: CellSpec, command: ChildCommand) -> None:
    """Write a row for each planned request of an incomplete trial, if its plan can be made."""
    trial = events.incomplete
    assert trial is not None
    folder = str((run.writer.path / trial.path).resolve())
    why = "its process was gone before it was over"
    plan = Incomplete(spec.scenario, spec.cell, trial.index, spec.salt, folder, events.incomplete_until_ns, why)
    answer = await write_unrecorded(plan, command, run.stop)
    if "failed" in answer:
        trial.reason = f"{trial.reason}; requests without a record have no rows: {answer['failed']}"
    events.close_incomplete(TrialEntry.model_validate(answer.get("facts", {})))


def salt_of(writer: RunWriter, cell: Cell, entry: CellEntry) -> int:
    """Return a salt of one attempt at a cell: a server that stays up has none of its prompts in a cache."""
    what = f"salt {writer.path.name} {writer.manifest.created_utc} {cell.id} {entry.attempt}"
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:7], "big")


def reading_for(
    scenario: Scenario, cell: Cell, sink: Callable[[Sample], None], beside: Collection[int] = ()
) -> Sampler:
    """Return the sampler for a cell. It reads the GPUs that the scenario names, or else those of its engine.

    Args:
        beside: Processes of a configuration that takes turns with it.
    """
    gpus, remark = scenario.telemetry.gpus, None
    if gpus is None:
        try:
            gpus = _own_gpus(cell)
        except ValueError as error:
            remark = str(error)
    sampler = Sampler(sink, client_pid=None, scope=cell.scope, gpus=gpus, beside=beside)
    if remark:
        sampler.unread.append(remark)
    return sampler


def _own_gpus(cell: Cell) -> tuple[int, ...] | None:
    """Return the GPUs of `devices`, or else of the environment; None for all, and for a server that runs already.

    Raises ValueError as `visible_gpus`.
    """
    if cell.spec.devices:
        return tuple(int(one) for one in cell.spec.devices if one != CPU)
    return None if cell.spec.options.get("url") else visible_gpus({**os.environ, **cell.spec.env})


@contextlib.contextmanager
def reading(pages: ServerPages, entry: CellEntry) -> Iterator[None]:
    """Read the pages during the block. Failed readings and their cost go into the cell's entry."""
    try:
        with pages.reading():
            yield
    finally:
        entry.unread = [*entry.unread, *pages.unread]
        entry.page_reader = None if pages.cpu_share is None else PageReaderEntry(cpu_share=pages.cpu_share)


@contextlib.contextmanager
def sampling(sampler: Sampler, interval_s: float, entry: CellEntry) -> Iterator[None]:
    """Read this machine at absolute ticks during the block, on a thread: closing a long trial's files blocks the loop.

    Failed readings and their cost go into the cell's entry. Raises StorageFailed if a reading cannot be stored.
    """
    ticker = Ticker(sampler.sample, interval_s)
    ticker.start()
    try:
        yield
    finally:
        failure = ticker.stop()
        sampler.close()
        if failure is not None and not isinstance(failure, HarnessError):  # the records stay
            ended = f"readings ended after {ticker.pace.ticks} ticks"
            sampler.unread.append(f"{ended}: {type(failure).__name__}: {failure}")
        entry.unread = sampler.unread
        entry.sampler = SamplerEntry(scope=sampler.scope, **ticker.pace.summary())
    if isinstance(failure, HarnessError):
        raise failure


@contextlib.contextmanager
def stop_on_signals(*runs: RunInProgress) -> Any:
    """Stop sending at the first Ctrl-C, SIGTERM, SIGQUIT or SIGHUP, stop at once at the second. Everything is saved."""

    def stop() -> None:
        for run in runs:
            run.stop.raise_level()
            run.watcher.stopping(run.stop.level)

    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in stop_signals()}
    for number in before:
        loop.add_signal_handler(number, stop)
    if ASKED:  # and the command went on, for a library lost the exception
        stop()
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
