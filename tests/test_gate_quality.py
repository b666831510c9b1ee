"""A gate with quality: both sides are scored once, against one reference, and faster but worse is not a pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import manifest, on_path, scenario

from tests.forked import harness

pytestmark = pytest.mark.slow
ENVIRONMENT = on_path("virtual_time", "blurred")
LOAD = [{"kind": "single_user", "requests": 12, "timeout": "5s"}]
HEAD = {"blur": 0.4, "ttft_ms": 20}  # twice as fast, and far from the reference


def gate(folder: Path, base: dict[str, Any], head: dict[str, Any], *more: str, **more_keys: Any) -> Any:
    """A gate of two variants on their TTFT; the head is listed first, so that it would be the reference by itself."""
    engines = [{"engine": "blurred", "variants": {"head": head, "base": base}}]
    section = {"baseline": "base", "margins": {"ttft p50": "10%"}, "pairs": 4, **more_keys}
    keys = {"quality": {"tokens": 2048, "chunk": 64}, "workload": {"prompt_tokens": 8, "output_tokens": 5}}
    path = scenario(folder, engines=engines, load=LOAD, compare=section, **keys)
    return harness("run", str(path), "--out", "gate", *more, cwd=folder, env=ENVIRONMENT, timeout_s=240)


def rows(folder: Path) -> dict[str, Any]:
    """The gating rows of the stored comparison, by metric."""
    data = json.loads((folder / "gate" / "comparison.json").read_text())
    return {row["metric"]: row for row in data["rows"] if row["gates"]}


def test_faster_but_worse_is_not_a_pass(tmp_path: Path) -> None:
    """The whole regressed, and says so in every file; each side was scored once, before the pairs, by one reference."""
    ended = gate(tmp_path, {"blur": 0.02, "ttft_ms": 40}, HEAD)
    assert ended.code == 5, ended.err + ended.out
    found = rows(tmp_path)
    assert {metric: row["word"] for metric, row in found.items()} == {
        "ttft_ms": "improved",
        "kl_mean": "worse",
        "top1_agreement": "worse",
    }
    assert found["kl_mean"]["base"]["value"] == 0  # the base is its own reference, and that of the head
    assert "1,024 positions in 32 chunks, paired" in found["kl_mean"]["method"]
    assert ended.out.count("worse") == 2
    assert "both sides against" in ended.out
    folder = tmp_path / "gate"
    for name in ("comparison.md", "comparison.html", "comparison.xml", "comparison.csv"):
        assert "worse" in (folder / name).read_text(), name
    assert not [*folder.rglob("*.f32")]
    for pair in folder.glob("pair-*/*"):
        assert manifest(pair)["cells"][0].get("quality") is None
    again = harness("compare", "gate", "--json", cwd=tmp_path)
    assert (again.code, rows(tmp_path)) == (
        5,
        {row["metric"]: row for row in json.loads(again.out)["rows"] if row["gates"]},
    )


def test_the_same_quality_leaves_the_word_to_the_others(tmp_path: Path) -> None:
    """No worse; the head is faster, so that the whole improved."""
    ended = gate(tmp_path, {"blur": 0.02, "ttft_ms": 40}, {"blur": 0.02, "ttft_ms": 20}, quality={"kl": 0.01})
    assert ended.code == 0, ended.err + ended.out
    found = rows(tmp_path)
    assert [*found] == ["ttft_ms", "kl_mean"]  # the figure that is named, alone
    assert (found["kl_mean"]["word"], found["kl_mean"]["margin"]) == ("no worse", 0.01)
    assert "IMPROVED" in ended.out


def test_a_margin_on_quality_needs_quality(tmp_path: Path) -> None:
    """One sentence with the key, before anything runs."""
    engines = [{"engine": "simulated", "variants": {"base": {}, "head": {}}}]
    path = scenario(tmp_path, engines=engines, compare={"baseline": "base", "quality": {"kl": 0.01}})
    ended = harness("run", str(path), cwd=tmp_path)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert "compare.quality: needs `quality`; write `quality: {}` beside `compare`" in ended.err
