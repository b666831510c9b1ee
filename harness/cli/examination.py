"""Examination of a machine: what is installed, whether it is fit for measuring, and the calibration of the client."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.models.cache import directory
from harness import __version__
from harness.drivers.calibration import store
from harness.drivers.calibration.store import Calibration, RateLevel, StreamLevel
from harness.errors import ExitCode, StorageFailed, TrialFailed, UsageError
from harness.run.lock import machine_to_ourselves
from harness.schedule.availability import supported
from harness.telemetry import provenance
from harness.telemetry.cgroup import raise_file_limit
from harness.verdict import thresholds
from harness.verdict.calibration import sentence
from harness.verdict.checks import Check, State, machine_checks

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.drivers.calibration.calibrator import Bounds

PACKAGES = ("harness", "engines", "reports")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def install_checks() -> Iterator[Check]:
    """Every check of the installation."""
    yield packages()
    yield python()
    yield from engine_checks()
    yield libraries()
    yield cache_folder()
    yield proxies(os.environ)


def packages(folders: Mapping[str, Path] | None = None) -> Check:
    """Where our packages were loaded from: a folder named `engines` in the working directory may stand before ours."""
    found = folders or {name: _folder(name) for name in PACKAGES}
    homes = {folder.parent for folder in found.values()}
    text = f"harness {__version__} from {', '.join(map(shown, sorted(homes)))}"
    if len(homes) > 1:
        where = "; ".join(f"{name} from {shown(folder.parent)}" for name, folder in found.items())
        advice = (
            "Parts of different installations are mixed: leave the folder that holds the wrong one, or install again."
        )
        return Check("packages", State.BAD, where, advice)
    return Check("packages", State.OK, text)


def _folder(name: str) -> Path:
    file = import_module(name).__file__ if name != "reports" else _origin(name)
    return Path(file or ".").resolve().parent


def _origin(name: str) -> str | None:
    spec = find_spec(name)
    return None if spec is None else spec.origin


def python() -> Check:
    """The interpreter, and the event loop that measuring goes through."""
    loop = "uvloop" if find_spec("uvloop") else "asyncio's own loop"
    found = f"{platform.python_implementation()} {platform.python_version()}, {loop}"
    if hasattr(sys, "gettotalrefcount") or sys.flags.dev_mode:
        return Check("Python", State.WARN, f"{found}, with debugging", "Use a build for production, without -X dev.")
    if loop != "uvloop":
        return Check("Python", State.WARN, found, "`pip install uvloop`: the client needs less time with it.")
    return Check("Python", State.OK, found)


def engine_checks() -> Iterator[Check]:
    """One for each engine that a scenario can name."""
    for one in supported():
        name = f"engine {one.name}"
        if one.broken is not None:
            yield Check(name, State.WARN, one.broken, "Install what it needs, or use another engine.")
        elif one.missing is not None:
            what, _, how = one.missing.partition(": ")
            yield Check(name, State.WARN, what, f"To use it: {how}.")
        else:
            yield Check(name, State.OK, f"{len(one.levels)} levels" if one.levels else "levels are the server's")


def libraries() -> Check:
    """Versions of what generates tokens or carries them."""
    found = provenance.under_test()["libraries"]
    return Check("libraries", State.OK, ", ".join(f"{name} {version}" for name, version in found.items()) or "none")


def cache_folder() -> Check:
    """Where derived models and calibrations are kept."""
    folder = directory().parent
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(there, os.W_OK):
        return Check("cache", State.OK, shown(folder))
    advice = "Set HARNESS_CACHE to a folder that can be written: models are built there."
    return Check("cache", State.WARN, f"{shown(there)} cannot be written", advice)


def shown(path: Path) -> str:
    """A path for people; their home is theirs."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def proxies(environment: Mapping[str, str]) -> Check:
    """Variables that send requests another way. Their values may hold passwords and are not shown."""
    named = [name for name in (*PROXIES, *map(str.lower, PROXIES)) if environment.get(name)]
    if not named:
        return Check("proxies", State.OK, "none in the environment")
    found = f"{', '.join(named)} set" + (", NO_PROXY too" if environment.get("NO_PROXY") else "")
    advice = "What goes through a proxy is measured with it: unset them, or name the target in NO_PROXY."
    return Check("proxies", State.WARN, found, advice)


RUNS = Path("runs")
COLOURS = {State.OK: "green", State.WARN: "yellow", State.BAD: "bold red"}


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found. calibration: made now, or kept from before; None without one."""

    checks: tuple[Check, ...]
    calibration: Calibration | None

    @property
    def exit_code(self) -> ExitCode:
        """TRIAL_FAILED where something makes measuring here impossible, else 0: warnings are for people."""
        bad = any(check.state is State.BAD for check in self.checks)
        return ExitCode.TRIAL_FAILED if bad else ExitCode.HOLDS

    def as_json(self) -> str:
        """Everything, for other programs."""
        document: dict[str, Any] = {
            "harness": __version__,
            "exit_code": int(self.exit_code),
            "checks": [asdict(check) for check in self.checks],
            "calibration": self.calibration.as_dict() if self.calibration else None,
        }
        return json.dumps(document, indent=1, ensure_ascii=False)


def examine(*, calibrating: bool, quick: bool, say: Callable[[str], None]) -> Examination:
    """Check everything, and calibrate where wanted. say: told what goes on while calibrating."""
    raise_file_limit()  # as every process does that sends
    checks = [*machine_checks(RUNS), *install_checks()]
    if not calibrating:
        known = store.cached()
        return Examination((*checks, kept(known)), known)
    try:
        found = calibrate_alone(quick=quick, say=say)
    except UsageError as error:
        return Examination((*checks, Check("calibration", State.WARN, f"not made: {error}")), store.cached())
    except TrialFailed as error:
        return Examination((*checks, Check("calibration", State.BAD, f"not made: {error}")), None)
    checks.append(judged(found))
    known = store.cached()
    if quick and known is not None and not known.quick:
        why = f"not kept: the whole calibration of {known.created_utc[:10]} stays the one that reports cite"
        checks.append(Check("keeping it", State.OK, why))
        return Examination(tuple(checks), found)
    try:
        store.save(found)
    except StorageFailed as error:
        checks.append(Check("keeping it", State.WARN, str(error), "Reports will say that nothing was calibrated."))
    return Examination(tuple(checks), found)


def calibrate_alone(*, quick: bool, say: Callable[[str], None]) -> Calibration:
    """Calibrate while no run measures here.

    Raises UsageError while another run measures, TrialFailed if the server of known truth does not start.
    """
    from harness.drivers.calibration.calibrator import FULL, QUICK, calibrate

    with machine_to_ourselves("harness doctor"):
        return calibrate(trusted_errors(), QUICK if quick else FULL, say)


def trusted_errors() -> Bounds:
    """The largest errors with which a load is trusted."""
    from harness.drivers.calibration.calibrator import Bounds

    return Bounds(
        first_ms=thresholds.CALIBRATED_TTFT_P99_MS.warn,
        gap_ms=thresholds.CALIBRATED_ITL_P99_MS.warn,
        lag_ms=thresholds.CALIBRATED_LAG_P99_MS.warn,
        slowdown=thresholds.CALIBRATED_SLOWDOWN.warn,
    )


def kept(known: Calibration | None) -> Check:
    """A calibration of an earlier day."""
    if known is None:
        advice = "Run `harness doctor` without --no-calibrate: it takes less than a minute."
        return Check("calibration", State.WARN, "this machine was not calibrated", advice)
    return judged(known)


def judged(found: Calibration) -> Check:
    """What a calibration says."""
    cited = sentence(found.summary())
    if found.streams:
        level = thresholds.BUSY.level(found.busy_share)
        return Check.of("calibration", level, cited, "Calibrate again when nothing else runs.")
    reason = found.levels[0].reason if found.levels else "nothing was tried"
    advice = "Free the machine of other work, or give it more cores; what is measured here cannot be believed."
    return Check("calibration", State.BAD, f"not one stream can be trusted: {reason}", advice)


def show(found: Examination, console: Console) -> None:
    """Tables for a terminal; the verdict last, where it stays in view."""
    from rich.text import Text

    console.print(_checks_table(found.checks))
    if found.calibration is not None:
        console.print(_levels_table(found.calibration))
        console.print(_rates_table(found.calibration))
        for note in found.calibration.notes:
            console.print(Text(note))
        console.print(Text(sentence(found.calibration.summary())))
    bad = sum(check.state is State.BAD for check in found.checks)
    warned = sum(check.state is State.WARN for check in found.checks)
    verdict = f"{bad} bad: nothing measured here can be believed" if bad else "Fit to measure"
    console.print(Text(f"{verdict} · {warned} warning{'s' * (warned > 1)}" if warned else verdict, style="bold"))


def _checks_table(checks: tuple[Check, ...]) -> Table:
    from rich.text import Text

    table = _table("This machine", ("", "check", "what was found", "what to do"))
    for check in checks:
        state = Text(check.state.upper(), style=COLOURS[check.state])
        table.add_row(state, *map(Text, (check.name, check.found, check.advice)))
    return table


def _levels_table(found: Calibration) -> Table:
    head = ("streams", "chunks/s", "TTFT error p50 / p99 / max, ms", "gap error p50 / p99 / max, ms", "client CPU",
            "server CPU", "merged reads", "clock", "trusted")  # fmt: skip
    table = _table("Error of recorded arrivals against the times in the chunks", head, numbers_from=0)
    for level in found.levels:
        table.add_row(*_level_cells(level))
    return table


def _level_cells(level: StreamLevel) -> tuple[str, ...]:
    ttft = _three(level.ttft_error_p50_ms, level.ttft_error_p99_ms, level.ttft_error_max_ms)
    gaps = _three(level.itl_error_p50_ms, level.itl_error_p99_ms, level.itl_error_max_ms)
    shares = f"{level.cpu_share:.0%}", f"{level.server_cpu_share:.0%}", f"{level.merged_read_share:.1%}"
    trusted = "yes" if level.held else level.reason or "no"
    return f"{level.streams:,}", f"{level.events_per_s:,.0f}", ttft, gaps, *shares, level.clock, trusted


def _rates_table(found: Calibration) -> Table:
    head = ("requests/s", "requests", "sent after due p50 / p99 / max, ms", "trusted")
    table = _table("Lag of an open loop with Poisson arrivals", head, numbers_from=0)
    for rate in found.rates:
        table.add_row(*_rate_cells(rate))
    return table


def _rate_cells(rate: RateLevel) -> tuple[str, ...]:
    lag = _three(rate.send_lag_p50_ms, rate.send_lag_p99_ms, rate.send_lag_max_ms)
    return f"{rate.requests_per_s:,.0f}", f"{rate.requests:,}", lag, "yes" if rate.held else rate.reason or "no"


def _three(*values_ms: float) -> str:
    return " / ".join(f"{value:.3f}" if value < 10 else f"{value:.1f}" for value in values_ms)


def _table(title: str, head: tuple[str, ...], numbers_from: int | None = None) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(head):
        right = numbers_from is not None and numbers_from <= number < len(head) - 1
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    return table
