"""One baseline against many stored runs, and runs by a label: as a user does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import VIRTUAL_TIME, scenario

from tests.forked import harness

pytestmark = pytest.mark.slow
LOAD = [{"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 60, "timeout": "5s"}]
COPIES = 10


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a slower one, and copies of both with labels of their own: by turns `main` and `x`."""
    folder = tmp_path_factory.mktemp("many")
    for name, ttft_ms in (("main", 60), ("x", 72)):
        engines = [{"engine": "simulated", "options": {"ttft_ms": ttft_ms, "tpot_ms": 2}}]
        path = scenario(folder, engines=engines, load=LOAD, seed=7)
        ended = harness("run", str(path), "--out", name, "--format", "json", "-q", cwd=folder, env=VIRTUAL_TIME)
        assert ended.code == 0, ended.err
    for number in range(COPIES):
        name = "main" if number % 2 else "x"
        shutil.copytree(folder / name, folder / f"copy-{number}")
        stored = json.loads((folder / name / "manifest.json").read_text())
        stored |= {"created_utc": f"2026-11-30T07:{number:02}:00+00:00", "labels": {"branch": name}}
        stored["cells"][0]["trials"][0]["t0_utc"] = stored["created_utc"]
        (folder / f"copy-{number}" / "manifest.json").write_text(json.dumps(stored))
    return folder


def test_many_runs_are_a_line_each(many: Path) -> None:
    """With word and number; at the end how many have each word. One that cannot be read is named, and skipped."""
    (many / "broken").mkdir(exist_ok=True)
    (many / "broken" / "manifest.json").write_text("{")
    copies = [f"copy-{number}" for number in range(COPIES)]
    ended = harness("compare", "main", *copies, "broken", cwd=many)
    assert ended.code == 2, ended.err
    text = ended.out.replace("\u202f", " ")
    lines = [line for line in text.splitlines() if "copy-" in line]
    assert ["REGRESSED" in line for line in lines] == [number % 2 == 0 for number in range(COPIES)]
    assert "branch=x" in lines[0]
    assert "+20" in lines[0]
    assert "5 regressed · 5 unchanged" in text
    assert "broken" in ended.err
    ended = harness("compare", "main", *copies, "--json", cwd=many)
    assert ended.code == 5, ended.err
    found = json.loads(ended.out)
    (alone,) = [json.loads(harness("compare", "main", "copy-0", "--json", cwd=many).out)]
    assert found[0] == alone  # what was derived before says the same


def test_runs_by_a_label(many: Path) -> None:
    """The copies took turns: five pairs; a run without the label is left out. Pictures are drawn from the records."""
    copies = [f"copy-{number}" for number in range(COPIES)]
    options = ("--by", "label:branch", "--against", "main", "--json", "--format", "html")
    ended = harness("compare", *copies, "main", *options, cwd=many)
    assert ended.code == 5, ended.err
    assert "main has no label branch; left out" in ended.err
    found = json.loads(ended.out)
    assert (found["base"]["name"], found["head"]["name"], found["pairs"]) == ("branch=main", "branch=x", 5)
    assert (many / "comparison.html").exists()
    slip = harness("compare", *copies, "--by", "label:brunch", cwd=many)
    assert (slip.code, len(slip.err.splitlines())) == (2, 1), slip.err
    assert "--by label:brunch: no run has this label; did you mean `branch`" in slip.err
