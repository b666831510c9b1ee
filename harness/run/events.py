"""Record the events of a child in its cell's entry of the manifest."""

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
    QualityEntry,
    SearchEntry,
    SentPrompts,
    StartEntry,
    TrialEntry,
)
from harness.store.run import RunWriter
from harness.telemetry.prometheus.scraper import ServerPages
from harness.telemetry.sampler import Sampler

Event = dict[str, Any]


class Events:
    """Receiver of a child's events (`harness.run.child`): each `on_` method takes the event of its name.

    Attributes:
        incomplete: Trial that ended early and whose records are not closed yet.
        incomplete_until_ns: Its end as an offset from its T0; negative if T0 was never fixed.
    """

    def __init__(
        self,
        writer: RunWriter,
        entry: CellEntry,
        readers: tuple[Sampler, ServerPages],
        stop: StopRequest,
        notify: Callable[[CellEntry, Event], None],
    ) -> None:
        self._writer, self._entry, self._stop, self._notify = writer, entry, stop, notify
        self._sampler, self._pages = readers
        self._child_pid = 0
        self._trial: TrialEntry | None = None
        self._began = time.monotonic()
        self._t0_ns: int | None = None  # of the running trial
        self._reached_a_trial = self._scoring = False
        self.incomplete: TrialEntry | None = None
        self.incomplete_until_ns = -1

    def child_is(self, pid: int) -> None:
        """Watch the child. Until the engine has started, its memory is not the engine's."""
        self._child_pid = pid
        self._sampler.watch([], pid)

    def receive(self, event: Event) -> None:
        """Record one event and pass it on."""
        self._pages.hear(event)
        if record := getattr(self, f"on_{event['event']}", None):
            record(event)
            self._writer.save()
        seen = {"machine": self._sampler.glance()} if event["event"] == "progress" else {}
        self._notify(self._entry, event | seen)

    def close(self, reason: str | None) -> None:
        """Close the entry after the end of the child. reason: why it failed."""
        self._pages.forget()
        if reason and self._trial is not None:
            moment = time.monotonic() - self._began
            when = "while its plan was made" if self._is_being_planned else f"{moment:.1f} s after the trial began"
            lost = self._trial
            self._end_incomplete(f"{when}: {reason}")
            self._notify(self._entry, {"event": "trial_lost", "trial": lost.index, "reason": lost.reason})
        elif self._scoring:
            self._entry.quality = QualityEntry(status="failed", reason=reason or "the run was stopped")
        elif reason and not self._reached_a_trial:
            self._lose_cell(f"before its first trial: {reason}")
        elif not self._reached_a_trial and self._entry.status == "pending" and not self._stop.level:
            self._lose_cell("its process exited without output")

    def on_starting(self, event: Event) -> None:
        self._sampler.watch_start(self._child_pid, in_process=bool(event.get("in_process")))

    def on_started(self, event: Event) -> None:
        engine = self._entry.engine_info = EngineEntry.model_validate(event["engine"])
        self._entry.start = StartEntry.model_validate(event["start"])
        self._sampler.watch(engine.pids, None if self._child_pid in engine.pids else self._child_pid)

    @property
    def _is_being_planned(self) -> bool:
        """True while the plan of the running trial is being made."""
        return self._trial is not None and self._trial.status == "pending"

    def on_planning(self, event: Event) -> None:
        self._reached_a_trial = True
        self._t0_ns = None
        self._trial = self._entry.trial_at(event["trial"])

    def on_clock(self, event: Event) -> None:
        if self._trial is not None:
            self._t0_ns = self._trial.t0_ns = event["t0_ns"]

    def on_stopped(self, _: Event) -> None:
        # No request was sent: the trial has not begun.
        if self._trial is not None:
            self._trial.status, self._trial = "pending", None

    def on_trial_begun(self, event: Event) -> None:
        self._began = time.monotonic()
        trial = self._trial = self._entry.trial_at(event["trial"])
        trial.pages, trial.begun_ns = [], time.monotonic_ns()
        self._pages.begin_tallies(trial.pages)
        trial.take(TrialEntry.model_validate({key: event[key] for key in event.keys() - {"event", "trial"}}))
        trial.status, trial.session = "running", len(self._writer.manifest.sessions)
        trial.slots = self._entry.engine_info.slots
        trial.start = self._entry.start.model_copy()  # the cell may have several
        trial.t0_ns = time.monotonic_ns()  # until the event `clock`
        trial.t0_utc = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._sampler.take_others_on_gpus()

    def on_search(self, event: Event) -> None:
        if self._trial is not None:
            self._trial.take(TrialEntry.model_validate(event["plan"]))
            self._trial.search = SearchEntry.model_validate(event["search"])

    def on_trial_ended(self, event: Event) -> None:
        trial = self._trial
        assert trial is not None
        recounted = dict(event["client"].pop("recounted", ()))
        client = trial.client = ClientEntry.model_validate(event["client"])
        trial.t0_ns, trial.ended_ns = client.t0_ns, time.monotonic_ns()
        sent = event["prompts_asked"].items()
        trial.prompts_asked = {name: SentPrompts.model_validate(counts) for name, counts in sent}
        self._end_trial(event["status"], event["reason"], recounted)

    def on_quality_begun(self, _: Event) -> None:
        self._reached_a_trial = self._scoring = True

    def on_quality(self, event: Event) -> None:
        found = self._entry.quality = QualityEntry.model_validate(event["quality"])
        if found.path:
            found.path = f"{self._entry.path}/{found.path}"  # a resumed run has another folder
        self._scoring = False

    def on_failed(self, event: Event) -> None:
        if self._is_being_planned:
            self._end_trial("failed", event["reason"])
        elif self._trial is not None:
            self._end_incomplete(event["reason"])
        elif not self._stop.level:
            self._fail_cell(event["reason"])

    def on_skipped(self, event: Event) -> None:
        if any(trial.status != "pending" for trial in self._entry.trials):
            self._fail_cell(event["reason"])  # the trials that ran stay
        else:
            self._entry.status, self._entry.reason, self._entry.trials = "skipped", event["reason"], []

    def _end_incomplete(self, reason: str) -> None:
        self.incomplete_until_ns = -1 if self._t0_ns is None else time.monotonic_ns() - self._t0_ns
        self.incomplete = self._set_outcome("failed", reason)

    def close_incomplete(self, plan: TrialEntry) -> None:
        """Close the records of the incomplete trial, once all its requests have rows."""
        assert self.incomplete is not None
        self.incomplete.take(plan, self.incomplete.unknown())
        self._writer.finish_records(self._writer.path / self.incomplete.path)
        self.incomplete = None

    def _end_trial(self, status: str, reason: str | None, recounted: Mapping[int, int] | None = None) -> None:
        trial = self._set_outcome(status, reason)
        self._writer.finish_records(self._writer.path / trial.path, recounted)

    def _set_outcome(self, status: str, reason: str | None) -> TrialEntry:
        assert self._trial is not None
        trial, self._trial = self._trial, None
        trial.status, trial.reason = status, reason
        trial.others_on_gpus = self._sampler.take_others_on_gpus()
        return trial

    def _lose_cell(self, reason: str) -> None:
        """Fail the cell, and pass it on as the child would have."""
        self._fail_cell(reason)
        self._notify(self._entry, {"event": "failed", "reason": reason})

    def _fail_cell(self, reason: str) -> None:
        self._entry.status, self._entry.reason = "failed", reason


def close_entry(entry: CellEntry, *, interrupted: bool) -> None:
    """Set the cell's status from those of its trials, and a reason for each trial that did not run."""
    for trial in entry.trials:
        if trial.status == "pending":
            trial.status = "interrupted" if interrupted else "failed"
            trial.reason = "the run was interrupted before it" if interrupted else entry.reason
    quality = entry.quality
    if quality is not None and quality.status == "pending":
        quality.status, quality.reason = "failed", entry.reason or "the configuration ended before it was scored"
    if entry.status == "pending" and not entry.trials and quality and quality.status in ("failed", "skipped"):
        entry.status, entry.reason = "failed", quality.reason
    if entry.status == "pending":
        statuses = {trial.status for trial in entry.trials}
        entry.status = next((status for status in ("failed", "interrupted") if status in statuses), "complete")
