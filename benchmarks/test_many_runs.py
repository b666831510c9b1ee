"""One baseline against 1,000 stored runs: at most 10 s of processor once each was derived, and listing them."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command import VIRTUAL_TIME, harness, scenario

pytestmark = pytest.mark.timeout(1800)
RUNS, MOST_S = 1_000, 10.0
_TABLE = ["runs | command | wall, s | processor, s"]


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    cpu_s: float


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Prints what was measured at the end."""
    yield
    print("\n\n" + "\n".join(_TABLE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 150 requests, and 1,000 whose manifests differ, so that nothing of one serves for another."""
    made = tmp_path_factory.mktemp("many")
    load = [{"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 150, "timeout": "5s"}]
    path = scenario(made, load=load)
    ended = harness("run", str(path), "--out", "runs/base", "--format", "json", "-q", cwd=made, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    stored = json.loads((made / "runs" / "base" / "manifest.json").read_text())
    for number in range(RUNS):
        shutil.copytree(made / "runs" / "base", made / "runs" / f"r{number:04}")
        stored["labels"] = {"number": str(number), "branch": "main" if number % 2 else "x"}
        stored["scenario"]["description"] = str(number)
        (made / "runs" / f"r{number:04}" / "manifest.json").write_text(json.dumps(stored))
    return made


def cost(folder: Path, words: str, *arguments: str) -> Cost:
    """What a command takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    ended = harness(*arguments, cwd=folder, timeout_s=1500)
    wall_s, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.code == 0, ended.err
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    _TABLE.append(f"{RUNS:,} | {words} | {wall_s:.1f} | {cpu_s:.1f}")
    return Cost(wall_s, cpu_s)


def test_a_thousand_runs_are_compared(folder: Path) -> None:
    """The first time each is derived from its records; from then on what was derived serves."""
    runs = [f"r{number:04}" for number in range(RUNS)]
    first = cost(folder, "compare base R..., the first time", "compare", "base", *runs)
    again = cost(folder, "compare base R..., again", "compare", "base", *runs)
    labels = cost(folder, "compare R... --by label:branch", "compare", *runs, "--by", "label:branch")
    assert again.cpu_s < first.cpu_s / 4
    assert again.cpu_s <= MOST_S
    assert labels.cpu_s <= MOST_S


def test_a_thousand_runs_are_listed(folder: Path) -> None:
    """From their manifests alone."""
    assert cost(folder, "list runs", "list", "runs").cpu_s <= MOST_S
