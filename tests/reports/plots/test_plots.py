"""Plots of a run: each has a name, a title, a sentence with numbers and a table, and stays small."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

import reports
from harness.cli.report import report_data
from harness.records import Record, Sample
from harness.results import derive
from reports import plots
from reports.data import ReportData
from reports.plots import marks
from reports.plots.drawing import Plot
from reports.plots.marks import COLOURS, MUTED
from tests.fabricated import FabricatedTrial, S, again, cell_entry, failed, noisy, streamed, trial_entry
from tests.reports.conftest import T0_NS, manifest

pytestmark = pytest.mark.slow

BURSTS = {"first_s": 10.0, "length_s": 4.0, "every_s": 30.0}


def records() -> list[Record]:
    """Two classes with prompts of many lengths, a warm-up, and some failures at the end."""
    rng = np.random.default_rng(5)
    made = []
    for i in range(600):
        if i > 580:
            made.append(failed(i, i * 100.0, "http_error", 50, error="HTTP 503", http_status=503))
            continue
        prompt = int(rng.lognormal(5, 0.8)) + 8
        phase = "warmup" if i < 80 else "measure"
        ttft = (40 + 0.3 * prompt) * rng.lognormal(0, 0.2)
        made.append(
            streamed(i, i * 100.0, ttft_ms=ttft, prompt_tokens=prompt, class_name="ab"[i % 2], phase=phase, tokens=20)
        )
    return made


def readings(gpus: int) -> list[Sample]:
    """The machine, once a second; its GPUs throttled for ten."""
    found = []
    for second in range(-1, 60):
        values: dict[tuple[str, str], float] = {
            ("engine", "rss_bytes"): 3e9,
            ("host", "memory_used_bytes"): 9e9,
            ("server0", "running_requests"): 3.0,
            ("server0", "waiting_requests"): float(second % 7),
        }
        for gpu in range(gpus):
            hot = 20 <= second < 30
            values |= {
                (f"gpu{gpu}", "power_w"): 600.0 - 200 * hot + gpu,
                (f"gpu{gpu}", "throttled"): float(hot),
                (f"gpu{gpu}", "memory_used_bytes"): 60e9,
                (f"gpu{gpu}", "memory_total_bytes"): 80e9,
            }
        found += [Sample(T0_NS + second * S, source, name, value) for (source, name), value in values.items()]
    return found


def trial(gpus: int = 1) -> FabricatedTrial:
    """A trial with something of everything."""
    entry = trial_entry(
        start_s=8.0, kind="burst", bursts=BURSTS, slo={"ttft_ms": 150.0, "tpot_ms": None, "e2e_ms": None}
    )
    return FabricatedTrial(cell_entry(), entry, records(), readings(gpus))


def data_of(*trials: FabricatedTrial) -> ReportData:
    """A run of one cell with these trials."""
    return report_data(derive(manifest([again(trials[0].cell, trials=[one.trial for one in trials])]), trials))


@pytest.fixture(scope="module")
def drawn() -> dict[str, Plot]:
    """The plots of that trial, by the end of their names."""
    data = data_of(trial())
    return {
        plot.name.rpartition("-")[2]: plot for plot in plots.of_trial(data, "000-tiny-simulated-f16", "000-sustained")
    }


def words(plot: Plot) -> list[str]:
    """The texts of a picture."""
    return [element.text or "" for element in ET.fromstring(plot.svg).iter() if element.tag.endswith("text")]


def test_every_plot_says_what_it_shows(drawn: dict[str, Plot], full: ReportData) -> None:
    """A title, a sentence with numbers, a table of at most forty rows as wide as its head, and a size."""
    assert set(drawn) == {"distribution", "classes", "time", "machine", "length"}
    for plot in [*drawn.values(), *plots.overview(full)]:
        assert plot.title
        assert re.search(r"\d.*\.$", plot.alt)
        assert plot.table is not None
        assert 0 < len(plot.table.rows) <= 40
        assert {len(row) for row in plot.table.rows} == {len(plot.table.head)}
        assert re.match(r'<svg xmlns="\S+" (xmlns:xlink="\S+" )?width="560" height="\d+(\.\d)?" viewBox=', plot.svg)
        assert plot.inline().startswith('<svg role="img" aria-label="')
        assert "currentColor" in plot.inline()


def test_the_distribution_states_what_the_results_state(drawn: dict[str, Plot]) -> None:
    """Quantiles with their intervals; what has too few requests for one says so; no sentence names such a quantile."""
    plot = drawn["distribution"]
    assert plot.table is not None
    rows = {row[0].text: row[1:] for row in plot.table.rows}
    assert plot.table.head == ("quantile", "TTFT, ms", "TPOT, ms", "end to end, ms", "between chunks, ms")
    assert " to " in rows["p95"][0].detail
    assert rows["p99.9"][0].text == ""
    assert f"p95 {rows['p95'][0].text} ms" in plot.alt or f"p99 {rows['p99'][0].text} ms" in plot.alt
    assert "p50" in words(plot)


def test_few_requests_are_listed_by_length() -> None:
    """Too few for medians: the table has each, and the plot no line."""
    few = [streamed(i, i * 100.0, prompt_tokens=20 + i) for i in range(15)]
    data = data_of(FabricatedTrial(cell_entry(), trial_entry(end_s=2.0), few))
    length = next(
        plot for plot in plots.of_trial(data, "000-tiny-simulated-f16", "000-sustained") if "length" in plot.name
    )
    assert length.table is not None
    assert len(length.table.rows) == 30
    assert "latency, ms" in words(length)


def test_time_is_divided_and_bursts_are_marked(drawn: dict[str, Plot]) -> None:
    """The same in each pair of axes, and said below; the limit on TTFT is a line, the queue of the server is there."""
    for name in ("time", "machine"):
        plot = drawn[name]
        assert "grey: warm-up" in words(plot)[-1]
        assert "orange: burst" in words(plot)[-1]
    panels = drawn["time"].svg.count("TTFT, ms") + len(
        re.findall("requests/s|requests at a time|TPOT, ms|tokens/s", drawn["time"].svg)
    )
    assert panels == 5
    assert drawn["time"].svg.count(f"fill:{COLOURS[1]};opacity:0.16") == 2 * panels
    assert {"limit 150 ms", "server: waiting", "failed", "median"} <= set(words(drawn["time"]))
    assert "2 bursts" in drawn["time"].alt


def test_the_numbers_over_time_are_those_drawn(drawn: dict[str, Plot]) -> None:
    """Rates, part by part of the time, without a gap."""
    table = drawn["time"].table
    assert table is not None
    assert table.head[:4] == ("from, s", "until, s", "scheduled, requests/s", "completed, requests/s")
    assert "output tokens/s" in table.head
    assert [row[0].text for row in table.rows[1:]] == [row[1].text for row in table.rows[:-1]]
    assert "failed, requests/s" in table.head


def test_throttling_is_seen_and_said(drawn: dict[str, Plot]) -> None:
    """In words with its length, and in the note below."""
    assert "throttled for 10\u202fs" in drawn["machine"].alt
    assert "red: GPU throttled" in words(drawn["machine"])[-1]
    assert "power of a GPU at most 600 W" in drawn["machine"].alt


def test_the_greatest_reading_is_stated_though_means_are_drawn() -> None:
    """Of six hundred readings a line shows means; the sentence and the table tell the extremes."""
    readings = [
        Sample(T0_NS + i * S // 10, "gpu0", "power_w", 700.0 if i == 301 else 90.0 if i == 311 else 300.0)
        for i in range(600)
    ]
    data = data_of(FabricatedTrial(cell_entry(), trial_entry(), noisy(1), readings))
    plot = plots.of_trial(data, "000-tiny-simulated-f16", "000-sustained")[-1]
    assert "power of a GPU at most 700" in plot.alt
    assert plot.table is not None
    (row,) = plot.table.rows
    assert [cell.value for cell in row[1:]] == pytest.approx([300, 90, 300.3, 700, 300], rel=1e-3)


def test_many_gpus_are_one_line_and_their_range() -> None:
    """Eight lines tell nothing; the table has each."""
    data = data_of(trial(8))
    machine = next(
        plot for plot in plots.of_trial(data, "000-tiny-simulated-f16", "000-sustained") if "machine" in plot.name
    )
    assert "mean of 8 GPUs and their range" in words(machine)
    assert machine.table is not None
    assert "gpu7 power_w" in [row[0].text for row in machine.table.rows]
    assert "throttled for 10\u202fs" in machine.alt  # all at the same time


def test_the_frontier_joins_the_loads_of_a_cell() -> None:
    """From the least to the most load; a trial with too few requests for a p95 is counted, not drawn."""
    rates = (5.0, 20.0, 10.0)
    trials = [
        FabricatedTrial(
            cell_entry(),
            trial_entry(id=f"{i}", index=i, load=f"rate-{rate:g}", end_s=60.0),
            noisy(i, int(60 * rate), every_ms=1000 / rate, slower=1 + rate / 20),
        )
        for i, rate in enumerate(rates)
    ]
    few = FabricatedTrial(cell_entry(), trial_entry(id="9", index=9, load="few", end_s=4.0), noisy(9, 40))
    plot = plots.overview(data_of(*trials, few))[0]
    assert plot.name == "frontier"
    assert plot.table is not None
    assert {row[1].text for row in plot.table.rows} == {"rate-5", "rate-10", "rate-20"}
    assert "1 more had too few requests for a p95" in plot.alt
    path = re.findall(r'<path d="(M[^M"]*)" style="fill:none;stroke:#2d78b4;stroke-width:1.4', plot.svg)[0]
    across = [float(spot.split()[0]) for spot in re.split("[ML]", path)[1:]]
    assert len(across) == 3
    assert across == sorted(across)  # more load, more tokens


def test_near_loads_are_drawn_apart() -> None:
    """An axis begins near points that all lie far from 0, and its name says so; intervals stay inside."""
    trials = [
        FabricatedTrial(cell_entry(), trial_entry(id=f"{i}", index=i, load=f"load-{i}"), noisy(i, slower=1 + i / 50))
        for i in range(2)
    ]
    plot = plots.overview(data_of(*trials))[0]
    assert "output tokens/s (more is better; begins above 0)" in words(plot)
    assert "TTFT p95, ms (less is better; begins above 0)" in words(plot)
    spots = [
        spot.split()
        for path in re.findall(r'<path d="M([^"]*)" style="[^"]*;stroke-width:1', plot.svg)
        for spot in re.split("[ML]", path)
    ]
    assert all(0 <= float(x) <= 560 for x, *_ in spots)


def test_names_of_loads_lie_beside_lines_and_points() -> None:
    """A name takes the first place that covers nothing, and covers a line only where there is no such place."""
    axes = Figure((5, 5), dpi=72).add_axes((0, 0, 1, 1), xlim=(0, 360), ylim=(0, 360))
    labels = marks.Labels(axes, [100, 130], [100, 105], [((130, 105), (300, 120))])
    labels.put(100, 100, "load")
    labels.put(130, 105, "other")
    assert [text.get_position() for text in axes.texts] == [(8, -14), (8, -14)]


def test_more_cells_and_classes_than_colours_are_counted() -> None:
    """The picture says that it shows the first ones only; its table and its sentence are of all cells."""
    trials = [
        FabricatedTrial(cell_entry(id=f"{i:03}", level=f"l{i:02}"), trial_entry(), noisy(i, slower=1 + i / 20))
        for i in range(len(COLOURS) + 3)
    ]
    run = manifest([again(one.cell, trials=[one.trial]) for one in trials])
    plot = plots.overview(report_data(derive(run, trials)))[0]
    assert "first 8 of 11 configurations" in plot.title
    assert plot.alt.startswith("Throughput against TTFT p95 of 11 loads")
    assert "first 8 of 11 configurations" in plot.alt
    assert plot.table is not None
    assert len(plot.table.rows) == 11
    mixed = [streamed(i, i * 100.0, class_name=f"c{i % 11:02}") for i in range(550)]
    own = data_of(FabricatedTrial(cell_entry(), trial_entry(), mixed))
    classes = next(
        one for one in plots.of_trial(own, "000-tiny-simulated-f16", "000-sustained") if "classes" in one.name
    )
    assert "8 of 11 classes" in classes.title


def test_files_of_many_trials_are_drawn_when_asked_for(
    full: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default so many trials have theirs as on the page, later ones only where plots are asked for."""
    monkeypatch.setattr(plots, "MOST_TRIALS", 1)
    names = {
        name: {file.name for file in reports.write(full, tmp_path / name, formats) if file.suffix == ".svg"}
        for name, formats in (("default", None), ("asked", ("plots",)))
    }
    assert any("000-sustained" in name for name in names["default"])
    assert not any("001-" in name for name in names["default"])
    assert names["default"] < names["asked"]
    assert any("001-single" in name for name in names["asked"])
    assert "frontier.svg" in names["default"]


def test_twenty_trials_make_less_than_two_megabytes() -> None:
    """With everything a trial can show; the page has room for its tables."""
    one = data_of(trial(4))
    size = sum(len(plot.inline()) for plot in plots.of_trial(one, "000-tiny-simulated-f16", "000-sustained"))
    assert 20 * size < 2e6


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", ["#ffffff", "#14171b"])
def test_lines_stand_out_on_both_papers(paper: str) -> None:
    """At least 3:1, as graphics need."""

    def contrast(one: str, other: str) -> float:
        first, second = sorted((luminance(one), luminance(other)))
        return (second + 0.05) / (first + 0.05)

    shown: Sequence[str] = (*COLOURS, MUTED)
    assert min(contrast(colour, paper) for colour in shown) >= 3
