"""A level that crashes, is killed, runs out of memory or hangs costs itself: the rest of the matrix is whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import manifest, on_path, records, scenario

from engines.cores import OWN, folders_of
from engines.cores import ROOT as GROUPS
from tests.forked import harness

MISBEHAVING = on_path("misbehaving")
REQUESTS = 8
PATIENCE_S = 6  # as long as the sound levels, which need a fraction of a second, may be held up by a busy machine
SOON = "1s"  # for levels that never start
AT_THE_START, IN_MID_TRIAL = ["blocks_at_start", "waits_at_start"], ["segfault", "killed"]
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Ran:
    """Exit code, cells by level, report and folder of a run."""

    code: int
    cells: dict[str, dict[str, Any]]
    report: str
    folder: Path

    def check_sound(self) -> None:
        """The levels that do not misbehave were measured as if alone."""
        for level in ("sound", "also_sound"):
            (trial,) = self.cells[level]["trials"]
            assert (self.cells[level]["status"], trial["status"]) == ("complete", "complete")
            assert len(records(self.folder, trial)) == REQUESTS


def run(folder: Path, *blocks: dict[str, Any], environment: dict[str, str] = MISBEHAVING) -> Ran:
    """A run of these levels, the sound ones around them."""
    levels = [{"quantization": ["sound"]}, *blocks, {"quantization": ["also_sound"]}]
    path = scenario(
        folder,
        engines=[{"engine": "misbehaving", **block} for block in levels],
        load=[{"kind": "single_user", "requests": REQUESTS, "timeout": "120s"}],
        stall_timeout=f"{PATIENCE_S}s",
    )
    arguments = ("run", str(path), "--out", "run", "--format", "md", "-q")
    ended = harness(*arguments, cwd=folder, env=environment, timeout_s=280)
    assert "Traceback" not in ended.err
    cells = {cell["level"]: cell for cell in manifest(folder / "run")["cells"]}
    report = (folder / "run" / "report.md").read_text().replace("\\", "")
    return Ran(ended.code, cells, report, folder / "run")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run, of levels that crash and levels that hang."""
    return run(
        tmp_path_factory.mktemp("broken"),
        {"quantization": AT_THE_START, "start_timeout": SOON},
        {"quantization": ["segfault_at_start", "memory", "blocks", *IN_MID_TRIAL]},
    )


def reason(cell: dict[str, Any]) -> str:
    """Why a cell, or its trial, is not complete."""
    return str(cell["reason"] or cell["trials"][0]["reason"])


def test_what_breaks_costs_its_level_only(broken: Ran) -> None:
    """The levels around those that crash or hang are whole, the others are named in the report, the exit code is 3."""
    broken.check_sound()
    assert broken.code == 3
    assert all(level in broken.report for level in broken.cells)


def test_crashes_are_told(broken: Ran) -> None:
    """Segmentation faults at the start and in mid-trial, a SIGKILL, and an allocation that fails under an address
    space limit: each is a sentence.
    """
    cells = broken.cells
    assert "before its first trial: its process was killed by SIGSEGV" in reason(cells["segfault_at_start"])
    assert "its process was killed by SIGSEGV" in reason(cells["segfault"])
    assert "s after the trial began" in reason(cells["segfault"])
    assert "its process was killed by SIGKILL" in reason(cells["killed"])
    assert reason(cells["memory"]) == "memory ran out in the process of the configuration"


@pytest.mark.parametrize("level", IN_MID_TRIAL)
def test_what_was_measured_before_is_kept(broken: Ran, level: str) -> None:
    """Rows that were on disk when the process ended are the trial's records."""
    assert len(records(broken.folder, broken.cells[level]["trials"][0])) >= 1


@pytest.mark.parametrize("level", AT_THE_START)
def test_hangs_at_the_start_are_ended(broken: Ran, level: str) -> None:
    """An engine that blocks its process or waits for ever at its start: ended after the time that it has."""
    assert "its engine did not start within 1 s: its process was ended" in reason(broken.cells[level])


def test_hangs_in_mid_trial_are_ended(broken: Ran) -> None:
    """An engine that blocks its process: ended after the `stall_timeout` of the scenario, with the reason."""
    assert f"no sign of life for {PATIENCE_S} s: its process was ended" in reason(broken.cells["blocks"])


def test_what_cannot_run_here_is_skipped(tmp_path: Path) -> None:
    """A level that the device lacks, one for which there is too little memory, and one that needs a GPU where none may
    be used are skips with their reason, not failures.
    """
    levels = ["unsupported", "too_large", "on_gpu"]
    punctual = on_path("virtual_time", "misbehaving")
    ran = run(tmp_path, {"quantization": levels, "devices": "cpu"}, environment=punctual)
    ran.check_sound()
    assert ran.code == 0
    assert {ran.cells[level]["status"] for level in levels} == {"skipped"}
    assert reason(ran.cells["unsupported"]) == "this device has no instructions for `unsupported`"
    told = reason(ran.cells["too_large"])
    assert told.startswith("needs at least 1.05e+06 TiB (weights 1.05e+06 TiB, KV cache 2 GiB); ")
    assert "is free here" in told
    assert reason(ran.cells["on_gpu"]) == "misbehaving needs a GPU, and none is available, for `on_gpu`"
    assert "this device has no instructions" in ran.report


def test_the_kernel_kills_a_level_for_want_of_memory(tmp_path: Path) -> None:
    """In a control group with a limit, the kernel kills the process: the reason says that memory ran out."""
    with small_group("harness-test-oom") as group:
        ran = run(tmp_path, {"quantization": ["oom"], "env": {"OOM_GROUP": str(group)}, "start_timeout": "60s"})
    ran.check_sound()
    assert ran.code == 3
    assert "before its first trial: its process was killed by SIGKILL" in reason(ran.cells["oom"])
    assert "out of memory" in reason(ran.cells["oom"])


@contextlib.contextmanager
def small_group(name: str) -> Iterator[Path]:
    """A control group that allows half a gigabyte; skips the test where none can be made."""
    own = next((folder for folder in folders_of("memory", GROUPS, OWN) if folder.exists()), GROUPS)
    group = own / name
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"needs a control group of its own, which cannot be made: {error.strerror}")
    try:
        limit = next((group / one for one in ("memory.max", "memory.limit_in_bytes") if (group / one).exists()), None)
        if limit is None:
            pytest.skip("needs a control group for memory, which the system does not hand out here")
        limit.write_text(str(512 << 20))
        yield group
    finally:
        group.rmdir()
