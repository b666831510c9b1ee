"""The recipe for two builds: what a gate prints of a first token that comes later, number by number."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.comparison.comparison import Comparison, compare
from harness.comparison.plain import as_data
from harness.comparison.sides import Side, joined
from harness.errors import ExitCode
from harness.scenario.compare import parse_pairs
from harness.scenario.margins import parse_margin
from harness.store.manifest import StartEntry
from reports.writers import comparison
from tests.harness.comparison.test_comparison import measured, side

ROOT = Path(__file__).parents[3]
BASE = {"ttft_ms p95": (103.8, 80.2, 94.8, 92.8), "tpot_ms p50": (10.02, 9.97, 10.05, 9.99)}
HEAD = {"ttft_ms p95": (121.1, 98.3, 111.4, 109.6), "tpot_ms p50": (10.01, 9.98, 10.07, 9.98)}
"""Numbers of four starts each: the starts of a side differ by more than the builds do, the pairs do not."""


def build(name: str, numbers: dict[str, tuple[float, ...]]) -> Side:
    """A side of four starts."""
    starts = []
    for values in zip(*numbers.values(), strict=True):
        one = measured(keys=("", "http", "", "", "single_user"), loop="closed", start=StartEntry(load_s=2.0))
        own = {("all", *figure.split()): value for figure, value in zip(numbers, values, strict=True)}
        of_start = {**one.starts[0].values, **own}
        pooled = dict.fromkeys(own, one.pooled["all", "ttft_ms", "p50"])
        start = replace(one.starts[0], values=of_start)
        starts.append(
            side(replace(one, starts=(start,), pooled={**one.pooled, **pooled}, n=dict.fromkeys(of_start, 100)))
        )
    return joined(name, starts)


@pytest.fixture(scope="module")
def found() -> Comparison:
    """The gate after its first look: four pairs, judged as one of three looks."""
    margins = [parse_margin("ttft p95 +10%"), parse_margin("tpot p50 +3%")]
    alpha = parse_pairs("4..8").alpha
    return compare(build("base", BASE), build("head", HEAD), margins, pairs=4, alpha=alpha, others=False)


def printed(found: Comparison) -> list[str]:
    """What the command prints, without the marks of narrow spaces."""
    out = io.StringIO()
    comparison.show(as_data(found), Console(file=out, width=110, highlight=False))
    return [line.rstrip().replace("\u202f", " ") for line in out.getvalue().splitlines()]


def test_a_first_token_that_comes_later_regressed(found: Comparison) -> None:
    """92.9 -> 110.1 ms: the means of the starts; +18.7 %: the mean of the pairs, whose starts neighbour each other."""
    (row,) = [row for row in found.gating if row.margin.metric == "ttft_ms"]
    assert (f"{row.base.value:.1f}", f"{row.head.value:.1f}") == ("92.9", "110.1")
    assert row.change.value == pytest.approx(1.187, abs=5e-4)
    assert (found.word, found.exit_code()) == ("regressed", ExitCode.REGRESSED)
    verdict = printed(found)[-1]
    assert verdict.startswith("REGRESSED  TTFT p95 92.9 ms → 110.1 ms, +18.7 % [")
    assert verdict.endswith("exit 5")


def test_the_readme_ends_its_recipe_with_this_verdict(found: Comparison) -> None:
    """Line by line as it is printed, but the line that names both runs."""
    page = (ROOT / "README.md").read_text().replace("\u202f", " ")
    assert "\n".join(printed(found)[1:]) in page
