"""Pictures over the loads: no point is lost, lines join only what belongs together, and knees and limits are said."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from harness.cli.commands.report import report_data
from harness.results import derive
from harness.store.manifest import TrialEntry
from reports import plots
from reports.data import ReportData
from reports.plots.drawing import Plot
from reports.plots.marks import COLOURS, MUTED
from reports.plots.sweep import _abscissa
from tests.fabricated import FabricatedTrial, again, cell_entry, noisy, trial_entry
from tests.reports.conftest import manifest
from tests.reports.plots.paths import corners
from tests.reports.sweep_of_rates import sweep_of
from tests.reports.sweep_of_users import sweep_of_users

pytestmark = pytest.mark.slow


def drawn(data: ReportData) -> dict[str, Plot]:
    """The pictures over the loads, by name."""
    return {plot.name: plot for plot in plots.of_loads(data)}


def tips(plot: Plot) -> list[str]:
    """What is shown under the pointer, mark by mark."""
    return [element.text or "" for element in ET.fromstring(plot.svg).iter() if element.tag.endswith("title")]


def lines(plot: Plot, colour: str) -> list[list[tuple[float, float]]]:
    """The curves of a colour."""
    found = re.findall(rf'd="(M[^"]*)" style="fill:none;(?:[^"]*;)?stroke:{colour};stroke-width:1.4"', plot.svg)
    return [corners(path) for path in found if len(corners(path)) > 2]


@pytest.fixture(scope="module")
def three() -> ReportData:
    """Three quantizations at five rates, with a limit."""
    return sweep_of("f16", "q8", "q4", seconds=20.0, limits=("ttft_ms p95 <= 250",))


def test_a_sweep_is_five_pictures_and_the_system(three: ReportData) -> None:
    """Latencies, throughput and goodput over the rate; throughput against speed per user."""
    names = ["ttft", "tpot", "e2e", "output-tokens-per-s", "goodput-rps"]
    assert list(drawn(three)) == [*(f"sweep-rate-sustained-{name}" for name in names), "system"]
    assert "Knee (shaded): 4 to 8/s (all)." in drawn(three)["sweep-rate-sustained-ttft"].reading


def test_no_point_is_lost(three: ReportData) -> None:
    """Every load has a mark and a place on the line, though the lightest have too few requests for an interval."""
    for plot in drawn(three).values():
        assert plot.table is not None
        assert len(tips(plot)) == len(plot.table.rows) == 15
    ttft = drawn(three)["sweep-rate-sustained-ttft"]
    assert [len(lines(ttft, colour)[0]) for colour in COLOURS[:3]] == [5, 5, 5]
    assert {"SLO 200 ms", "limit 250 ms", "f16", "q8", "q4"} <= set(re.findall(r">([^<>]+)</text>", ttft.svg))


def test_poor_data_is_grey_and_says_why(three: ReportData) -> None:
    """Its points stay on the line, in brackets and with the reason under the pointer; they are on no front."""
    reason = {"level": "invalid", "code": "stall", "sentence": "It stalled.", "advice": "", "metrics": ["tpot_ms"]}
    judged = [
        one | {"verdict": "invalid", "reasons": [reason]} if one["cell"] == "000" else one for one in three.validity
    ]
    pictures = drawn(replace(three, validity=judged))
    tpot, ttft = pictures["sweep-rate-sustained-tpot"], pictures["sweep-rate-sustained-ttft"]
    assert len(tips(tpot)) == 15
    assert sum("Data: poor. It stalled." in tip for tip in tips(tpot)) == 5
    assert len(lines(tpot, COLOURS[0])[0]) == 5
    assert f"stroke:{MUTED}" in tpot.svg
    assert "grey is poor data" in tpot.reading
    assert not any("poor" in tip for tip in tips(ttft))
    assert not lines(pictures["system"], COLOURS[0])
    assert len(tips(pictures["system"])) == 15


def test_a_single_configuration_shows_more_quantiles() -> None:
    """p50, p95 and p99 with a legend, and what happens at its knee."""
    ttft = drawn(sweep_of("f16", seconds=20.0))["sweep-rate-sustained-ttft"]
    assert len(tips(ttft)) == 15
    assert {"p50", "p95", "p99", "knee"} <= set(re.findall(r">([^<>]+)</text>", ttft.svg))
    assert re.search(r"Knee \(shaded\): 4 to 8/s \(TTFT p95 grows 2\.\d times\)", ttft.reading)


def test_throughput_that_a_limit_asks_for_is_a_line() -> None:
    """Goodput and tokens per second may have a lower limit."""
    data = sweep_of("f16", seconds=20.0, limits=("goodput_rps >= 3", "output_tokens_per_s >= 100 tokens/s"))
    pictures = drawn(data)
    for name, words in {"goodput-rps": "limit 3", "output-tokens-per-s": "limit 100"}.items():
        assert words in re.findall(r">([^<>]+)</text>", pictures[f"sweep-rate-sustained-{name}"].svg)


def test_a_sweep_by_users_has_its_fitted_curve() -> None:
    """Latencies, throughput with the curve through it, and goodput, over the users."""
    pictures = drawn(sweep_of_users(seconds=20.0))
    names = ["ttft", "tpot", "e2e", "output-tokens-per-s", "goodput-rps"]
    assert list(pictures) == [*(f"sweep-users-sustained-{name}" for name in names), "system"]
    shown = [name for name, plot in pictures.items() if ">fitted</text>" in plot.svg]
    assert shown == ["sweep-users-sustained-output-tokens-per-s"]


def test_one_load_is_no_sweep(full: ReportData) -> None:
    """Two loads of two kinds are points of the system, and joined by nothing."""
    assert list(drawn(full)) == ["system"]
    assert not any(lines(drawn(full)["system"], colour) for colour in COLOURS)


def test_many_configurations_are_all_drawn() -> None:
    """Beyond the colours, dashes tell them apart."""
    data = sweep_of(*(f"l{i}" for i in range(10)), seconds=10.0, rates=(4.0, 8.0))
    ttft = drawn(data)["sweep-rate-sustained-ttft"]
    assert len(tips(ttft)) == 20
    styles = set(re.findall(r'style="(fill:none;[^"]*stroke:#[0-9a-f]+;stroke-width:1.4)"', ttft.svg))
    assert len(styles) == 10


def test_marks_of_loads_keep_off_each_other() -> None:
    """Of loads that lie close together, the first has its mark."""
    scale = _abscissa([1.0, 1.05, 1.1, 2.0, 16.0, 16.5])
    assert list(scale.marks.values()) == ["1", "2", "16"]
    assert _abscissa([2.0, 4.0, 6.0]).remark == ""


def test_each_length_is_a_line_over_the_users_and_each_number_of_users_one_over_the_lengths() -> None:
    """Every picture has every load once."""
    trials = [
        FabricatedTrial(cell_entry(), of_length(number, prompt), noisy(number, 60, slower=prompt / 100))
        for number in (2, 4)
        for prompt in (100, 200, 400)
    ]
    data = report_data(derive(manifest([again(trials[0].cell, trials=[one.trial for one in trials])]), trials))
    pictures = drawn(data)
    names = ("ttft", "tpot", "e2e", "output-tokens-per-s")
    expected = [f"sweep-{over}-{name}" for over in ("users-sustained", "prompt") for name in names]
    assert list(pictures) == [*expected, "system"]
    for name in expected:
        assert len(tips(pictures[name])) == 6
    keys = {name: set(re.findall(r">([^<>]+)</text>", pictures[name].svg)) for name in expected}
    assert {"prompt 100", "prompt 200", "prompt 400"} <= keys["sweep-users-sustained-ttft"]
    assert {"2 users", "4 users"} <= keys["sweep-prompt-ttft"]
    assert "Knee" not in pictures["sweep-prompt-ttft"].reading


def of_length(number: int, prompt: int) -> TrialEntry:
    """A closed loop with prompts of this length."""
    known = {"id": f"{number}-{prompt}", "load": f"sustained-users-{number}-prompt-{prompt}", "index": number * prompt}
    return trial_entry(loop="closed", users=number, prompt_tokens=prompt, **known)
