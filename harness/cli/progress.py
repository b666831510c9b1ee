"""What a person sees while a run goes on: a moving block of lines on a terminal, plain lines elsewhere; on standard
error.

A trial that is going on, in short lines: how far it is, how fast, how the machines fare, what went wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.store.manifest import CellEntry
from reports.format import amount, for_terminal

SEPARATOR = " · "


def how_far(event: Mapping[str, Any], elapsed_s: float) -> str:
    """The phase and the time that is left. elapsed_s: since the trial began, where the event does not know better."""
    left_s = time_left_s(event, elapsed_s)
    return str(event["phase"]) + (f", {_clock(left_s)} left" if left_s else "")


def time_left_s(event: Mapping[str, Any], elapsed_s: float) -> float | None:
    """Until the end by the plan; where only a number of requests is planned, at the pace so far. None: not known."""
    known_s = event.get("elapsed_s")
    passed_s = float(elapsed_s if known_s is None else known_s)
    if event["ends_s"]:
        return max(0.0, float(event["ends_s"]) - passed_s)
    if event["planned"] and event["done"]:
        return passed_s / int(event["done"]) * max(0, int(event["planned"]) - int(event["done"]))
    return None


def how_fast(event: Mapping[str, Any]) -> list[str]:
    """Requests, rate beside what the plan offers, first tokens and tokens."""
    planned = f"/{event['planned']}" if event["planned"] else ""
    parts = [f"{event['done']}{planned} requests"]
    completed, offered = event.get("completed_rps"), event.get("offered_rps")
    if completed is not None:
        parts.append(f"{_number(completed)}{'' if offered is None else f' of {_number(offered)}'} per s")
    for name, label in (("ttft_ms", "TTFT"), ("tpot_ms", "TPOT")):
        if event.get(name) is not None:
            parts.append(f"{label} {_number(event[name])} ms")
    if event.get("tokens_per_s"):
        parts.append(f"{_number(event['tokens_per_s'])} tokens/s")
    return parts


def how_well(event: Mapping[str, Any]) -> list[str]:
    """How late this client is, memory of the engine and of the GPUs; that there are no errors, where there are none."""
    parts = [] if what_went_wrong(event) else ["no errors"]
    lags = [event[name] for name in ("send_lag_ms", "read_lag_ms") if event.get(name) is not None]
    if lags:
        parts.append(f"client late {_number(max(lags))} ms")
    machine = event.get("machine") or {}
    if machine.get("rss_bytes"):
        parts.append(f"engine {_bytes(machine['rss_bytes'])}")
    if machine.get("gpu_memory_bytes") is not None:
        total = machine.get("gpu_memory_total_bytes")
        parts.append(f"GPU {_bytes(machine['gpu_memory_bytes'])}" + (f" of {_bytes(total)}" if total else ""))
    return parts


def what_went_wrong(event: Mapping[str, Any]) -> list[str]:
    """Failed requests with the last one's reason, and load processes that are gone."""
    failed, last = event["failed"], event.get("last_failure")
    parts = [f"{failed} failed" + (f", last: {last}" if last else "")] if failed else []
    lost = event.get("workers_lost")
    return parts + ([f"load processes that died: {lost}"] if lost else [])


def fitted(name: str, rest: str, width: int) -> str:
    """A name and what follows it in one line: the name gives way, in its middle."""
    room = max(8, width - len(rest))
    if len(name) > room:
        first = (room - 1) // 2
        name = f"{name[:first]}…{name[len(name) - (room - 1 - first) :]}"
    return name + rest


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02} s"


def _number(value: float) -> str:
    """Two digits that count, or whole from ten on."""
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2g}"


def _bytes(value: float) -> str:
    return amount(float(value), show="bytes").replace("\u202f", " ")


PLAIN_EVERY_S = 5.0


class SilentWatcher:
    """`--quiet`: nothing but errors."""

    def cell_begins(self, cell: CellEntry, number: int, total: int) -> None:
        """Nothing to show."""

    def event(self, cell: CellEntry, event: dict[str, Any]) -> None:
        """Nothing to show."""

    def stopping(self, level: int) -> None:
        """Nothing to show."""


class ConsoleWatcher:
    """Tells a run as it happens. Use as a context manager: the moving block must be put away at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        self._prefix = ""
        self._trial_began_s = 0.0
        self._last_plain_s = 0.0
        self._phase = ""

    def __enter__(self) -> ConsoleWatcher:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def cell_begins(self, cell: CellEntry, number: int, total: int) -> None:
        """A new cell: its name stands before every line that follows."""
        self._prefix = f"[{number}/{total}] {cell.id.split('-', 1)[-1]}"
        self._show("preparing", at_once=True)

    def event(self, cell: CellEntry, event: dict[str, Any]) -> None:
        """One event of the child (see `harness.run.child`)."""
        kind = event["event"]
        if kind == "prepared":
            self._show("starting the engine", at_once=True)
        elif kind == "started" and event["start"].get("first_request_ms") is None:
            load_s = event["start"]["load_s"]
            what = "the server answers" if load_s is None else f"engine loaded in {load_s:.2f} s"
            self._say(f"{self._prefix}: {what}")
        elif kind == "trial_begun":
            self._trial_began_s, self._phase = time.monotonic(), ""
        elif kind == "progress":
            self._progress(cell.trials[event["trial"]].load, event)
        elif kind == "quality_progress":
            self._show(f"scoring: {event['done']}/{event['chunks']} chunks")
        elif kind == "notice":
            self._say(f"{self._prefix}: {event['text']}")
        elif kind == "waiting":
            self._trial_began_s = time.monotonic()  # which it will, when the last worker has come
            self._show(event["text"], at_once=True)
        elif kind == "trial_ended":
            if self._live:
                self._live.update(Text(""), refresh=True)  # what was shown is over
            self._say(f"{self._prefix} {cell.trials[event['trial']].load}: {ending(event)}")
        elif kind == "stopped":
            self._say(f"{self._prefix}: interrupted before the next trial")
        elif kind == "failed":
            self._say(f"{self._prefix}: failed: {event['reason']}")

    def stopping(self, level: int) -> None:
        """The user's wish was heard."""
        finishing = "stopping: finishing what is in flight (again to stop now); everything measured is saved"
        self._say(finishing if level == 1 else "stopping now; everything measured is saved")

    def _progress(self, load: str, event: dict[str, Any]) -> None:
        """A look at the trial that is going on. Where nothing moves, at once when its phase changes."""
        far = how_far(event, time.monotonic() - self._trial_began_s)
        told = (how_fast(event), how_well(event), what_went_wrong(event))
        lines = [SEPARATOR.join(parts) for parts in told if parts]
        if self._live:
            first = fitted(f"{self._prefix}{SEPARATOR}{load}", f"{SEPARATOR}{far}", self._console.width)
            self._live.update(Text("\n  ".join(map(for_terminal, (first, *lines))), no_wrap=True, overflow="ellipsis"))
            return
        changed, self._phase = event["phase"] != self._phase, event["phase"]
        self._show(f"{load}: {SEPARATOR.join([far, *lines])}", at_once=changed)

    def _show(self, text: str, *, at_once: bool = False) -> None:
        """Something that the next line may replace."""
        line = f"{self._prefix}: {text}"
        if self._live:
            self._live.update(Text(for_terminal(line), no_wrap=True, overflow="ellipsis"))
        elif at_once or time.monotonic() - self._last_plain_s >= PLAIN_EVERY_S:
            self._last_plain_s = time.monotonic()
            self._say(line)

    def _say(self, line: str) -> None:
        """Something that stays."""
        self._console.print(Text(for_terminal(line)), soft_wrap=True)


def ending(event: dict[str, Any]) -> str:
    """How a trial ended, in a few words."""
    client = event["client"]
    recorded, unsent = client["recorded"], client["not_sent"]
    sent = f"{recorded - unsent} of {recorded} requests were sent" if unsent else f"{recorded} requests"
    further = client.get("cooldown", 0)
    if further:
        sent += f", {further} of them to keep the load up until the last measured one had ended"
    return f"{event['status']}, {sent}" + (f": {event['reason']}" if event["reason"] else "")
