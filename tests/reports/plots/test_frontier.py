"""Frontiers: what dominates what beyond doubt, and throughput per GPU, per dollar and per watt."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from harness.store.manifest import Price
from reports.data import ReportData
from reports.plots.drawing import Plot
from reports.plots.frontier import Spot, dominators, frontiers
from reports.plots.marks import COLOURS
from reports.sweeps import RATE, Estimate
from tests.fabricated import again
from tests.reports.plots.paths import corners
from tests.reports.sweep_of_rates import sweep_of

pytestmark = pytest.mark.slow
PRICE = Price(instance="g5.xlarge", pricing="on_demand", usd_per_hour=1.006, date="2026-11", source="a guide")


def spot(speed: float, throughput: float, width: float = 0.02, *, kind: str = "sustained", **changes: Any) -> Spot:
    """A load whose numbers have intervals of a width, as a share."""
    name = f"{speed:g}"
    both = (Estimate(one, one * (1 - width / 2), one * (1 + width / 2), **changes) for one in (speed, throughput))
    return Spot(("", "", "", ""), name, name, (RATE, kind), speed, *both)


def names(spots: list[Spot]) -> list[str]:
    """The load that dominates each, "" if none does."""
    return ["" if one is None else one.name for one in dominators(spots)]


def test_a_load_is_dominated_beyond_doubt_alone() -> None:
    """By one whose intervals lie above its own in both coordinates; equal ones and overlaps decide nothing."""
    assert names([spot(10, 100), spot(20, 200)]) == ["20", ""]
    assert names([spot(10, 200), spot(20, 100)]) == ["", ""]
    assert names([spot(10, 100), spot(10.1, 200)]) == ["", ""]
    assert names([spot(10, 100, 0.8), spot(11, 120, 0.8)]) == ["", ""]


@pytest.mark.parametrize("better", [spot(20, 200, kind="mixed"), spot(20, 200, poor="It stalled."), spot(20, 200, 0)])
def test_what_cannot_be_compared_dominates_nothing(better: Spot) -> None:
    """Loads of another kind, of poor data, and without intervals."""
    assert names([spot(10, 100), better]) == ["", ""]
    assert names([spot(30, 300), replace(better)]) == ["", ""]


def pictures(data: ReportData) -> dict[str, Plot]:
    """The frontiers, by name."""
    return {plot.name: plot for plot in frontiers(data)}


@pytest.fixture(scope="module")
def three() -> ReportData:
    """Three quantizations at five rates, each faster than the one before."""
    return sweep_of("f16", "q8", "q4", seconds=20.0)


def test_lines_join_what_nothing_dominates(three: ReportData) -> None:
    """The slowest level is dominated where a faster one serves more at a higher speed; crosses say by which."""
    (system,) = frontiers(three)
    paths = re.findall(rf'd="(M[^"]*)" style="fill:none;(?:[^"]*;)?stroke:{COLOURS[0]};stroke-width:1.4"', system.svg)
    table = system.table
    assert table is not None
    dominated = [row for row in table.rows if row[0].text == "f16" and row[4].text]
    assert dominated
    assert all(row[4].text.startswith(("q8, ", "q4, ")) for row in dominated)
    assert max(len(corners(path)) for path in paths) <= 5 - len(dominated) + 1
    assert "crosses are dominated" in system.reading
    assert "Dominated by" in system.svg


def test_the_slo_of_a_token_is_a_line(three: ReportData) -> None:
    """30 ms per token are 33 tokens/s for one user."""
    (system,) = frontiers(three)
    assert "SLO TPOT 30 ms" in re.findall(r">([^<>]+)</text>", system.svg)


def test_throughput_per_gpu_and_per_dollar(three: ReportData) -> None:
    """By the machine's GPUs, and by its price, whose date and source stand beside the picture."""
    manifest = again(three.manifest, price=PRICE.stored())
    found = pictures(replace(three, gpus=4, manifest=manifest))
    assert list(found) == ["system", "per-gpu", "per-dollar"]
    tables = {name: plot.table for name, plot in found.items()}
    first = {name: table.rows[0][2].value for name, table in tables.items() if table}
    assert first["system"] is not None
    assert first["per-gpu"] == pytest.approx(first["system"] / 4)
    assert first["per-dollar"] == pytest.approx(first["system"] * 0.0036 / 1.006)
    assert "per GPU, of 4" in found["per-gpu"].svg
    assert found["per-dollar"].reading.endswith(" g5.xlarge at $1.006 an hour (on demand, as of 2026-11): a guide.")


def test_throughput_per_watt() -> None:
    """The inverse of joules per output token: where the energy of the GPUs was measured."""
    data = sweep_of("f16", seconds=20.0)
    energy = data.summary[data.summary["metric"] == "output_tokens_per_s"].assign(
        metric="energy_j_per_output_token", value=0.5, low=0.4, high=0.625, unit="J/token"
    )
    import pandas as pd

    found = pictures(replace(data, summary=pd.concat([data.summary, energy], ignore_index=True)))
    assert list(found) == ["system", "per-watt"]
    table = found["per-watt"].table
    assert table is not None
    assert {row[2].text for row in table.rows} == {"2.00 [1.60, 2.50]"}
