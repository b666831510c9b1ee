"""The system refuses memory, files and folders: one sentence with the cause and the action, never a defect of ours."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from command import environment, scenario

from tests import forked

LONG = "n" * 300
HARNESS = [sys.executable, "-P", "-m", "harness"]
READ_LATE = {"COLUMNS", "HARNESS_CACHE"}
LIMITED = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are those of Linux")


def told(
    folder: Path, *arguments: str, limit: str = "true", env: Mapping[str, str | None] | None = None
) -> tuple[int, str]:
    """The exit code and standard error of a command in a shell that has set a limit; None takes a variable away.

    It is forked if modules do not see the environment while they are imported.
    """
    if limit == "true" and {*(env or {})} <= READ_LATE:
        ended = forked.harness(*arguments, cwd=folder, env={name: str(value) for name, value in (env or {}).items()})
        code, said = ended.code, ended.err
    else:
        whole: dict[str, str | None] = {**environment(), **(env or {})}
        kept = {name: value for name, value in whole.items() if value is not None}
        shell = ["bash", "-c", f'{limit}; exec "$@"', "bash", *HARNESS, *arguments]
        done = subprocess.run(shell, cwd=folder, env=kept, capture_output=True, text=True, timeout=100, check=False)
        code, said = done.returncode, done.stderr
    assert "defect" not in said
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    return code, said


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "scenario.yaml", "--out", LONG),
        ("run", "scenario.yaml", "--out", "n/" * 3000),
        ("run", "scenario.yaml", "--dry-run", "--out", LONG),
        ("run", LONG),
        ("run", "--resume", LONG),
        ("validate", LONG),
        ("report", LONG),
        ("report", "missing", "--export", f"prometheus:{LONG}"),
        ("init", "--out", LONG),
    ],
)
def test_a_path_that_is_too_long_is_a_mistake_of_the_command_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """2, the system's reason, and not the whole path again where a new name is needed."""
    scenario(tmp_path)
    code, said = told(tmp_path, *arguments)
    assert code == 2
    assert "File name too long" in said


@pytest.mark.parametrize(
    ("key", "path", "why"),
    [
        ("extends", f"{LONG}.yaml", "File name too long"),
        ("extends", "~nobody-of-that-name/x.yaml", "there is no such home folder"),
        ("prompts", f"{LONG}.jsonl", "File name too long"),
        ("prompts", "~nobody-of-that-name/x.jsonl", "there is no such home folder"),
    ],
)
def test_a_path_in_a_scenario_that_cannot_be_has_its_place(tmp_path: Path, key: str, path: str, why: str) -> None:
    """File and line of the key, and what is wrong with the path."""
    line = f"extends: '{path}'" if key == "extends" else f"workload: {{prompts: '{path}'}}"
    text = f"{line}\nengines: [{{engine: simulated}}]\nload: [{{kind: single_user, requests: 3}}]\n"
    (tmp_path / "scenario.yaml").write_text(text)
    code, said = told(tmp_path, "validate", "scenario.yaml")
    assert code == 2
    assert re.search(r"scenario\.yaml:1:\d+: ", said)
    assert why in said


@pytest.mark.parametrize(
    "env",
    [
        {"HARNESS_CACHE": "/dev/null"},
        {"HARNESS_CACHE": f"/tmp/{LONG}"},
        {"HARNESS_CACHE": "~nobody-of-that-name/x"},
        {"HARNESS_CACHE": None, "XDG_CACHE_HOME": None, "HOME": "/dev/null"},
    ],
)
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, env: Mapping[str, str | None]) -> None:
    """A run on this machine's engines needs the lock in it: 3, and the variable that leads elsewhere."""
    scenario(tmp_path, engines=[{"engine": "llama-server"}], model="tiny")
    code, said = told(tmp_path, "run", "scenario.yaml", "--out", "run", env=env)
    if "not installed" in said or "cannot run" in said:
        pytest.skip("there is no llama-server here")
    assert code == 3, said
    assert "set HARNESS_CACHE to a folder that can be written" in said


@pytest.mark.parametrize("env", [{"HARNESS_CACHE": "/dev/null"}, {"HARNESS_CACHE": None, "HOME": "/dev/null"}])
def test_the_doctor_warns_of_a_cache_that_cannot_be_written(tmp_path: Path, env: Mapping[str, str | None]) -> None:
    """The other checks are made, and the exit code is theirs."""
    code, _ = told(tmp_path, "doctor", "--no-calibrate", env=env)
    assert code in (0, 3)


@LIMITED
@pytest.mark.parametrize(
    ("limit", "arguments"),
    [
        ("ulimit -v 200000", ("run", "scenario.yaml", "--out", "run")),
        ("ulimit -v 500000", ("report", "run")),
        ("ulimit -v 1600000", ("run", "scenario.yaml", "--out", "run")),
        ("ulimit -d 300000", ("report", "run")),
        ("ulimit -d 300000", ("run", "scenario.yaml", "--out", "run")),
    ],
)
def test_too_little_address_space_is_said_before_libraries_load(
    tmp_path: Path, limit: str, arguments: tuple[str, ...]
) -> None:
    """OpenBLAS gives up or never returns with that little, so nothing begins: 3, and the limit to set."""
    scenario(tmp_path)
    code, said = told(tmp_path, *arguments, limit=limit)
    assert code == 3
    assert re.fullmatch(rf"harness: `{limit[:9]}` allows .+, and .+ are needed; raise it: `{limit[:9]} \d+`\n", said)
    assert not (tmp_path / "run").exists()


@LIMITED
@pytest.mark.parametrize("kilobytes", [25_000, 30_000, 40_000])
def test_too_little_memory_for_the_program_itself(tmp_path: Path, kilobytes: int) -> None:
    """A sentence also while the program is loaded, and compiled: there CPython raises errors of any kind."""
    scenario(tmp_path)
    limit, env = f"ulimit -v {kilobytes}", {"PYTHONPYCACHEPREFIX": str(tmp_path / "compiled")}
    code, said = told(tmp_path, "run", "scenario.yaml", "--out", "run", limit=limit, env=env)
    assert code == 3
    assert said.count("\n") == 1
    assert "ulimit -v" in said


@LIMITED
def test_too_few_open_files(tmp_path: Path) -> None:
    """3, and the number that is needed."""
    scenario(tmp_path)
    code, said = told(tmp_path, "run", "scenario.yaml", "--out", "run", limit="ulimit -n 20")
    said = said.strip()
    assert (code, said) == (3, "harness: `ulimit -n` allows 20 open files, and 32 are needed; raise it: `ulimit -n 32`")


@LIMITED
def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """3, the file, and the limit."""
    scenario(tmp_path)
    code, said = told(tmp_path, "run", "scenario.yaml", "--out", "run", limit="ulimit -f 4")
    assert code == 3
    assert "run/manifest.json: cannot write: File too large; raise the limit of file sizes (`ulimit -f`), or" in said


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "TMPDIR": "/nowhere"},
        {"LC_ALL": "xx_YY.UTF-8", "HOME": None, "HARNESS_CACHE": None},
        {"COLUMNS": "0"},
        {"COLUMNS": "1"},
        {"COLUMNS": "9" * 30},
    ],
)
def test_the_whole_run_works_in_odd_environments(tmp_path: Path, env: Mapping[str, str | None]) -> None:
    """Letters that the output lacks, widths that are none, no home and no temporary folder: the run and its report."""
    scenario(tmp_path, load=[{"kind": "single_user", "requests": 3}])
    code, said = told(tmp_path, "run", "scenario.yaml", "--out", "run", "--format", "md", env=env)
    assert code == 0, said
    assert (tmp_path / "run" / "report.md").exists()
    assert os.listdir(tmp_path / "run" / "cells")
