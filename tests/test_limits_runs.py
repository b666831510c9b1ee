"""Limits of whole runs against the simulated engine, in virtual time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import VIRTUAL_TIME, scenario

from harness.prices.catalogue import read_catalogue
from tests.forked import harness

pytestmark = pytest.mark.slow


def ended(tmp_path: Path, **keys: Any) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of a run, and its limits in summary.json."""
    path = scenario(tmp_path, **keys)
    done = harness("run", str(path), "--out", "run", "--format", "html,json", cwd=tmp_path, env=VIRTUAL_TIME)
    return done.code, json.loads((tmp_path / "run" / "summary.json").read_text())["limits"]


def variants(slower: float, **options: Any) -> list[dict[str, Any]]:
    """Two builds of an engine, of which one is slower."""
    own = {"ttft_ms": 60 * slower, "tpot_ms": 1 * slower}
    return [
        {
            "engine": "simulated",
            "options": {"ttft_ms": 60, "tpot_ms": 1, "service": "exponential", **options},
            "variants": {"base": {}, "head": own},
        }
    ]


def recipe() -> dict[str, Any]:
    """Load and first limit of the page's comparison of two builds."""
    blocks = re.findall(r"```yaml\n(.*?)```", (Path(__file__).parents[1] / "docs" / "ci.md").read_text(), re.DOTALL)
    found = yaml.safe_load(next(block for block in blocks if " head: " in block))
    return {"load": found["load"], "limits": found["limits"][:1]}


def test_a_variant_a_fifth_slower_fails_the_recipe_of_the_page(tmp_path: Path) -> None:
    """`head` against `base`, both with the same requests."""
    code, (found,) = ended(tmp_path, engines=variants(1.2), **recipe())
    assert (code, found["variant"], found["outcome"], found["certainty"]) == (1, "head", "fail", "sure")
    said = "1.20 * base [1.20, 1.20], limit 1.10 * base (sure); one start each: a restart may differ."
    assert found["sentence"].endswith(said)


def test_a_variant_that_is_no_slower_passes_it(tmp_path: Path) -> None:
    """With the certainty of pairs."""
    code, (found,) = ended(tmp_path, engines=variants(1.0), **recipe())
    assert (code, found["outcome"], found["certainty"]) == (0, "pass", "sure")


def test_errors_are_limited_per_time(tmp_path: Path) -> None:
    """Every tenth reply is an error: one in a second, at 10 requests per second."""
    limits = ["error_rate <= 20%", "errors <= 3 per 10s", "out_of_memory <= 0 per 10s"]
    code, found = ended(
        tmp_path,
        engines=[{"engine": "simulated", "options": {"ttft_ms": 60, "tpot_ms": 1, "error_every": 10}}],
        load=[{"kind": "sustained", "rate": 10, "arrivals": "constant", "duration": "30s"}],
        limits=limits,
    )
    assert code == 1
    assert [one["outcome"] for one in found] == ["pass", "fail", "pass"]
    assert found[1]["sentence"] == "errors per 10s is 10 (limit 3)."


def test_a_limit_on_the_cost_is_judged_by_the_price_of_the_machine(tmp_path: Path) -> None:
    """Good requests at 10 per second on a machine of $1.006 an hour: $0.0279 per 1,000, which the report repeats."""
    code, found = ended(
        tmp_path,
        engines=[{"engine": "simulated", "options": {"ttft_ms": 60, "tpot_ms": 1}}],
        load=[{"kind": "sustained", "rate": 10, "arrivals": "constant", "duration": "30s"}],
        instance="g5.xlarge",
        slo={"ttft": "500ms"},
        limits=["cost_per_1k_requests_usd <= 0.03", "cost_per_1m_output_tokens_usd <= 0.001"],
    )
    assert code == 1
    assert [one["outcome"] for one in found] == ["pass", "fail"]
    assert found[0]["value"] == pytest.approx(1.006 / 36_000 * 1000, rel=0.01)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["price"] == {
        "instance": "g5.xlarge",
        "pricing": "on_demand",
        "usd_per_hour": 1.006,
        "date": "2026-11",
        "source": read_catalogue().find("g5.xlarge").source,
    }
    again = harness("report", "run", "--format", "md", cwd=tmp_path)
    assert "per 1,000 requests" in again.out + (tmp_path / "run" / "report.md").read_text()
