"""A run by the installed command, in a folder of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.command import on_path, scenario
from tests.forked import harness
from tests.known_answers.measured import Measured

VIRTUAL = on_path("virtual_time", "known")
REAL = on_path("known")
READ_OFTEN = on_path("read_often", "known")
ENDED_WELL = (
    0,
    1,
    4,
)  # 4: what is said to be invalid, as late requests are on a busy machine, is computed all the same


def measured(
    folder: Path, content: Mapping[str, Any], env: Mapping[str, str] = VIRTUAL, timeout_s: float = 200.0
) -> Measured:
    """What a scenario measures."""
    path = scenario(folder, **content)
    ended = harness(
        "run", str(path), "--out", "run", "--format", "csv,json", "-q", cwd=folder, env=env, timeout_s=timeout_s
    )
    assert ended.code in ENDED_WELL, (ended.code, ended.out, ended.err)
    return Measured(folder / "run")
