"""`harness baseline` and comparisons with baselines, as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, scenario

from harness.store.baselines import history
from tests.forked import harness

pytestmark = pytest.mark.slow
OLD = Path(__file__).parent / "data" / "runs" / "v1" / "quick"
LOAD = [{"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 150, "timeout": "5s"}]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, `fast` and `slow`, of which the fast one is the baseline `main`."""
    folder = tmp_path_factory.mktemp("kept")
    for name, ttft_ms in (("fast", 60.0), ("slow", 72.0)):
        engine = {"engine": "simulated", "options": {"ttft_ms": ttft_ms, "tpot_ms": 2.0}}
        path = scenario(folder, engines=[engine], load=LOAD, seed=7)
        arguments = ("run", str(path), "--out", f"runs/{name}", "--label", f"commit={name}", "--format", "json", "-q")
        ended = harness(*arguments, cwd=folder, env=VIRTUAL_TIME)
        assert ended.code == 0, ended.err
    ended = harness("baseline", "set", "main", "fast", cwd=folder)
    assert (ended.code, "compare with it: harness compare baseline:main latest" in ended.err) == (0, True), ended.err
    return folder


@pytest.fixture(scope="module")
def of_the_runs(stored: Path) -> list[dict[str, Any]]:
    """The rows of the comparison of both runs."""
    found: list[dict[str, Any]] = json.loads(harness("compare", "fast", "slow", "--json", cwd=stored).out)["rows"]
    return found


@pytest.mark.parametrize("name", ["baseline:main", "main", "baselines/main"])
def test_a_comparison_with_a_baseline_is_that_with_its_run(
    stored: Path, of_the_runs: list[dict[str, Any]], name: str
) -> None:
    """Number by number and request by request, although the baseline has the run's data alone."""
    kept = json.loads(harness("compare", name, "slow", "--json", cwd=stored).out)
    assert (kept["word"], kept["exit_code"]) == ("regressed", 5)
    assert kept["rows"] == of_the_runs
    assert kept["rows"][0]["method"] == "request by request"


def test_what_is_kept_stays_as_it_is(stored: Path, tmp_path: Path) -> None:
    """Setting it again keeps the run before; reports and resuming do not write into it."""
    shutil.copytree(stored, tmp_path / "all")
    folder = tmp_path / "all"
    (first,) = (folder / "baselines" / "main").iterdir()
    before = {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert harness("baseline", "set", "main", "slow", cwd=folder).code == 0
    assert harness("compare", "baseline:main", "slow", cwd=folder).code == 0
    assert harness("compare", "baseline:main~1", "slow", cwd=folder).code == 5
    for arguments, sentence in (
        (("report", "baseline:main~1"), "name a folder for the reports with --out"),
        (("run", "--resume", "baseline:main~1"), "which stays as it is"),
    ):
        ended = harness(*arguments, cwd=folder)
        assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err
    assert harness("report", "baseline:main~1", "--format", "md", "--out", "r", cwd=folder).code == 0
    assert {path.relative_to(first): path.read_bytes() for path in first.rglob("*") if path.is_file()} == before


def test_list_and_show(stored: Path) -> None:
    """Name, time, size, run and labels; `show` has the machine and the command too."""
    ended = harness("baseline", "list", cwd=stored)
    assert ended.code == 0
    assert ended.out.startswith("main  ")
    assert "Z-fast" in ended.out
    assert "commit=fast" in ended.out
    shown = harness("baseline", "show", "main", cwd=stored).out
    assert "sustained" in shown
    assert "--out runs/fast" in shown
    none = harness("baseline", "list", "--dir", "nowhere", cwd=stored)
    assert (none.code, none.out) == (0, "")
    assert "there is no baseline in nowhere/" in none.err


def test_a_damaged_baseline_is_listed_and_ends_nothing(stored: Path, tmp_path: Path) -> None:
    """It is named at the end."""
    for _ in range(2):
        assert harness("baseline", "set", "x", "fast", "--dir", str(tmp_path), cwd=stored).code == 0
    newest = max((tmp_path / "x").iterdir())
    (newest / "baseline.json").write_text("{")
    ended = harness("baseline", "list", "--dir", str(tmp_path), cwd=stored)
    assert (ended.code, len(ended.out.splitlines()), "damaged" in ended.out) == (0, 2, True)
    assert f"{newest} cannot be used" in ended.err


def test_removing_asks_for_the_exact_one(stored: Path, tmp_path: Path) -> None:
    """A name with a history is not removed by mistake; what is left is the baseline then."""
    for name in ("fast", "slow", "fast"):
        kept = harness("baseline", "set", "x", name, "--dir", str(tmp_path / "b"), cwd=stored)
        assert kept.code == 0, kept.err
    first, second, third = (one.path for one in history("x", tmp_path / "b"))
    several = harness("baseline", "rm", "x", "--dir", str(tmp_path / "b"), cwd=stored)
    assert (several.code, "x has 3 runs: name one" in several.err) == (2, True), several.err
    for wrong in (
        ("y",),
        ("x~1",),
        ("x/nothing",),
        ("x*",),
        (f"x/{first.name}", "--all"),
        ("x", "--all", "--keep", "1"),
    ):
        ended = harness("baseline", "rm", *wrong, "--dir", str(tmp_path / "b"), cwd=stored)
        assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert {*(tmp_path / "b" / "x").iterdir()} == {first, second, third}
    one = harness("baseline", "rm", f"x/{third.name}", "--dir", str(tmp_path / "b"), cwd=stored)
    assert (one.code, f"x is {second.name} now" in one.err) == (0, True), one.err
    assert harness("baseline", "rm", "x", "--keep", "1", "--dir", str(tmp_path / "b"), cwd=stored).code == 0
    assert [*(tmp_path / "b" / "x").iterdir()] == [second]
    assert harness("baseline", "rm", "x", "--all", "--dir", str(tmp_path / "b"), cwd=stored).code == 0
    assert not (tmp_path / "b" / "x").exists()


def test_a_run_of_format_1_is_compared_as_a_baseline(stored: Path, tmp_path: Path) -> None:
    """With itself here: it reads as the run does."""
    assert harness("baseline", "set", "old", str(OLD), "--dir", str(tmp_path), cwd=stored).code == 0
    run = str(shutil.copytree(OLD, tmp_path / "run"))
    pairs = ((run, run), (str(tmp_path / "old"), run))
    one, other = (json.loads(harness("compare", *pair, "--json", cwd=stored).out) for pair in pairs)
    assert one["rows"]
    assert one["rows"] == other["rows"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("set", "feature/x", "fast"), "write letters, digits, dot, dash and underscore, such as feature-x"),
        (("set", "main", "nothing"), "there is no run 'nothing'"),
        (("show", "mian"), "there is no baseline 'mian'; baselines/ has main"),
    ],
)
def test_a_slip_is_one_sentence(stored: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """With what to write instead."""
    ended = harness("baseline", *arguments, cwd=stored)
    assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err
