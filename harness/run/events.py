"""Events of a child, written into its cell's entry of the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from harness.run.supervisor import StopRequest
from harness.store.manifest import (
    CellEntry,
    ClientEntry,
    EngineEntry,
    PromptsAsked,
    QualityEntry,
    StartEntry,
    TrialEntry,
)
from harness.store.run import RunWriter
from harness.telemetry.prometheus.scraper import ServerPages
from harness.telemetry.sampler import Sampler

Event = dict[str, Any]
Tell = Callable[[CellEntry, Event], None]


class Events:
    """What a child said, written into the cell's entry of the manifest.

    Attributes:
        broken: The trial that broke off, whose records are not closed yet; None: there is none.
        broken_until_ns: When, as an offset from its T0; negative where that was never fixed.
    """

    def __init__(
        self, writer: RunWriter, entry: CellEntry, readers: tuple[Sampler, ServerPages], stop: StopRequest, tell: Tell
    ) -> None:
        self._writer, self._entry, self._stop, self._tell = writer, entry, stop, tell
        self._sampler, self._pages = readers
        self._child_pid = 0
        self._trial: TrialEntry | None = None
        self._began = time.monotonic()
        self._t0_ns: int | None = None  # of the trial under way
        self._reached_a_trial = False
        self._scoring = False
        self.broken: TrialEntry | None = None
        self.broken_until_ns = -1

    def child_is(self, pid: int) -> None:
        """Watch the child, which lives: whether its memory is the engine's is not known before that has started."""
        self._child_pid = pid
        self._sampler.watch([], pid)

    def hear(self, event: Event) -> None:
        """Take up one event, see `harness.run.child`."""
        self._pages.hear(event)
        heard = {
            "starting": self._starting,
            "started": self._started,
            "planning": self._planning,
            "clock": self._clock,
            "stopped": self._stopped,
            "trial_begun": self._trial_begun,
            "trial_ended": self._trial_ended,
            "skipped": self._skipped,
            "failed": self._failed,
            "quality_begun": self._quality_begun,
            "quality": self._quality,
        }.get(event["event"])
        if heard:
            heard(event)
            self._writer.save()
        seen = {"machine": self._sampler.glance()} if event["event"] == "progress" else {}
        self._tell(self._entry, event | seen)

    def close(self, reason: str | None) -> None:
        """Close the entry: the child is gone. reason: why, if out of order."""
        self._pages.forget()
        if reason and self._trial is not None:
            moment = time.monotonic() - self._began
            when = "while its plan was made" if self._is_being_planned else f"{moment:.1f} s after the trial began"
            self._break_trial(f"{when}: {reason}")
        elif self._scoring:
            self._entry.quality = QualityEntry(status="failed", reason=reason or "the run was stopped")
        elif reason and not self._reached_a_trial:
            self._fail_cell(f"before its first trial: {reason}")
        elif not self._reached_a_trial and self._entry.status == "pending" and not self._stop.level:
            self._fail_cell("its process ended without a word")

    def _starting(self, event: Event) -> None:
        self._sampler.watch_start(self._child_pid, in_process=bool(event.get("in_process")))

    def _started(self, event: Event) -> None:
        engine = self._entry.engine_info = EngineEntry.model_validate(event["engine"])
        self._entry.start = StartEntry.model_validate(event["start"])
        self._sampler.watch(engine.pids, None if self._child_pid in engine.pids else self._child_pid)

    @property
    def _is_being_planned(self) -> bool:
        """Whether the plan of the trial under way is still being made."""
        return self._trial is not None and self._trial.status == "pending"

    def _planning(self, event: Event) -> None:
        self._reached_a_trial = True
        self._t0_ns = None
        self._trial = self._entry.trial_at(event["trial"])

    def _clock(self, event: Event) -> None:
        if self._trial is not None:
            self._t0_ns = self._trial.t0_ns = event["t0_ns"]

    def _stopped(self, _: Event) -> None:
        """Before a request of the trial was sent: it is as if it had not begun."""
        if self._trial is not None:
            self._trial.status, self._trial = "pending", None

    def _trial_begun(self, event: Event) -> None:
        self._began = time.monotonic()
        trial = self._trial = self._entry.trial_at(event["trial"])
        trial.pages, trial.begun_ns = [], time.monotonic_ns()
        self._pages.begin_tallies(trial.pages)
        trial.take(TrialEntry.model_validate({key: event[key] for key in event.keys() - {"event", "trial"}}))
        trial.status, trial.session = "running", len(self._writer.manifest.sessions)
        trial.slots = self._entry.engine_info.slots
        trial.start = self._entry.start.model_copy()  # that it runs on: the cell may have several
        trial.t0_ns = time.monotonic_ns()  # until the client has said when exactly
        trial.t0_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._sampler.take_others_on_gpus()

    def _trial_ended(self, event: Event) -> None:
        assert self._trial is not None
        recounted = dict(event["client"].pop("recounted", ()))
        client = self._trial.client = ClientEntry.model_validate(event["client"])
        self._trial.t0_ns, self._trial.ended_ns = client.t0_ns, time.monotonic_ns()
        self._trial.prompts_asked = {
            name: PromptsAsked.model_validate(asked) for name, asked in event["prompts_asked"].items()
        }
        self._end_trial(event["status"], event["reason"], recounted)

    def _quality_begun(self, _: Event) -> None:
        self._reached_a_trial = self._scoring = True

    def _quality(self, event: Event) -> None:
        found = self._entry.quality = QualityEntry.model_validate(event["quality"])
        if found.path:
            found.path = f"{self._entry.path}/{found.path}"  # trials that are measured again go to another folder
        self._scoring = False

    def _failed(self, event: Event) -> None:
        if self._is_being_planned:
            self._end_trial("failed", event["reason"])
        elif self._trial is not None:
            self._break_trial(event["reason"])
        elif not self._stop.level:
            self._fail_cell(event["reason"])

    def _skipped(self, event: Event) -> None:
        """Nothing of the cell can be run here; where something of it was, the rest has failed."""
        if any(trial.status != "pending" for trial in self._entry.trials):
            self._fail_cell(event["reason"])
        else:
            self._entry.status, self._entry.reason, self._entry.trials = "skipped", event["reason"], []

    def _break_trial(self, reason: str) -> None:
        """It did not come to its end: rows of its requests are missing."""
        assert self._trial is not None
        self.broken = self._trial
        self.broken_until_ns = -1 if self._t0_ns is None else time.monotonic_ns() - self._t0_ns
        self._trial.status, self._trial.reason = "failed", reason
        self._trial.others_on_gpus = self._sampler.take_others_on_gpus()
        self._trial = None

    def close_broken(self, plan: TrialEntry) -> None:
        """Close the records of the trial that broke off: its rows are complete, as far as can be."""
        assert self.broken is not None
        self.broken.take(plan, self.broken.unknown())
        self._writer.finish_records(self._writer.path / self.broken.path)
        self.broken = None

    def _end_trial(self, status: str, reason: str | None, recounted: Mapping[int, int] | None = None) -> None:
        assert self._trial is not None
        self._trial.status, self._trial.reason = status, reason
        self._trial.others_on_gpus = self._sampler.take_others_on_gpus()
        self._writer.finish_records(self._writer.path / self._trial.path, recounted)
        self._trial = None

    def _fail_cell(self, reason: str) -> None:
        self._entry.status, self._entry.reason = "failed", reason


def close_entry(entry: CellEntry, *, interrupted: bool) -> None:
    """Set the cell's status from its trials', and a reason for every trial that did not run."""
    for trial in entry.trials:
        if trial.status == "pending":
            trial.status = "interrupted" if interrupted else "failed"
            trial.reason = "the run was interrupted before it" if interrupted else entry.reason
    quality = entry.quality
    if quality is not None and quality.status == "pending":
        quality.status, quality.reason = "failed", entry.reason or "the cell ended before it was scored"
    if entry.status == "pending" and not entry.trials and quality and quality.status in ("failed", "skipped"):
        entry.status, entry.reason = "failed", quality.reason
    if entry.status == "pending":
        statuses = {trial.status for trial in entry.trials}
        entry.status = next((status for status in ("failed", "interrupted") if status in statuses), "complete")
