"""A level that crashes, is killed, runs out of memory or hangs costs itself: the rest of the matrix is whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import manifest, on_path, records, scenario

from engines.cores import OWN, folders_of
from engines.cores import ROOT as GROUPS
from tests.forked import harness

MISBEHAVING = on_path("misbehaving")
REQUESTS = 8
PATIENCE_S = 15  # as long as the sound levels may be held up by a busy machine
pytestmark = pytest.mark.slow


def run(
    folder: Path, levels: list[str], environment: dict[str, str] = MISBEHAVING, **block: Any
) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, cells by level, and the report of a run of these levels, the sound ones around them. block: of the
    levels alone.
    """
    path = scenario(
        folder,
        engines=[
            {"engine": "misbehaving", "quantization": ["sound"]},
            {"engine": "misbehaving", "quantization": levels, **block},
            {"engine": "misbehaving", "quantization": ["also_sound"]},
        ],
        load=[{"kind": "single_user", "requests": REQUESTS, "timeout": "120s"}],
        patience=f"{PATIENCE_S}s",
    )
    arguments = ("run", str(path), "--out", "run", "--format", "md", "-q")
    ended = harness(*arguments, cwd=folder, env=environment, timeout_s=280)
    assert "Traceback" not in ended.err
    cells = {cell["level"]: cell for cell in manifest(folder / "run")["cells"]}
    for level in ("sound", "also_sound"):
        (trial,) = cells[level]["trials"]
        assert (cells[level]["status"], trial["status"]) == ("complete", "complete")
        assert len(records(folder / "run", trial)) == REQUESTS
    return ended.code, cells, (folder / "run" / "report.md").read_text()


def reason(cell: dict[str, Any]) -> str:
    """Why a cell, or its trial, is not complete."""
    return str(cell["reason"] or cell["trials"][0]["reason"])


def test_crashes_cost_their_level_only(tmp_path: Path) -> None:
    """Segmentation faults at the start and in mid-trial, a SIGKILL, and an allocation that fails under an address
    space limit: each is a sentence, what was measured before is kept, the exit code is 3.
    """
    code, cells, report = run(tmp_path, ["segfault_at_start", "segfault", "killed", "memory"])
    assert code == 3
    assert "before its first trial: its process was killed by SIGSEGV" in reason(cells["segfault_at_start"])
    assert "its process was killed by SIGSEGV" in reason(cells["segfault"])
    assert "s after the trial began" in reason(cells["segfault"])
    assert "its process was killed by SIGKILL" in reason(cells["killed"])
    assert reason(cells["memory"]) == "memory ran out in the process of the cell"
    for level in ("segfault", "killed"):
        assert len(records(tmp_path / "run", cells[level]["trials"][0])) >= 1
    for level in ("segfault_at_start", "segfault", "killed", "memory"):
        assert level in report.replace("\\", "")


def test_hangs_cost_their_level_only(tmp_path: Path) -> None:
    """An engine that blocks or waits for ever at its start, one that blocks its process in mid-trial: ended after the
    patience that the scenario has, with the reason.
    """
    code, cells, _ = run(tmp_path, ["blocks_at_start", "waits_at_start", "blocks"], start_timeout="4s")
    assert code == 3
    for level in ("blocks_at_start", "waits_at_start"):
        assert "its engine did not start within 4 s: its process was ended" in reason(cells[level])
    assert f"no sign of life for {PATIENCE_S} s: its process was ended" in reason(cells["blocks"])


def test_what_cannot_run_here_is_skipped(tmp_path: Path) -> None:
    """A level that the device lacks, one for which there is too little memory, and one that needs a GPU where none may
    be used are skips with their reason, not failures.
    """
    punctual = on_path("virtual_time", "misbehaving")
    code, cells, report = run(tmp_path, ["unsupported", "too_large", "on_gpu"], punctual, devices="cpu")
    assert code == 0
    assert {cells[level]["status"] for level in ("unsupported", "too_large", "on_gpu")} == {"skipped"}
    assert reason(cells["unsupported"]) == "this device has no instructions for `unsupported`"
    assert reason(cells["too_large"]).startswith("needs at least 1.05e+06 TiB (weights 1.05e+06 TiB, KV cache 2 GiB); ")
    assert "is free here" in reason(cells["too_large"])
    assert reason(cells["on_gpu"]) == "misbehaving needs a GPU, and none is available, for `on_gpu`"
    assert "this device has no instructions" in report


def test_the_kernel_kills_a_level_for_want_of_memory(tmp_path: Path) -> None:
    """In a control group with a limit, the kernel kills the process: the reason says that memory ran out."""
    with small_group("harness-test-oom") as group:
        code, cells, _ = run(tmp_path, ["oom"], env={"OOM_GROUP": str(group)}, start_timeout="60s")
    assert code == 3
    assert "before its first trial: its process was killed by SIGKILL" in reason(cells["oom"])
    assert "out of memory" in reason(cells["oom"])


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
