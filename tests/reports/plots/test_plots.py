"""Plots of a run: each has a name, a title, a sentence with numbers and a table, and stays small."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

import reports
from harness.cli.commands.report import report_data
from harness.records import Record, Sample
from harness.results import derive
from reports import plots
from reports.data import ReportData
from reports.plots.drawing import Plot
from reports.plots.marks import COLOURS, MUTED, Floats
from tests.choices import MIB, Choice, results_of
from tests.fabricated import FabricatedTrial, S, again, cell_entry, failed, noisy, streamed, trial_entry
from tests.reports.conftest import T0_NS, manifest
from tests.reports.plots.paths import corners

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
    several = [*plots.of_loads(full), *plots.of_distributions(full), *plots.of_decisions(full).get("tiny", [])]
    assert several
    for plot in [*drawn.values(), *several]:
        assert plot.title
        assert plot.reading.endswith(".")
        assert re.search(r"\d.*\.$", plot.alt)
        assert plot.table is not None
        assert 0 < len(plot.table.rows) <= 40
        assert {len(row) for row in plot.table.rows} == {len(plot.table.head)}
        assert re.match(r'<svg xmlns="\S+" (xmlns:xlink="\S+" )?width="400" height="\d+(\.\d)?" viewBox=', plot.svg)
        assert plot.inline().startswith('<svg role="img" aria-label="')
        assert 'fill="currentColor"' in plot.inline()


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
    assert "lines are medians" not in length.reading


def test_time_is_divided_and_bursts_are_marked(drawn: dict[str, Plot]) -> None:
    """The same in each pair of axes, and said below; the limit on TTFT is a line, the queue of the server is there."""
    for name in ("time", "machine"):
        plot = drawn[name]
        assert "grey: warm-up" in " ".join(words(plot)[-2:])
        assert "yellow: burst" in " ".join(words(plot)[-2:])
    panels = drawn["time"].svg.count("TTFT, ms") + len(
        re.findall("requests/s|requests at a time|TPOT, ms|tokens/s", drawn["time"].svg)
    )
    assert panels == 5
    assert drawn["time"].svg.count(f"fill:{COLOURS[2]};opacity:0.16") == 2 * panels
    assert {"SLO 150 ms", "server: waiting", "failed", "median"} <= set(words(drawn["time"]))
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
    assert "red: GPU throttled" in " ".join(words(drawn["machine"])[-2:])
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


def test_each_class_has_its_own_slo_in_the_picture() -> None:
    """A mixed trial shows the limits that its requests are judged by, each with the class's name."""
    own = {"chat": {"ttft_ms": 60.0, "tpot_ms": None}}
    entry = trial_entry(slo={"ttft_ms": 100.0, "tpot_ms": 20.0}, class_slo=own)
    mixed = [streamed(i, i * 100.0, class_name=("chat", "batch")[i % 2]) for i in range(300)]
    data = data_of(FabricatedTrial(cell_entry(), entry, mixed))
    (time,) = (one for one in plots.of_trial(data, "000-tiny-simulated-f16", "000-sustained") if "time" in one.name)
    assert {"SLO chat 60 ms", "SLO batch 100 ms", "SLO batch, chat 20 ms"} <= set(words(time))


def test_readings_of_the_server_are_steps() -> None:
    """What was read once a second holds until the next reading, and is no slope between two."""
    data = data_of(trial())
    (time,) = (one for one in plots.of_trial(data, "000-tiny-simulated-f16", "000-sustained") if "time" in one.name)
    waiting = max(re.findall(rf'd="(M[^"]*)" style="[^"]*stroke:{COLOURS[2]};stroke-width:1.8', time.svg), key=len)
    assert len(corners(waiting)) > 60
    assert "L" not in waiting


def test_a_load_is_drawn_with_all_its_configurations() -> None:
    """Repetitions are one curve; a configuration keeps its colour from load to load; axes are the same."""
    trials = [
        FabricatedTrial(
            cell_entry(id=f"{number}", level=level, repetition=repetition),
            trial_entry(id=load, load=load),
            noisy(number, 200, slower=slower * (2 if load == "hard" else 1)),
        )
        for repetition in (1, 2)
        for number, (level, slower) in enumerate((("f16", 1.5), ("q8", 1.0), ("q4", 0.5)), 10 * repetition)
        for load in ("easy", "hard")
    ]
    cells = {one.cell.id: [each.trial for each in trials if each.cell.id == one.cell.id] for one in trials}
    firsts = {one.cell.id: one.cell for one in trials}
    run = manifest([again(firsts[name], trials=own) for name, own in cells.items()])
    drawn = {plot.name: plot for plot in plots.of_distributions(report_data(derive(run, trials)))}
    assert set(drawn) == {f"load-{load}-{metric}" for load in ("easy", "hard") for metric in ("ttft", "e2e")}
    easy, hard = drawn["load-easy-ttft"], drawn["load-hard-ttft"]
    assert easy.table is not None
    assert easy.table.head == ("quantile", "f16, ms", "q8, ms", "q4, ms")
    assert [cell.text for cell in easy.table.rows[-1]] == ["observations", "400", "400", "400"]
    for plot in (easy, hard):
        assert all(plot.svg.count(f"stroke:{colour};stroke-width:1.8") for colour in COLOURS[:3])
    assert [one for one in words(easy) if one.isdigit()] == [one for one in words(hard) if one.isdigit()]


def test_the_steps_of_a_choice_are_the_best_speed_for_the_memory() -> None:
    """They go up and to the right only; the axis of memory says where it begins, if not at 0."""
    rows = [Choice("f32", 1.5, 120 * MIB), Choice("q8", 1.0, 110 * MIB), Choice("q4", 2.0, 105 * MIB)]
    (plot,) = plots.of_decisions(report_data(results_of(rows)))["tiny"]
    assert any(word.startswith("memory needed, MiB (axis begins at 10") for word in words(plot))
    (path,) = re.findall(r'd="(M[^"]*)" style="fill:none;stroke:currentColor;stroke-width:1.2"', plot.svg)
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairwise(corners(path)))  # up is less in an SVG
    assert "L" not in path


def test_more_classes_than_colours_are_counted() -> None:
    """The picture says that it shows the first ones only."""
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
    assert "system.svg" in names["default"]


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


CONFUSED = {
    "": np.eye(3),
    "protan": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "deutan": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "tritan": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}
"""Machado, Oliveira, Fernandes 2009: linear RGB as the colour-blind see it."""


def seen(colour: str, kind: str) -> Floats:
    """CIELAB of a colour."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(CONFUSED[kind] @ linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", CONFUSED)
def test_colours_can_be_told_apart(kind: str) -> None:
    """Any two of them, also by the colour-blind: a distance of 20 in CIELAB is seen at a glance."""
    distances = [np.linalg.norm(seen(one, kind) - seen(other, kind)) for one, other in combinations(COLOURS, 2)]
    assert min(distances) >= 20


@pytest.mark.parametrize("paper", ["#ffffff", "#14171b"])
def test_lines_stand_out_on_both_papers(paper: str) -> None:
    """At least 3:1, as graphics need."""

    def contrast(one: str, other: str) -> float:
        first, second = sorted((luminance(one), luminance(other)))
        return (second + 0.05) / (first + 0.05)

    shown: Sequence[str] = (*COLOURS, MUTED)
    assert min(contrast(colour, paper) for colour in shown) >= 3
