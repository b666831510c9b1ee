"""The cache audit as a user runs it, against servers on loopback whose caches are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import manifest, on_path, scenario

from tests.caching_server import serving
from tests.forked import harness

pytestmark = pytest.mark.slow
WORKLOAD = {"prompt_tokens": 8, "output_tokens": 8}


def engine(url: str) -> dict[str, Any]:
    """A server that runs already."""
    return {"engine": "http", "url": url, "dialect": "openai-completions", "served_model": "cached"}


@pytest.mark.parametrize(
    ("cache", "told"),
    [
        ("result", ("a result cache answers them",)),
        ("prefix", ("a prefix cache, for the tokens after took as long",)),
        ("none", ("no result cache", "they differ too much to tell a result cache")),  # the latter on a busy machine
    ],
)
def test_a_plain_run_names_the_cache(tmp_path: Path, cache: str, told: tuple[str, ...]) -> None:
    """Before its load, in one sentence with both numbers, which its report has too."""
    load = [{"kind": "single_user", "requests": 2, "timeout": "5s"}]
    with serving(cache) as url:
        path = scenario(tmp_path, engines=[engine(url)], load=load, workload=WORKLOAD)
        options = ("--cache-audit", "--out", "run", "--format", "md,json")
        ended = harness("run", str(path), *options, cwd=tmp_path, timeout_s=240)
    (line,) = [line for line in ended.err.splitlines() if line.startswith("cache audit: ")]
    (said,) = [one for one in told if one in line]
    assert "distinct ones" in line
    assert [note for note in manifest(tmp_path / "run")["notes"] if said in note]
    assert said in (tmp_path / "run" / "report.md").read_text()
    assert manifest(tmp_path / "run-cache-audit")["status"] == "complete"


def test_a_gate_names_the_side_with_the_cache(tmp_path: Path) -> None:
    """`cache_audit: true` in `compare`: each side is asked before the pairs, and every file says what was found."""
    engines = [{"engine": "repeating", "variants": {"base": {"cache": "none"}, "head": {"cache": "result"}}}]
    load = [{"kind": "single_user", "requests": 12, "timeout": "5s"}]
    section = {"baseline": "base", "cache_audit": True, "pairs": 4, "margins": {"ttft p50": "10%"}}
    path = scenario(tmp_path, engines=engines, load=load, workload=WORKLOAD, compare=section)
    environment = on_path("virtual_time", "repeating")
    ended = harness("run", str(path), "--out", "gate", cwd=tmp_path, env=environment, timeout_s=240)
    assert ended.code == 0, ended.err + ended.out
    found = json.loads((tmp_path / "gate" / "comparison.json").read_text())["cache_audit"]
    assert [(one["side"], one["kind"]) for one in found] == [("base", "none"), ("head", "result cache")]
    assert (found[0]["distinct_ms"], found[1]["repeated_ms"]) == (pytest.approx(170), pytest.approx(0, abs=1))
    sentence = "head: Repeated prompts took 0 ms, distinct ones 170 ms (E2E): a result cache answers them."
    assert sentence in " ".join(ended.out.split()).replace("\u202f", " ")
    for name in ("comparison.md", "comparison.html"):
        assert "a result cache answers them" in (tmp_path / "gate" / name).read_text()
