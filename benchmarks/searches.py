"""Searches for the largest rate on a real server of known capacity, ours and AIPerf's: `python -m benchmarks.searches`.

AIPerf stands in an environment of its own, whose interpreter HARNESS_AIPERF_PYTHON names; without it only ours is run.
Its default search for a limit is taken (`smooth-isotonic`), on whole requests per second, as it asks for.
docs/saturation.md has the table.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.command import harness
from benchmarks.peers import run_tool
from benchmarks.peers_tools import TOKENIZER
from benchmarks.slotted_server import Service, slotted_server, true_rate

SERVICE, SLO_S, TOKENS = Service(slots=8, mean_s=0.64, cv=0.8), 0.16, 4
"""Four tokens take a quarter of a whole service: 0.16 s on average, and at most 50 requests/s."""
TRIAL_S, LOW, HIGH, TRIALS = 30, 20, 60, 10
LIMIT_S = 3600
PYTHON = "HARNESS_AIPERF_PYTHON"
Found = tuple[float | None, float | None, float | None]
"""The rate to plan with, the likeliest one and the one that fails."""


def ours(url: str, folder: Path, search_s: float) -> Found:
    """Search with this project's command."""
    content = {
        "name": "search",
        "engines": [{"engine": "http", "url": url, "dialect": "openai-completions"}],
        "workload": {"prompt_tokens": 16, "output_tokens": {"dist": "fixed", "value": TOKENS, "exact": True}},
        "load": [{"kind": "saturate", "within": f"{search_s:g}s", "first_rate": 4}],
        "slo": {"ttft": f"{1000 * SLO_S:g}ms"},
    }
    path, out = folder / "search.yaml", folder / "run"
    path.write_text(json.dumps(content))
    harness(folder, "run", str(path), "--quiet", "--format", "json", "--out", str(out), "--wait", "60m")
    found = json.loads((out / "summary.json").read_text())["trials"][0]["facts"]["saturation"]
    return found["lower_rps"], found["value_rps"], found["upper_rps"]


def aiperf(url: str, folder: Path, trial_s: float) -> Found:
    """Search with AIPerf, p95 of TTFT within the SLO."""
    out = folder / "out"
    command = [
        *(str(Path(os.environ[PYTHON]).with_name("aiperf")), "profile", "-m", "slots", "--url", url),
        *("--endpoint-type", "completions", "--streaming", "--tokenizer", str(TOKENIZER)),
        *("--isl", "16", "--osl", str(TOKENS), "--request-rate", str(LOW), "--arrival-pattern", "poisson"),
        *("--benchmark-duration", f"{trial_s:g}", "--benchmark-grace-period", "10", "--ui", "none"),
        *("--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", str(out)),
        *("--search-space", f"phases.profiling.rate:{LOW},{HIGH}:int", "--search-planner", "smooth-isotonic"),
        *("--search-metric", "request_throughput", "--search-direction", "maximize"),
        *("--search-max-iterations", str(TRIALS), "--search-sla", f"time_to_first_token:p95:le:{1000 * SLO_S:g}"),
    ]
    run_tool(command, folder / "words", LIMIT_S)
    ends = json.loads((out / "search_history.json").read_text())["boundary_summary"]
    holds, fails = (None if ends[name] is None else ends[name]["value"] for name in ("feasible_max", "infeasible_min"))
    return holds, holds, fails


def rows(runs: int, search_s: float, trial_s: float) -> Iterator[str]:
    """Each search of each tool as a line of Markdown."""
    truth = true_rate(SERVICE, SLO_S, tokens=TOKENS)
    yield f"True rate, by long runs in virtual time: {truth:.2f} requests/s.\n"
    yield "| search | rate to plan with | of the truth | likeliest rate | error | fails at | wall time |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    tools: dict[str, tuple[Callable[[str, Path, float], Found], float]] = {"ours": (ours, search_s)}
    if os.environ.get(PYTHON):
        tools[f"AIPerf, trials of {trial_s:g} s"] = (aiperf, trial_s)
    for seed in range(1, runs + 1):
        for name, (search, seconds) in tools.items():
            yield row(name, search, seconds, truth, seed)


def row(name: str, search: Callable[[str, Path, float], Found], seconds: float, truth: float, seed: int) -> str:
    """One search on a fresh server."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, slotted_server(SERVICE, seed) as port:
        planned, likely, fails = search(f"http://127.0.0.1:{port}", Path(folder), seconds)
    wall = f"{time.monotonic() - began:.0f} s"
    cells = [_rate(planned), _share(planned, truth), _rate(likely), _share(likely, truth, less=1.0), _rate(fails), wall]
    return f"| {name} | {' | '.join(cells)} |"


def _rate(rps: float | None) -> str:
    return "-" if rps is None else f"{rps:.3g}"


def _share(rps: float | None, truth: float, less: float = 0.0) -> str:
    return "-" if rps is None else f"{rps / truth - less:{'+' if less else ''}.1%}"


def main() -> None:
    """Search, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--search", type=float, default=240.0, help="seconds of each search of ours")
    parser.add_argument("--trial", type=float, default=TRIAL_S, help="seconds of each trial of AIPerf's")
    asked = parser.parse_args()
    for line in rows(asked.runs, asked.search, asked.trial):
        print(line, flush=True)
    if not os.environ.get(PYTHON):
        print(f"\nAIPerf is missing: {PYTHON} names the interpreter of its environment.")


if __name__ == "__main__":
    main()
