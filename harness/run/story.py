"""What a child says of its cell, written into the cell's entry of the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from harness.run.supervisor import StopRequest
from harness.store.run import RunWriter
from harness.telemetry.sampler import Sampler

Tell = Callable[[dict[str, Any], dict[str, Any]], None]


class Story:
    """What a child said, written into the cell's entry of the manifest.

    broken: the trial that broke off, whose records are not closed yet; None: there is none.   broken_until_ns: when, as
    an offset from its T0; negative where that was never fixed.
    """

    def __init__(
        self, writer: RunWriter, entry: dict[str, Any], sampler: Sampler, stop: StopRequest, tell: Tell
    ) -> None:
        self._writer, self._entry, self._sampler, self._stop, self._tell = writer, entry, sampler, stop, tell
        self._child_pid = 0
        self._trial: dict[str, Any] | None = None
        self._began = time.monotonic()
        self._t0_ns: int | None = None  # of the trial under way
        self._reached_a_trial = False
        self._scoring = False
        self.broken: dict[str, Any] | None = None
        self.broken_until_ns = -1

    def child_is(self, pid: int) -> None:
        """The child lives: whether its memory is the engine's is not known before that has started."""
        self._child_pid = pid
        self._sampler.watch([], pid)

    def hear(self, event: dict[str, Any]) -> None:
        """One event."""
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
            heard({key: value for key, value in event.items() if key not in {"event", "trial"}}, event.get("trial"))
            self._writer.save()
        seen = {"machine": self._sampler.glance()} if event["event"] == "progress" else {}
        self._tell(self._entry, event | seen)

    def close(self, reason: str | None) -> None:
        """The child is gone. reason: why, if out of order."""
        if reason and self._trial is not None:
            moment = time.monotonic() - self._began
            when = "while its plan was made" if self._is_being_planned else f"{moment:.1f} s after the trial began"
            self._break_trial(f"{when}: {reason}")
        elif self._scoring:
            self._entry["quality"] = {"status": "failed", "reason": reason or "the run was stopped"}
        elif reason and not self._reached_a_trial:
            self._fail_cell(f"before its first trial: {reason}")
        elif not self._reached_a_trial and self._entry["status"] == "pending" and not self._stop.level:
            self._fail_cell("its process ended without a word")

    def _starting(self, facts: dict[str, Any], _: int | None) -> None:
        self._sampler.watch_start(self._child_pid, in_process=bool(facts.get("in_process")))

    def _started(self, facts: dict[str, Any], _: int | None) -> None:
        self._entry["engine_info"], self._entry["start"] = facts["engine"], facts["start"]
        pids = facts["engine"]["pids"]
        self._sampler.watch(pids, None if self._child_pid in pids else self._child_pid)

    @property
    def _is_being_planned(self) -> bool:
        """Whether the plan of the trial under way is still being made."""
        return self._trial is not None and self._trial["status"] == "pending"

    def _planning(self, _: dict[str, Any], index: int | None) -> None:
        self._reached_a_trial = True
        self._t0_ns = None
        self._trial = next(trial for trial in self._entry["trials"] if trial["index"] == index)

    def _clock(self, facts: dict[str, Any], _: int | None) -> None:
        if self._trial is not None:
            self._t0_ns = self._trial["t0_ns"] = facts["t0_ns"]

    def _stopped(self, _: dict[str, Any], __: int | None) -> None:
        """Before a request of the trial was sent: it is as if it had not begun."""
        if self._trial is not None:
            self._trial["status"], self._trial = "pending", None

    def _trial_begun(self, facts: dict[str, Any], index: int | None) -> None:
        self._began = time.monotonic()
        self._trial = next(trial for trial in self._entry["trials"] if trial["index"] == index)
        self._trial |= facts | {
            "status": "running",
            "session": len(self._writer.manifest["sessions"]),
            "slots": self._entry["engine_info"].get("slots"),
            "start": dict(self._entry["start"]),  # of the start that this trial runs on: the cell may have several
            "t0_ns": time.monotonic_ns(),  # until the client has said when exactly
            "t0_utc": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        self._sampler.take_others_on_gpus()

    def _trial_ended(self, facts: dict[str, Any], _: int | None) -> None:
        assert self._trial is not None
        client = facts["client"]
        recounted = dict(client.pop("recounted", ()))
        self._trial |= {"client": client, "t0_ns": client["t0_ns"], "ended_ns": time.monotonic_ns()}
        self._trial["prompts_asked"] = facts["prompts_asked"]
        self._end_trial(facts["status"], facts["reason"], recounted)

    def _quality_begun(self, _: dict[str, Any], __: int | None) -> None:
        self._reached_a_trial = self._scoring = True

    def _quality(self, facts: dict[str, Any], _: int | None) -> None:
        found = facts["quality"]
        stored = {"path": f"{self._entry['path']}/{found['path']}"} if found.get("path") else {}
        self._entry["quality"] = found | stored  # the cell's folder is another once its trials are measured again
        self._scoring = False

    def _failed(self, facts: dict[str, Any], _: int | None) -> None:
        if self._is_being_planned:
            self._end_trial("failed", facts["reason"])
        elif self._trial is not None:
            self._break_trial(facts["reason"])
        elif not self._stop.level:
            self._fail_cell(facts["reason"])

    def _skipped(self, facts: dict[str, Any], _: int | None) -> None:
        """Nothing of the cell can be run here; where something of it was, the rest has failed."""
        if any(trial["status"] != "pending" for trial in self._entry["trials"]):
            self._fail_cell(facts["reason"])
        else:
            self._entry |= {"status": "skipped", "reason": facts["reason"], "trials": []}

    def _break_trial(self, reason: str) -> None:
        """It did not come to its end: rows of its requests are missing."""
        assert self._trial is not None
        self.broken = self._trial
        self.broken_until_ns = -1 if self._t0_ns is None else time.monotonic_ns() - self._t0_ns
        self._trial |= {"status": "failed", "reason": reason, "others_on_gpus": self._sampler.take_others_on_gpus()}
        self._trial = None

    def close_broken(self, facts: Mapping[str, Any]) -> None:
        """The rows of the trial that broke off are complete, as far as can be. facts: of its plan."""
        assert self.broken is not None
        self.broken |= {name: value for name, value in facts.items() if self.broken.get(name) is None}
        self._writer.finish_records(self._writer.path / self.broken["path"])
        self.broken = None

    def _end_trial(self, status: str, reason: str | None, recounted: Mapping[int, int] | None = None) -> None:
        assert self._trial is not None
        self._trial |= {"status": status, "reason": reason}
        self._trial["others_on_gpus"] = self._sampler.take_others_on_gpus()
        self._writer.finish_records(self._writer.path / self._trial["path"], recounted)
        self._trial = None

    def _fail_cell(self, reason: str) -> None:
        self._entry |= {"status": "failed", "reason": reason}


def close_entry(entry: dict[str, Any], *, interrupted: bool) -> None:
    """The cell's status from its trials', and a reason for every trial that did not run."""
    for trial in entry["trials"]:
        if trial["status"] == "pending":
            why = "the run was interrupted before it" if interrupted else entry["reason"]
            trial |= {"status": "interrupted" if interrupted else "failed", "reason": why}
    quality = entry.get("quality") or {}
    if quality.get("status") == "pending":
        quality |= {"status": "failed", "reason": entry["reason"] or "the cell ended before it was scored"}
    if entry["status"] == "pending" and not entry["trials"] and quality.get("status") in ("failed", "skipped"):
        entry |= {"status": "failed", "reason": quality["reason"]}
    if entry["status"] == "pending":
        statuses = {trial["status"] for trial in entry["trials"]}
        entry["status"] = next((status for status in ("failed", "interrupted") if status in statuses), "complete")
