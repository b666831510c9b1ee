"""What others say of the same starts: inference-doctor, in an environment of its own, and rules of thumb.

Each start is a file of inference-doctor's own "normalized" form, with the medians and means that our gate judges.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scorecard.arms import MODEL
from benchmarks.scorecard.outcome import E2E, ERRORS, TPOT, TTFT, Number, Outcome

PYTHON = "HARNESS_DOCTOR_PYTHON"
USUAL = Path(".venv-doctor/bin/python")
THRESHOLDS = (10.0, 3.0)
"""Worsening in percent from which it fails: its default, and our margin of TPOT."""
RULE = 1.10
JUDGED = (TPOT, TTFT, E2E)
METRICS = ("tpot_median_ms", "ttft_median_ms", "e2el_mean_ms")
"""Its names of the same numbers."""
_TO_THEIRS = {
    ("tpot_ms", "median"): TPOT,
    ("tpot_ms", "p95"): "tpot_ms p95",
    ("ttft_ms", "median"): TTFT,
    ("ttft_ms", "p95"): "ttft_ms p95",
    ("e2el_ms", "mean"): E2E,
    ("e2el_ms", "median"): "e2e_ms p50",
}
_THEIRS = """
import json, sys
from importlib.metadata import version
from pathlib import Path
from inference_doctor.quality import QualityThresholds, load_and_compare_directories
job = json.load(sys.stdin)
def said(gate, percent):
    sides = [Path(gate) / side for side in ("base", "head")]
    how = {"metric": job["metrics"], "format": "normalized"}
    limits = QualityThresholds(regression_percent=percent)
    return load_and_compare_directories(*sides, thresholds=limits, **how)["result"]
found = {gate: [said(gate, percent) for percent in job["thresholds"]] for gate in job["gates"]}
json.dump({"version": version("inference-doctor"), "found": found}, sys.stdout)
"""


def doctor_python() -> str:
    """Return the interpreter that has inference-doctor. Raises SystemExit if it has none."""
    python = os.environ.get(PYTHON) or str(USUAL)
    try:
        subprocess.run([python, "-c", "import inference_doctor.quality"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{python} has no inference-doctor; `make scorecard` installs it, or set {PYTHON}") from error
    return python


def doctor_says(python: str, outcomes: Sequence[Outcome], folder: Path) -> tuple[str, dict[str, list[str]]]:
    """Return its version, and its result of each gate at each of THRESHOLDS. Writes its files into the folder."""
    gates = {str(_written(one, folder)): one.key for one in outcomes}
    job = {"gates": list(gates), "metrics": METRICS, "thresholds": THRESHOLDS}
    ended = subprocess.run([python, "-c", _THEIRS], input=json.dumps(job), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"inference-doctor failed in {python}\n{ended.stderr[-2000:]}")
    said = json.loads(ended.stdout)
    return said["version"], {gates[gate]: results for gate, results in said["found"].items()}


def _written(outcome: Outcome, folder: Path) -> Path:
    """Write a file for each start of a gate; return their folder."""
    place = folder / outcome.key
    for number, side in enumerate(("base", "head")):
        (place / side).mkdir(parents=True, exist_ok=True)
        for start in range(outcome.pairs):
            text = json.dumps(normalized(outcome.numbers, start, number), indent=1)
            (place / side / f"repetition-{start + 1}.json").write_text(text)
    return place


def normalized(numbers: Mapping[str, Number], start: int, side: int) -> dict[str, Any]:
    """Return a start in inference-doctor's form. Failed requests are 0 or unknown: it refuses either but 0."""

    def value(name: str) -> float | None:
        return numbers[name].values[start][side] if name in numbers else None

    metrics: dict[str, Any] = {"ttft_ms": {}, "tpot_ms": {}, "e2el_ms": {}}
    for (family, statistic), name in _TO_THEIRS.items():
        metrics[family][statistic] = value(name)
    metrics["output_token_throughput"] = value("output_tokens_per_s value")
    metrics["request_throughput"] = value("completed_rps value")
    metrics["requests"] = {"failed": 0 if value(ERRORS) == 0 else None}
    return {
        "schema_version": "1",
        "environment": {"gpu": "none", "model": MODEL},
        "benchmark_parameters": {"load": "scorecard"},
        "metrics": metrics,
    }


def rule_says(outcome: Outcome) -> bool:
    """Return whether a mean over the head's starts is above that of the base by more than 10 %."""
    return any(outcome.numbers[name].ratio_of_means > RULE for name in JUDGED if name in outcome.numbers)


def rule_of_one_says(outcome: Outcome) -> bool:
    """Return whether a number of the head's first start is above that of the base by more than 10 %."""
    pairs = [outcome.numbers[name].known[:1] for name in JUDGED if name in outcome.numbers]
    return any(head > RULE * base for pair in pairs for base, head in pair)
