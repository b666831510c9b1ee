"""Examination of a machine: its installation, its fitness for measuring, and the calibration of the load generator."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from engines.models.cache import directory
from harness import __version__
from harness.drivers.calibration import store
from harness.drivers.calibration.store import Calibration
from harness.errors import ExitCode, StorageFailed, TrialFailed, UsageError, shortened
from harness.run.lock import machine_to_ourselves
from harness.schedule.availability import supported
from harness.store.run import RUNS
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
    """Yield every check of the installation."""
    yield packages()
    yield python()
    yield from engine_checks()
    yield libraries()
    yield cache_folder()
    yield proxies(os.environ)


def packages(folders: Mapping[str, Path] | None = None) -> Check:
    """Check that all packages come from one installation: `engines` in the working directory may hide the real one."""
    specs = {name: find_spec(name) for name in PACKAGES}
    found = folders or {name: Path(spec.origin or ".").resolve().parent for name, spec in specs.items() if spec}
    homes = {folder.parent for folder in found.values()}
    text = f"harness {__version__} from {', '.join(map(shown, sorted(homes)))}"
    if len(homes) > 1:
        where = "; ".join(f"{name} from {shown(folder.parent)}" for name, folder in found.items())
        advice = "Several installations are mixed. Leave the folder that holds the wrong one, or install again."
        return Check("packages", State.BAD, where, advice)
    return Check("packages", State.OK, text)


def python() -> Check:
    """Check the interpreter and the event loop."""
    loop = "uvloop" if find_spec("uvloop") else "asyncio's own loop"
    found = f"{platform.python_implementation()} {platform.python_version()}, {loop}"
    if hasattr(sys, "gettotalrefcount") or sys.flags.dev_mode:
        return Check("Python", State.WARN, f"{found}, with debugging", "Use a build for production, without -X dev.")
    if loop != "uvloop":
        return Check("Python", State.WARN, found, "`pip install uvloop`: the load generator is faster with it.")
    return Check("Python", State.OK, found)


def engine_checks() -> Iterator[Check]:
    """Yield a check for each engine that a scenario can name."""
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
    """Return the versions of the libraries that generate or transfer tokens."""
    found = provenance.under_test()["libraries"]
    return Check("libraries", State.OK, ", ".join(f"{name} {version}" for name, version in found.items()) or "none")


def cache_folder() -> Check:
    """Check the folder of derived models and calibrations."""
    advice = "Set HARNESS_CACHE to a folder that can be written: models are built there."
    try:
        folder = directory().parent
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        writable = there.is_dir() and os.access(there, os.W_OK) and not there.is_relative_to("/proc")
    except OSError as error:
        return Check("cache", State.WARN, f"{shortened(str(error.filename))}: {error.strerror}", advice)
    if writable:
        return Check("cache", State.OK, shown(folder))
    return Check("cache", State.WARN, f"{shown(there)} cannot be written", advice)


def shown(path: Path) -> str:
    """Return a path for people, with `~` for their home."""
    try:
        home = Path.home()
    except RuntimeError:
        return str(path)  # this user has none
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def proxies(environment: Mapping[str, str]) -> Check:
    """Check for variables of proxies. Their values may hold passwords and are not shown."""
    named = [name for name in (*PROXIES, *map(str.lower, PROXIES)) if environment.get(name)]
    if not named:
        return Check("proxies", State.OK, "none in the environment")
    found = f"{', '.join(named)} set" + (", NO_PROXY too" if environment.get("NO_PROXY") else "")
    advice = "A proxy is measured together with the server. Unset them, or name the target in NO_PROXY."
    return Check("proxies", State.WARN, found, advice)


COLOURS = {State.OK: "green", State.WARN: "yellow", State.BAD: "bold red"}


@dataclass(frozen=True, slots=True)
class Examination:
    """Result of the examination; `calibration` is new, kept from before, or None."""

    checks: tuple[Check, ...]
    calibration: Calibration | None

    @property
    def exit_code(self) -> ExitCode:
        bad = any(check.state is State.BAD for check in self.checks)
        return ExitCode.TRIAL_FAILED if bad else ExitCode.HOLDS

    def as_json(self) -> str:
        document = {
            "harness": __version__,
            "exit_code": int(self.exit_code),
            "checks": [asdict(check) for check in self.checks],
            "calibration": self.calibration.as_dict() if self.calibration else None,
        }
        return json.dumps(document, indent=1, ensure_ascii=False)


def examine(*, calibrating: bool, quick: bool, say: Callable[[str], None]) -> Examination:
    """Check everything, and calibrate if requested; `say` gets the progress of calibrating."""
    raise_file_limit()  # as every process does that sends
    checks = [*machine_checks(RUNS), *install_checks()]
    if not calibrating:
        known = store.cached()
        return Examination((*checks, kept(known)), known)
    try:
        found = calibrate_alone(quick=quick, say=say)
    except (UsageError, StorageFailed) as error:
        return Examination((*checks, Check("calibration", State.WARN, f"not made: {error}")), store.cached())
    except TrialFailed as error:
        return Examination((*checks, Check("calibration", State.BAD, f"not made: {error}")), None)
    checks.append(judged(found))
    known = store.cached()
    if quick and known is not None and not known.quick:
        why = f"not kept: reports cite the full calibration of {known.created_utc[:10]}"
        checks.append(Check("keeping it", State.OK, why))
        return Examination(tuple(checks), found)
    try:
        store.save(found)
    except StorageFailed as error:
        checks.append(Check("keeping it", State.WARN, str(error), "Reports will show no calibration."))
    return Examination(tuple(checks), found)


def calibrate_alone(*, quick: bool, say: Callable[[str], None]) -> Calibration:
    """Calibrate while no run measures on this machine.

    Raises UsageError while another run measures, TrialFailed if the server of known truth does not start.
    """
    from harness.drivers.calibration.calibrator import FULL, QUICK, calibrate

    with machine_to_ourselves("harness doctor"):
        return calibrate(trusted_errors(), QUICK if quick else FULL, say)


def trusted_errors() -> Bounds:
    """Return the largest errors with which a load is trusted."""
    from harness.drivers.calibration.calibrator import Bounds

    return Bounds(
        first_ms=thresholds.CALIBRATED_TTFT_P99_MS.warn,
        gap_ms=thresholds.CALIBRATED_ITL_P99_MS.warn,
        lag_ms=thresholds.CALIBRATED_LAG_P99_MS.warn,
        slowdown=thresholds.CALIBRATED_SLOWDOWN.warn,
    )


def kept(known: Calibration | None) -> Check:
    """Return the check of a calibration that was kept; None: there is none."""
    if known is None:
        advice = "Run `harness doctor` without --no-calibrate; it takes less than a minute."
        return Check("calibration", State.WARN, "this machine was not calibrated", advice)
    return judged(known)


def judged(found: Calibration) -> Check:
    """Return the check of a calibration."""
    cited = sentence(found.summary())
    if found.streams:
        level = thresholds.BUSY.level(found.busy_share)
        return Check.of("calibration", level, cited, "Calibrate again when nothing else runs.")
    reason = found.levels[0].reason if found.levels else "nothing was tried"
    advice = "Stop other processes, or add cores; results of this machine are unreliable."
    return Check("calibration", State.BAD, f"no stream can be trusted: {reason}", advice)


def show(found: Examination, console: Console) -> None:
    """Print the tables, and the verdict last, where it stays in view."""
    from rich.text import Text

    checks = _table("This machine", ("", "check", "finding", "action"))
    for check in found.checks:
        state = Text(check.state.upper(), style=COLOURS[check.state])
        checks.add_row(state, *map(Text, (check.name, check.found, check.advice)))
    console.print(checks)
    if found.calibration is not None:
        console.print(_levels_table(found.calibration))
        console.print(_rates_table(found.calibration))
        for note in found.calibration.notes:
            console.print(Text(note))
        console.print(Text(sentence(found.calibration.summary())))
    bad = sum(check.state is State.BAD for check in found.checks)
    warned = sum(check.state is State.WARN for check in found.checks)
    verdict = f"{bad} bad: results of this machine are unreliable" if bad else "Fit to measure"
    console.print(Text(f"{verdict} · {warned} warning{'s' * (warned > 1)}" if warned else verdict, style="bold"))


def _levels_table(found: Calibration) -> Table:
    head = ("streams", "chunks/s", "TTFT error p50 / p99 / max, ms", "gap error p50 / p99 / max, ms", "client CPU",
            "server CPU", "merged reads", "clock", "trusted")  # fmt: skip
    table = _table("Error of recorded arrivals against the times in the chunks", head, numbers=True)
    for level in found.levels:
        table.add_row(
            f"{level.streams:,}",
            f"{level.events_per_s:,.0f}",
            _three(level.ttft_error_p50_ms, level.ttft_error_p99_ms, level.ttft_error_max_ms),
            _three(level.itl_error_p50_ms, level.itl_error_p99_ms, level.itl_error_max_ms),
            f"{level.cpu_share:.0%}",
            f"{level.server_cpu_share:.0%}",
            f"{level.merged_read_share:.1%}",
            level.clock,
            "yes" if level.held else level.reason or "no",
        )
    return table


def _rates_table(found: Calibration) -> Table:
    head = ("requests/s", "requests", "sent after due p50 / p99 / max, ms", "trusted")
    table = _table("Lag of an open loop with Poisson arrivals", head, numbers=True)
    for rate in found.rates:
        lag = _three(rate.send_lag_p50_ms, rate.send_lag_p99_ms, rate.send_lag_max_ms)
        trusted = "yes" if rate.held else rate.reason or "no"
        table.add_row(f"{rate.requests_per_s:,.0f}", f"{rate.requests:,}", lag, trusted)
    return table


def _three(*values_ms: float) -> str:
    return " / ".join(f"{value:.3f}" if value < 10 else f"{value:.1f}" for value in values_ms)


def _table(title: str, head: tuple[str, ...], *, numbers: bool = False) -> Table:
    """Return a table without rows; numbers: all columns but the last are numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        table.add_column(Text(name), justify="right" if numbers and name != head[-1] else "left", overflow="fold")
    return table
