"""Every shipped scenario really runs, by its command and on the engine it names; shortened with --set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from command import ROOT, VIRTUAL_TIME, manifest

from harness.scenario.templates import list_scenarios
from tests.forked import harness

LATENCIES = {"ttft_ms", "tpot_ms", "e2e_ms", "error_rate", "output_tokens_per_s"}
MEMORY = {"rss_peak_bytes", "weight_bytes"}
QUALITY = {"kl_mean", "top1_agreement", "ppl_ratio"}


@dataclass(frozen=True)
class Shortened:
    """sets: what makes the scenario short. metrics: what it is for. rows: of the results, (level, load, class)."""

    sets: tuple[str, ...]
    metrics: set[str]
    rows: set[tuple[str, str, str]]


def _rows(levels: str, loads: str, classes: str = "all") -> set[tuple[str, str, str]]:
    return {(level, load, name) for level in levels.split() for load in loads.split() for name in classes.split()}


RUNS = {
    "quickstart": Shortened(
        ("load.0.requests=5", "load.1.rate=40", "load.1.warmup=100ms", "load.1.duration=400ms"),
        {*LATENCIES, *MEMORY, "attainment", "goodput_rps", "load_s"},
        _rows("q8_0 q4_k_m", "single_user sustained"),
    ),
    "single_user": Shortened(
        ("load.0.requests=5", "load.0.warmup=100ms"), {*LATENCIES, "first_request_ms"}, _rows("q8_0", "single_user")
    ),
    "burst": Shortened(
        (
            *("load.0.rate=10", "load.0.burst_rate=40", "load.0.every=400ms", "load.0.burst_for=200ms"),
            *("load.0.warmup=200ms", "load.0.duration=800ms", "load.1.spike.requests=6"),
        ),
        {*LATENCIES, "attainment", "offered_rps"},
        _rows("q8_0", "burst-40 spike"),
    ),
    "sustained": Shortened(
        ("load.0.rate=[20,40]", "load.0.warmup=100ms", "load.0.duration=500ms"),
        {*LATENCIES, "attainment", "goodput_rps", "offered_rps"},
        _rows("q8_0", "sustained-rate-20 sustained-rate-40"),
    ),
    "conversations": Shortened(
        (
            *("workload.think_time.median=50ms", "workload.think_time.p95=100ms", "load.0.rate=8"),
            *("load.0.warmup=200ms", "load.0.duration=2s", "load.1.duration=2s"),
        ),
        {*LATENCIES, "attainment", "cached_share"},
        _rows("q8_0", "sessions sustained", "all cached uncached"),
    ),
    "mixed": Shortened(
        ("load.0.rate=20", "load.0.warmup=200ms", "load.0.duration=1s"),
        {*LATENCIES, "attainment"},
        _rows("q8_0", "mixed", "all chat summarise"),
    ),
    "quantization_sweep": Shortened(
        (
            *("engines.0.quantization=[f16,q4_0]", "workload.output_tokens.value=32", "load.0.requests=3"),
            *("load.0.warmup=0s", "load.1.requests=8", "quality.tokens=128", "quality.chunk=64"),
        ),
        {*LATENCIES, *MEMORY, *QUALITY},
        _rows("f16 q4_0", "single_user sustained"),
    ),
    "load_test": Shortened(("load.0.requests=20",), {*LATENCIES, "mean_concurrency"}, _rows("q8_0", "sustained")),
    "memory_levels": Shortened(
        (
            *("model=tiny", "workload.prompt_tokens=32", "workload.output_tokens.value=8"),
            *("quality.tokens=128", "quality.chunk=64"),
            *(f"engines.{one}.load.0.requests=16" for one in range(4)),
        ),
        {*LATENCIES, *MEMORY, *QUALITY},
        _rows("f32 f16 q8_0 q4_0", "sustained"),
    ),
    "production_workload": Shortened(
        (
            *("model=[tiny]", "load.0.requests=4", "load.1.requests=6", "load.1.burst_rate=40", "load.1.every=300ms"),
            *("load.1.burst_for=100ms", "load.2.requests=6", "load.2.rate=40", "load.3.requests=12", "load.3.rate=40"),
        ),
        {*LATENCIES, *MEMORY, "offered_rps"},
        _rows("f16", "single-user burst sustained mixed") | _rows("f16", "mixed", "interactive batch"),
    ),
    "engines": Shortened(
        ("model=tiny", "engines.3.load.0.requests=8", "engines.3.options.n_ctx=512", "workload.output_tokens.value=32"),
        {*LATENCIES, *MEMORY},
        _rows("q8_0 q4_k_m", "4-users"),
    ),
    "deployment_settings": Shortened(
        (
            *("model=tiny", "workload.prompt_tokens=100", "workload.output_tokens.value=24"),
            *("load.0.requests=3", "load.1.requests=10"),
        ),
        {*LATENCIES, *MEMORY},
        _rows("q4_0 f16", "single_user sustained"),
    ),
    "cold_start": Shortened(
        ("model=tiny", "repetitions=1", "load.0.requests=2", "load.1.requests=5", "workload.output_tokens.value=16"),
        {*LATENCIES, "load_s", "load_warm_s", "first_request_ms"},
        _rows("f16 q8_0", "single_user five-users"),
    ),
    "batching_and_cache": Shortened(
        ("model=tiny", "load.0.requests=16", "workload.output_tokens.value=8"),
        {*LATENCIES, "cached_share"},
        _rows("q8_0", "sustained", "all cached uncached repeated original"),
    ),
    "nightly": Shortened(
        ("repetitions=1", "load.0.requests=4", "load.1.rate=20", "load.1.warmup=100ms", "load.1.duration=500ms"),
        {*LATENCIES, "attainment", "goodput_rps"},
        _rows("q8_0", "single_user sustained") | {("", "single_user", "all"), ("", "sustained", "all")},
    ),
    "capacity": Shortened(
        ("load.0.rate=[10,20]", "load.0.warmup=100ms", "load.0.duration=500ms", "workload.output_tokens.value=8"),
        {*LATENCIES, "attainment", "goodput_rps", "offered_rps"},
        _rows("q8_0", "sustained-rate-10 sustained-rate-20"),
    ),
    "hardware_comparison": Shortened(
        ("load.0.users=[1,4]", "load.0.requests=8", "workload.output_tokens.value=16"),
        {*LATENCIES, *MEMORY, "mean_concurrency"},
        _rows("q8_0", "sustained-users-1 sustained-users-4"),
    ),
    "saturation": Shortened(
        ("load.0.within=8s", "load.0.measure=1s", "load.0.first_rate=20"),
        {*LATENCIES, "attainment", "offered_rps"},
        {("", "saturate", "all")},
    ),
    "phases": Shortened(
        (
            *("model=tiny", "workload.output_tokens.value=8", "workload.turns=2", "load.0.requests=3"),
            *("load.1.users=[4]", "load.1.requests=8", "engines.1.quantization=[q8_0]"),
        ),
        {*LATENCIES, *MEMORY, "attainment", "load_s", "load_warm_s", "first_request_ms", "cached_share"},
        _rows("f16 q8_0", "single_user sustained", "all cached uncached"),
    ),
    "serving_dimensions": Shortened(
        (
            *("engines.0.quantization=[f16]", "workload.output_tokens.value=8", "workload.prompt_tokens=140"),
            *("load.0.requests=6", "load.1.requests=12", "load.1.rate=40", "load.2.spike.requests=6"),
        ),
        {*LATENCIES, *MEMORY, "offered_rps", "cached_share", "load_s", "first_request_ms"},
        _rows("f16 q8_0", "single_user batch", "all cached uncached repeated original")
        | _rows("f16 q8_0", "real-time", "all cached uncached streamed whole"),
    ),
    "targets": Shortened(
        ("workload.output_tokens.value=32", "load.0.requests=3", "load.1.requests=10"),
        {*LATENCIES, "load_s", "load_warm_s", "output_tokens_per_s_per_user", "system_memory_peak_share"},
        _rows("q8_0", "single_user more-than-four"),
    ),
}

IN_VIRTUAL_TIME = {"saturation"}  # of the simulated engine alone


def test_every_shipped_scenario_is_run_here() -> None:
    """A new one needs a line above."""
    assert set(RUNS) == set(list_scenarios())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RUNS))
def test_each_runs_to_its_end(name: str, tmp_path: Path) -> None:
    """Every trial completes without a failed request, and the summary has the metrics that the scenario is for.

    Cells of engines that are not installed are skipped, and say so.

    Limits and validity are left open: how fast this machine is, and how busy, is no property of the scenario. Six
    tells that there are too few requests for a p95, as can be after shortening.
    """
    short = RUNS[name]
    sets = [word for text in short.sets for word in ("--set", text)]
    path = ROOT / "scenarios" / f"{name}.yaml"
    arguments = ("run", str(path), "--out", "run", "--format", "csv,md", *sets)
    ended = harness(*arguments, cwd=tmp_path, env=VIRTUAL_TIME if name in IN_VIRTUAL_TIME else None, timeout_s=280)
    assert ended.code in (0, 1, 4, 6), ended.err
    assert "Traceback" not in ended.out + ended.err
    cells = manifest(tmp_path / "run")["cells"]
    skipped = [cell for cell in cells if cell["status"] == "skipped"]
    assert all("is not installed" in cell["reason"] for cell in skipped)
    statuses = {trial["status"] for cell in cells if cell not in skipped for trial in cell["trials"]}
    assert statuses == {"complete"}, ended.err
    summary = pd.read_csv(tmp_path / "run" / "summary.csv", keep_default_na=False)
    pooled = summary[summary["repetition"] == "pooled"]
    loads = pooled[pooled["load"] != "quality"]
    assert set(zip(loads["level"], loads["load"], loads["class"], strict=True)) == short.rows
    assert short.metrics <= set(pooled["metric"])
    assert set(pooled.loc[pooled["metric"] == "error_rate", "value"].astype(float)) == {0.0}
