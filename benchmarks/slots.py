"""The embedded engine with two and with four slots, each predicted from the other: `python -m benchmarks.slots`.

Ten minutes on two cores. Closed loops of one user and of as many users as slots give the time of a request alone and
with all slots busy. That time is taken to grow evenly with the requests that run together. docs/saturation.md has the
table.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import harness

SLOTS = (2, 4)
TOKENS = 128
SAME = 1.1
"""Ratio of the rates of one user alone, which no slots change, up to which both measurements are of one machine."""


@dataclass(frozen=True)
class Measured:
    """What was measured with some slots: rates of closed loops by users, and the result of the search."""

    slots: int
    closed_rps: dict[int, float]
    search: dict[str, Any]

    def predicted_rps(self, slots: int) -> float:
        """The rate of a closed loop of as many users as slots, with other slots."""
        alone, together = (users / self.closed_rps[users] for users in (1, self.slots))
        each = alone + (together - alone) * (slots - 1) / (self.slots - 1)
        return slots / each

    def predicted_largest(self, slots: int) -> float:
        """The largest rate with other slots: the same share of the rate that keeps all slots busy."""
        return float(self.search["value_rps"]) * self.predicted_rps(slots) / self.closed_rps[self.slots]


def measured(slots: int, seconds: float, search_s: float, folder: Path) -> Measured:
    """Run the engine with some slots. Raises RuntimeError if that fails, or the search finds no rate."""
    content = {
        "name": f"slots-{slots}",
        "model": "tiny",
        "engines": [{"engine": "llama-server", "quantization": "q8_0", "options": {"n_parallel": slots}}],
        "workload": {"prompt_tokens": 64, "output_tokens": {"dist": "fixed", "value": TOKENS, "exact": True}},
        "load": [
            {"kind": "sustained", "users": [1, slots], "warmup": "3s", "duration": f"{seconds:g}s"},
            {"kind": "saturate", "within": f"{search_s:g}s", "measure": "30s", "first_rate": 4},
        ],
        "slo": {"ttft": "250ms"},
    }
    path = folder / f"slots-{slots}.yaml"
    path.write_text(json.dumps(content))
    out = folder / f"slots-{slots}"
    harness(folder, "run", str(path), "--quiet", "--format", "json", "--out", str(out), "--wait", "60m")
    summary = json.loads((out / "summary.json").read_text())
    closed = {users: _completed(summary["results"], f"sustained-users-{users}") for users in (1, slots)}
    search = summary["trials"][-1]["facts"]["saturation"]
    if search["value_rps"] is None:
        raise RuntimeError(f"the search with {slots} slots found no rate; give it longer with --search")
    return Measured(slots, closed, search)


def _completed(results: list[dict[str, Any]], load: str) -> float:
    (pooled,) = [one for one in results if one["load"] == load and one["repetition"] == "pooled"]
    return float(pooled["classes"]["all"]["completed_rps"]["value"]["value"])


def table(found: tuple[Measured, Measured]) -> Iterator[str]:
    """Each predicted from the other, as Markdown."""
    yield "| from | of | slots busy: predicted, req/s | measured | error | largest rate: predicted | measured | error |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for one, other in (found, found[::-1]):
        busy, largest = one.predicted_rps(other.slots), one.predicted_largest(other.slots)
        truth = other.search
        ends = f"{truth['value_rps']:.3g} ({truth['lower_rps']:.3g} to {truth['upper_rps'] or float('inf'):.3g})"
        cells = [f"{one.slots} slots", f"{other.slots} slots", f"{busy:.3g}", f"{other.closed_rps[other.slots]:.3g}"]
        errors = [f"{ratio - 1:+.1%}" for ratio in (busy / other.closed_rps[other.slots], largest / truth["value_rps"])]
        yield f"| {' | '.join([*cells, errors[0], f'{largest:.3g}', ends, errors[1]])} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each closed loop")
    parser.add_argument("--search", type=float, default=180.0, help="length of each search, in seconds")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        two, four = (measured(slots, asked.seconds, asked.search, Path(folder)) for slots in SLOTS)
    for one in (two, four):
        rates = ", ".join(f"{users} at once {rate:.3g} req/s" for users, rate in one.closed_rps.items())
        print(f"{one.slots} slots, closed loops: {rates}")
    for line in table((two, four)):
        print(line)
    fast, slow = sorted((two.closed_rps[1], four.closed_rps[1]), reverse=True)
    if fast > SAME * slow:
        sys.exit(f"one user got {slow:.3g} and {fast:.3g} req/s: the machine changed, and the errors say nothing")


if __name__ == "__main__":
    main()
