"""Progress of a run on standard error: a moving block of lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.cli.course import Course
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from reports.data import ReportData
from reports.format import amount, for_terminal
from reports.tables.overview import Overview, overview
from reports.writers.grid import grid, in_line

if TYPE_CHECKING:
    from harness.analysis.summary import Measures

Now = Callable[[], datetime]
SEPARATOR = " · "
PLAIN_EVERY_S = 30.0
ROOM_BELOW = 10  # for heads, rules and the lines below the table
MOST_LIVE = 20_000  # requests of a trial whose numbers are shown during the run: about 0.3 s of a core


def how_far(event: Mapping[str, Any], elapsed_s: float) -> str:
    """Return the phase and the time that is left; elapsed_s: since the trial began, for events without it."""
    left_s = time_left_s(event, elapsed_s)
    if not left_s:
        return str(event["phase"])
    whole = round(left_s)
    return f"{event['phase']}, " + (f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02} s") + " left"


def time_left_s(event: Mapping[str, Any], elapsed_s: float) -> float | None:
    """Return the time to the planned end, or at the pace so far if a number of requests is planned; None: unknown."""
    known_s = event.get("elapsed_s")
    passed_s = float(elapsed_s if known_s is None else known_s)
    if event["ends_s"]:
        return max(0.0, float(event["ends_s"]) - passed_s)
    if event["planned"] and event["done"]:
        return passed_s / int(event["done"]) * max(0, int(event["planned"]) - int(event["done"]))
    return None


def how_fast(event: Mapping[str, Any]) -> list[str]:
    """Return requests, completed and scheduled rate, latencies and tokens per second."""
    planned = f"/{event['planned']}" if event["planned"] else ""
    parts = [f"{event['done']}{planned} requests"]
    completed, offered = event.get("completed_rps"), event.get("offered_rps")
    if completed is not None:
        parts.append(f"{_number(completed)}{'' if offered is None else f' of {_number(offered)}'} per s")
    known = [(label, event.get(name)) for name, label in (("ttft_ms", "TTFT"), ("tpot_ms", "TPOT"))]
    medians = [f"{label} {_number(value)} ms" for label, value in known if value is not None]
    parts += [f"p50 {', '.join(medians)}"] if medians else []
    if event.get("tokens_per_s"):
        parts.append(f"{_number(event['tokens_per_s'])} tok/s")
    return parts


def how_well(event: Mapping[str, Any]) -> list[str]:
    """Return the lag of the load generator, and memory of the engine and of the GPUs."""
    parts = [] if what_went_wrong(event) else ["no errors"]
    lags = [event[name] for name in ("send_lag_ms", "read_lag_ms") if event.get(name) is not None]
    if lags:
        parts.append(f"generator lag {_number(max(lags))} ms")
    machine = event.get("machine") or {}
    if machine.get("rss_bytes"):
        parts.append(f"engine {_bytes(machine['rss_bytes'])}")
    if machine.get("gpu_memory_bytes") is not None:
        total = machine.get("gpu_memory_total_bytes")
        parts.append(f"GPU {_bytes(machine['gpu_memory_bytes'])}" + (f" of {_bytes(total)}" if total else ""))
    return parts


def what_went_wrong(event: Mapping[str, Any]) -> list[str]:
    """Return failed requests with the last reason, and lost load workers."""
    failed, last = event["failed"], event.get("last_failure")
    parts = [f"{failed} failed" + (f", last: {last}" if last else "")] if failed else []
    lost = event.get("workers_lost")
    return parts + ([f"workers lost: {lost}"] if lost else [])


def _fitted(name: str, rest: str, width: int) -> str:
    """Return a name and the text behind it in one line; a long name is shortened in its middle."""
    room = max(8, width - len(rest))
    if len(name) > room:
        first = (room - 1) // 2
        name = f"{name[:first]}…{name[len(name) - (room - 1 - first) :]}"
    return name + rest


def _number(value: float) -> str:
    """Return two significant digits; a whole number from ten on."""
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2g}"


def _bytes(value: float) -> str:
    return amount(float(value), show="bytes").replace("\u202f", " ")


class SilentWatcher:
    """Watcher of `--quiet`: it shows nothing."""

    def cell_begins(self, cell: CellEntry, number: int, total: int) -> None: ...

    def event(self, cell: CellEntry, event: dict[str, Any]) -> None: ...

    def stopping(self, level: int) -> None: ...


class ConsoleWatcher:
    """Watcher that shows a run on a console; a context manager, which clears the moving block at the end.

    On a terminal the results table grows by a line with each load, above the course of the run and the state of the
    running trial. Elsewhere each finished load is a line with its numbers. Every plain line has the time of day.
    """

    def __init__(
        self,
        console: Console,
        folder: Path | None = None,
        course: Course | None = None,
        now: Now = datetime.now,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._console, self._now = console, now
        self._live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        self._results = LiveResults(folder, columns)
        self._course = course or Course({})
        self._cell = ""
        self._table: list[Text] = []
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
        self._prefix = f"[{number}/{total}] {cell.id.split('-', 1)[-1]}"
        if self._cell != cell.id:  # trials of a process that was killed do not report their end
            self._course.drop(self._cell)
        self._cell = cell.id
        self._show("preparing", at_once=True)
        self._results.prepare()

    def event(self, cell: CellEntry, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "prepared":
            self._show("starting the engine", at_once=True)
        elif kind == "started" and event["start"].get("first_request_ms") is None:
            load_s = event["start"]["load_s"]
            ready = "the server answers" if load_s is None else f"engine started in {load_s:.2f} s"
            self._show(ready, at_once=True)
            for note in event["engine"].get("notes") or ():
                self._say(f"{self._prefix}: {note}")
        elif kind == "trial_begun":
            self._trial_began_s, self._phase = time.monotonic(), ""
            self._course.begins()
        elif kind == "progress":
            self._progress(cell, event)
        elif kind == "quality_progress":
            self._show(f"scoring: {event['done']}/{event['chunks']} chunks")
        elif kind == "notice":
            self._say(f"{self._prefix}: {event['text']}")
        elif kind == "waiting":
            self._trial_began_s = time.monotonic()  # the trial begins once the last worker has come
            self._show(event["text"], at_once=True)
        elif kind == "trial_ended":
            self._trial_ended(cell, event)
        elif kind == "trial_lost":
            self._course.ends(cell.id, event["trial"], complete=False)
            self._say(f"{self._prefix} {cell.trial_at(event['trial']).load}: failed, {event['reason']}")
        elif kind == "stopped":
            self._say(f"{self._prefix}: interrupted before the next trial")
        elif kind in ("failed", "skipped"):
            self._course.drop(cell.id)
            self._say(f"{self._prefix}: {kind}: {event['reason']}")

    def stopping(self, level: int) -> None:
        finishing = "stopping: finishing what is in flight (again to stop now); everything measured is saved"
        self._say(finishing if level == 1 else "stopping now; everything measured is saved")

    def _trial_ended(self, cell: CellEntry, event: dict[str, Any]) -> None:
        """Add the trial to the table; say its numbers where there is none, and why it is not complete."""
        trial = cell.trial_at(event["trial"])
        self._course.ends(cell.id, event["trial"], complete=event["status"] == "complete")
        numbers = self._results.add(cell, trial)
        if self._live:
            self._table = self._results.table(self._console.width, self._console.height - ROOM_BELOW)
            self._block([])
        if not self._live or event["status"] != "complete":
            self._say(SEPARATOR.join([f"{self._prefix} {trial.load}: {ending(event)}", *numbers]))

    def _progress(self, cell: CellEntry, event: dict[str, Any]) -> None:
        """Show the state of the running trial; in plain lines at once when its phase changes."""
        elapsed_s, load = time.monotonic() - self._trial_began_s, cell.trial_at(event["trial"]).load
        far = how_far(event, elapsed_s)
        lines = [SEPARATOR.join(parts) for parts in (how_fast(event), how_well(event), what_went_wrong(event)) if parts]
        if self._live:
            first = _fitted(f"{self._prefix}{SEPARATOR}{load}", f"{SEPARATOR}{far}", self._console.width)
            left_s = self._course.left_s(cell.id, event["trial"], time_left_s(event, elapsed_s))
            self._block([self._course.line(left_s), first, *(f"  {line}" for line in lines)])
            return
        changed, self._phase = event["phase"] != self._phase, event["phase"]
        self._show(f"{load}: {SEPARATOR.join([far, *lines])}", at_once=changed)

    def _show(self, text: str, *, at_once: bool = False) -> None:
        """Show a line that the next one may replace."""
        line = f"{self._prefix}: {text}"
        if self._live:
            self._block([line])
        elif at_once or time.monotonic() - self._last_plain_s >= PLAIN_EVERY_S:
            self._last_plain_s = time.monotonic()
            self._say(line)

    def _block(self, lines: Sequence[str]) -> None:
        """Show the table and these lines below it in place of the moving block."""
        if self._live:
            below = [Text(for_terminal(line)) for line in lines]
            block = Text("\n", no_wrap=True, overflow="ellipsis").join([*self._table, *below])
            self._live.update(block, refresh=not lines)

    def _say(self, line: str) -> None:
        """Print a line that stays."""
        stamp = "" if self._live else f"{self._now():%H:%M:%S} "
        self._console.print(Text(stamp + for_terminal(line)), soft_wrap=True)


class LiveResults:
    """Results of the trials that have ended, derived from their records as at the end of the run.

    Args:
        columns: Columns that the scenario chooses; None for those that fit.
    """

    def __init__(self, folder: Path | None, columns: Sequence[str] | None = None) -> None:
        self._folder = folder
        self._keys: dict[str, Any] = {"columns": [*columns]} if columns else {}
        self._measures: list[Measures] = []
        self._cells: dict[str, CellEntry] = {}

    def prepare(self) -> None:
        """Load the libraries, before any load is sent."""
        if self._folder is not None:
            importlib.import_module("harness.analysis.summary")
            importlib.import_module("pandas")

    def add(self, cell: CellEntry, trial: TrialEntry) -> list[str]:
        """Take a trial that has ended; return its numbers, nothing for one without records or with very many."""
        if self._folder is None or trial.client is None or not 0 < trial.client.recorded <= MOST_LIVE:
            return []
        from harness.analysis.reading import read
        from harness.analysis.summary import measure
        from harness.store.run import TrialData

        try:
            stored = TrialData(self._folder, cell, trial)
            own = measure(stored, read(stored), stored.samples())
        except Exception as error:  # whatever it is, the run goes on
            return [f"its numbers come at the end ({type(error).__name__})"]
        self._measures += own
        self._cells[cell.id] = cell
        found = self._overview([cell.model_copy(update={"trials": [trial]})], own)
        return in_line(found, found.lines[0])  # those of its classes follow

    def table(self, width: int, height: int) -> list[Text]:
        """Return the table of the ended trials, its last lines if there are many."""
        if not self._measures:
            return []
        found = self._overview(list(self._cells.values()), self._measures)
        return grid(replace(found, lines=found.lines[-max(1, height) :]), width)

    def _overview(self, cells: list[CellEntry], measures: list[Measures]) -> Overview:
        """Return the results of these trials; heavy libraries are loaded here."""
        from harness.analysis.summary import tidy
        from harness.metrics import definitions

        manifest = Manifest(cells=cells, scenario=self._keys)
        return overview(ReportData("", manifest, tidy(measures), definitions=definitions()))


def ending(event: dict[str, Any]) -> str:
    """Return the end of a trial in a few words."""
    client = event["client"]
    recorded, unsent = client["recorded"], client["not_sent"]
    sent = f"{recorded - unsent} of {recorded} requests were sent" if unsent else f"{recorded} requests"
    further = client.get("cooldown", 0)
    if further:
        sent += f" ({further} in the cooldown)"
    return f"{event['status']}, {sent}" + (f": {event['reason']}" if event["reason"] else "")
