"""What the doctor looks at, how it judges, and what it tells programs."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from harness.cli import examination as doctor
from harness.cli.examination import (
    Examination,
    engine_checks,
    examine,
    install_checks,
    judged,
    kept,
    packages,
    proxies,
    show,
)
from harness.drivers.calibration import store
from harness.drivers.calibration.store import Calibration, RateLevel, StreamLevel, conclude
from harness.errors import ExitCode, TrialFailed, UsageError
from harness.telemetry.cgroup import Ceilings, Pressure
from harness.verdict import checks
from harness.verdict.checks import Check, State
from tests.forked import harness, running


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache folder of the test's own: no calibration of this machine is read or written."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))


def made(*, held: bool = True) -> Calibration:
    """A calibration with one level."""
    errors = (0.1, 0.2, 0.3, 0.1, 0.2, 0.3)
    level = StreamLevel(8, 8, 400.0, *errors, 0.1, 0.1, 0.0, "kernel", held, None if held else "late")
    rates = [RateLevel(100, 100, 0.1, 0.2, 0.3, held=True)]
    return conclude([level], rates, ["a note"], "2026-01-02T03:04:05+00:00")


def test_every_check_says_what_was_found(tmp_path: Path) -> None:
    """All checks run on this machine; what is not good comes with what to do."""
    found = [*checks.machine_checks(tmp_path), *install_checks()]
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.found
        assert check.advice or check.state is State.OK


@pytest.mark.parametrize(
    ("governors", "state"),
    [([], State.OK), (["performance"] * 2, State.OK), (["performance", "powersave"], State.WARN)],
)
def test_a_governor_that_saves_power_is_warned_of(tmp_path: Path, governors: list[str], state: State) -> None:
    """Every core must be governed for performance, where the machine tells."""
    for number, name in enumerate(governors):
        (tmp_path / f"cpu{number}" / "cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{number}" / "cpufreq" / "scaling_governor").write_text(name + "\n")
    assert checks.governor(tmp_path).state is state


@pytest.mark.parametrize(
    ("limit", "state"), [(None, State.OK), (65_536, State.OK), (1024, State.WARN), (64, State.BAD)]
)
def test_few_open_files_are_told(monkeypatch: pytest.MonkeyPatch, limit: int | None, state: State) -> None:
    """The default of 1,024 is worth a warning; hardly any make measuring impossible."""
    monkeypatch.setattr(checks, "read_ceilings", lambda: Ceilings(limit, None))
    assert checks.files().state is state


@pytest.mark.parametrize(("count", "used", "state"), [(28_000, 10, "ok"), (28_000, 20_000, "warn"), (500, 0, "warn")])
def test_few_ports_are_told(monkeypatch: pytest.MonkeyPatch, count: int, used: int, state: str) -> None:
    """A small range, or one mostly in use."""
    monkeypatch.setattr(checks, "read_ceilings", lambda: Ceilings(None, count))
    monkeypatch.setattr(checks, "read_tcp_sockets", lambda: used)
    assert checks.ports().state == state


@pytest.mark.parametrize(("idle", "steal", "state"), [(100, 0, "ok"), (50, 0, "warn"), (95, 5, "warn")])
def test_other_load_is_told(monkeypatch: pytest.MonkeyPatch, idle: int, steal: int, state: str) -> None:
    """Work of others on this machine, and time that the hypervisor took."""
    times = type(psutil.cpu_times())
    fields = len(times._fields)
    readings = iter([times(*[0.0] * fields), times(100.0 - idle, 0.0, 0.0, float(idle), *[0.0] * (fields - 4))])
    pressures = iter([Pressure(0, 0, 0, 0), Pressure(0, 0, steal, 100)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(readings))
    monkeypatch.setattr(checks, "read_pressure", lambda: next(pressures))
    assert checks.other_load(lambda _: None).state == state


@pytest.mark.parametrize(
    ("source", "cost_ns", "state"),
    [("hpet", 60, State.WARN), ("tsc", 60, State.OK), ("tsc", 1_001, State.WARN), (None, 60, State.OK)],
)
def test_a_strange_or_slow_clock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, cost_ns: float, state: State
) -> None:
    """hpet is slow and coarse, as is any that the kernel reads; a source that is not shown is no reason to warn."""
    monkeypatch.setattr(checks, "clock_cost_ns", lambda: cost_ns)
    if source is not None:
        (tmp_path / "source").write_text(f"{source}\n")
    assert checks.clock(tmp_path / "source").state is state


@pytest.mark.parametrize(("limit", "state"), [(None, State.OK), (64 << 30, State.OK), (1 << 30, State.WARN)])
def test_a_container_with_little_memory_is_told(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, state: State
) -> None:
    """However much of it the machine around it has."""
    now = psutil.virtual_memory()._replace(total=128 << 30, available=96 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: now)
    monkeypatch.setattr("harness.telemetry.provenance.memory_limit_bytes", lambda: limit)
    assert checks.memory().state is state


def test_a_folder_that_cannot_be_written_is_bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs must be stored somewhere."""
    assert checks.disk(tmp_path / "runs").state is not State.BAD
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert checks.disk(tmp_path / "runs").state is State.BAD


def test_mixed_installations_are_bad(tmp_path: Path) -> None:
    """`engines` from a folder that is not the one of `harness` is somebody else's."""
    assert packages().state is State.OK
    mixed = {"harness": tmp_path / "a" / "harness", "engines": tmp_path / "b" / "engines"}
    assert packages(mixed).state is State.BAD


def test_proxies_are_named_but_not_shown() -> None:
    """Their values may hold passwords."""
    assert proxies({}).state is State.OK
    found = proxies({"https_proxy": "http://me:secret@proxy:3128"})
    assert found.state is State.WARN
    assert "https_proxy" in found.found
    assert "secret" not in found.found + found.advice


def test_an_engine_without_its_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, with what it needs; the others can be used."""
    monkeypatch.setattr("engines._has_module", lambda python, module: False)
    found = {check.name: check for check in engine_checks()}
    assert found["engine llama-server"].state is State.WARN
    assert "xllamacpp" in found["engine llama-server"].found
    assert found["engine http"].state is State.OK


def test_only_what_makes_measuring_impossible_ends_with_three() -> None:
    """Warnings are for people: the exit code stays 0."""
    warned = (Check("a", State.OK, "x"), Check("b", State.WARN, "y", "z"))
    assert Examination(warned, None).exit_code is ExitCode.HOLDS
    assert Examination((*warned, judged(made(held=False))), None).exit_code is ExitCode.TRIAL_FAILED


def test_a_calibration_is_judged() -> None:
    """One that held is cited, none is a warning, one in which nothing held is bad."""
    assert "8 streams" in judged(made()).found
    assert kept(made()).state is State.OK
    busy = judged(replace(made(), busy_share=0.6))
    assert busy.state is State.WARN
    assert "60% busy" in busy.found
    assert kept(None).state is State.WARN
    assert judged(made(held=False)).state is State.BAD


@pytest.mark.parametrize(
    ("error", "state"), [(UsageError("another run is measuring"), State.WARN), (TrialFailed("no server"), State.BAD)]
)
def test_a_calibration_that_cannot_be_made_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, error: Exception, state: State
) -> None:
    """The checks are shown, the reason stands in the last one."""

    def fail(**_: object) -> Calibration:
        raise error

    monkeypatch.setattr(doctor, "calibrate_alone", fail)
    monkeypatch.setattr(doctor, "machine_checks", lambda _: iter(()))
    found = examine(calibrating=True, quick=True, say=lambda _: None)
    assert found.checks[-1].state is state
    assert str(error) in found.checks[-1].found
    assert found.calibration is None


def test_a_quick_calibration_does_not_replace_a_whole_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports go on to cite the better one; a whole one replaces either."""
    monkeypatch.setattr(doctor, "machine_checks", lambda _: iter(()))
    for quick, kept_quick in ((True, True), (False, False), (True, False)):
        monkeypatch.setattr(doctor, "calibrate_alone", lambda quick, **_: replace(made(), quick=quick))
        found = examine(calibrating=True, quick=quick, say=lambda _: None)
        assert found.calibration is not None
        assert found.calibration.quick is quick
        cached = store.cached()
        assert cached is not None
        assert cached.quick is kept_quick


def test_tables_show_everything() -> None:
    """Checks, levels, rates, notes and the verdict."""
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        show(Examination((Check("clock", State.WARN, "found it", "do that"), judged(made())), made()), console)
    text = console.export_text()
    for part in ("found it", "do that", "0.100 / 0.200 / 0.300", "a note", "8 streams", "Fit to measure · 1 warning"):
        assert part in text


@pytest.mark.slow
def test_ctrl_c_ends_it_and_its_server(tmp_path: Path) -> None:
    """In the middle of calibrating: exit code 130, no process left."""
    with running("doctor", "--quick", cwd=tmp_path) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the first level is over, the next one goes on
        server = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=120)
        assert process.returncode == ExitCode.INTERRUPTED, out + told
    assert server
    assert psutil.wait_procs(server, timeout=60)[1] == []


@pytest.mark.slow
def test_the_command_prints_json(tmp_path: Path) -> None:
    """Checks and calibration, the exit code that of the process."""
    ended = harness("doctor", "--no-calibrate", "--json", cwd=tmp_path)
    document = json.loads(ended.out)
    assert document["exit_code"] == ended.code
    assert document["calibration"] is None
    assert {"processor", "clock", "engine llama-server", "calibration"} <= {one["name"] for one in document["checks"]}
    assert all(one["state"] in ("ok", "warn", "bad") for one in document["checks"])


class OneGpu:
    """Stands for NVML's view of a machine."""

    def __init__(self, others: int = 0) -> None:
        self._others = others

    def names(self) -> list[str]:
        """Two of a kind."""
        return ["H200", "H200"]

    def driver(self) -> str:
        """Its version."""
        return "570.1"

    def processes(self) -> set[int]:
        """What else computes on them."""
        return set(range(self._others))


@pytest.mark.parametrize(("others", "state"), [(0, State.OK), (3, State.WARN)])
def test_gpus_are_named_with_their_driver(monkeypatch: pytest.MonkeyPatch, others: int, state: State) -> None:
    """And other processes on them are told."""
    monkeypatch.setattr(checks, "find_gpus", lambda: (OneGpu(others), None))
    found = checks.gpus()
    assert found.state is state
    assert found.found.startswith("2 x H200, driver 570.1")
