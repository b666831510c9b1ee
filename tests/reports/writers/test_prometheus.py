"""The export for Prometheus: its grammar, its numbers, and how the file is replaced."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import reports
from reports.data import ReportData
from reports.writers import prometheus

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SAMPLE = re.compile(rf"({_NAME})\{{(.*)\}} (-?[0-9.]+(?:e[+-][0-9]+)?|NaN)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')


@dataclass(frozen=True)
class Family:
    """A gauge as it was read back. samples: by their labels, in order."""

    about: str
    samples: dict[tuple[tuple[str, str], ...], float]


def parsed(text: str) -> dict[str, Family]:
    """By the text format's own rules: HELP, TYPE, then that gauge's samples together, none of them twice."""
    assert text.endswith("\n")
    found: dict[str, Family] = {}
    name, typed = "", ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, about = line.split(" ", 3)
            assert name not in found
            found[name] = Family(about, {})
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {name} gauge"
            typed = name
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            assert sample[1] == name == typed
            labels = tuple((one[1], one[2]) for one in _LABEL.finditer(sample[2]))
            assert ",".join(f'{key}="{value}"' for key, value in labels) == sample[2]
            assert labels not in found[name].samples
            found[name].samples[labels] = float(sample[3])
    return found


def test_it_is_as_agreed(full: ReportData, golden: Callable[[str, str], None]) -> None:
    """Everything but most of the distributions and of their statistics."""
    lines = prometheus.render(full).splitlines(keepends=True)
    lines = [
        line for line in lines if "ttft_s" in line or not re.match(r"(# \w+ )?harness_[a-z0-9_]+_(seconds|ms)", line)
    ]
    short = [line for line in lines if line.startswith("#") or not re.search(r'"(p90|p99|max|mean|min)"', line)]
    golden("metrics.prom", re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.5g}", "".join(short)))


def test_every_row_is_there(full: ReportData) -> None:
    """In base units, without an end that is open; what its data is worth is a gauge of its own."""
    found = parsed(prometheus.render(full))
    rows = full.summary[full.summary["repetition"] == "pooled"]
    points = rows[(rows["metric"] == "ttft_ms") & rows["value"].notna()]
    family = found["harness_ttft_seconds"]
    assert "Unit: seconds. In the summary: ttft_ms." in family.about
    assert len(family.samples) == len(points) > 0
    assert sorted(family.samples.values()) == pytest.approx(sorted(points["value"] / 1000), rel=1e-8)
    for end in ("low", "high"):
        known = rows[(rows["metric"] == "ttft_ms") & rows[end].between(-1e300, 1e300)]
        assert len(found[f"harness_ttft_seconds_{end}"].samples) == len(known) < len(points)
    assert set(found["harness_trial_validity"].samples.values()) == {0.0, 1.0, 2.0}
    assert len(found["harness_limit_outcome"].samples) == len(full.verdicts)


def test_a_series_stays_where_its_number_is_unknown(full: ReportData) -> None:
    """As NaN: a series that comes and goes from night to night is one that nobody watches."""
    before = parsed(prometheus.render(full))
    summary = full.summary.copy()
    summary.loc[summary["metric"] == "ttft_ms", ["value", "low", "high"]] = float("nan")
    after = parsed(prometheus.render(replace(full, summary=summary)))
    assert set(before) - set(after) == {"harness_ttft_seconds_low", "harness_ttft_seconds_high"}
    for name, family in after.items():
        assert family.samples.keys() == before[name].samples.keys()
    assert all(value != value for value in after["harness_ttft_seconds"].samples.values())


def test_each_gauge_has_its_validity(sweep: ReportData) -> None:
    """Wrong token counts make no time to first token doubtful, and no number is left out."""
    found = parsed(prometheus.render(sweep))
    validity = {
        (dict(labels)["load"][-1], dict(labels)["metric"]): value
        for labels, value in found["harness_metric_validity"].samples.items()
    }
    assert {load: validity[load, "harness_ttft_seconds"] for load in "1248"} == {"1": 0, "2": 0, "4": 1, "8": 1}
    assert {load: validity[load, "harness_output_tokens_per_s"] for load in "1248"} == {"1": 2, "2": 0, "4": 0, "8": 0}
    assert {name for _, name in validity} <= set(found)
    assert len({dict(labels)["load"] for labels in found["harness_output_tokens_per_s"].samples}) == 4


def test_names_with_quotes_and_bars_stay_one_label(hostile: ReportData) -> None:
    """As the text format escapes them."""
    found = parsed(prometheus.render(hostile))
    for name in ("harness_run_exit_code", "harness_ttft_seconds"):
        assert {dict(one)["run"] for one in found[name].samples} == {'<script>document.title=\\"owned\\"</script>'}


def test_a_limit_that_stands_twice_is_one_gauge(full: ReportData) -> None:
    """Prometheus refuses a whole file for one sample that is there twice."""
    twice = replace(full, verdicts=[*full.verdicts, *full.verdicts])
    assert len(parsed(prometheus.render(twice))["harness_limit_outcome"].samples) == len(full.verdicts)


def test_the_file_is_replaced_as_a_whole(full: ReportData, tmp_path: Path) -> None:
    """Nothing else is left in the collector's folder; an unknown kind is refused by name."""
    file = tmp_path / "harness.prom"
    file.write_text("old")
    before = file.stat().st_ino
    reports.export(full, "prometheus", file)
    assert file.stat().st_ino != before
    assert [one.name for one in tmp_path.iterdir()] == ["harness.prom"]
    assert parsed(file.read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="known are prometheus"):
        reports.export(full, "graphite", file)


def test_another_program_reads_it(full: ReportData, hostile: ReportData) -> None:
    """Prometheus' own parser finds the same samples, where it is installed."""
    parser = pytest.importorskip("prometheus_client.parser")
    for data in (full, hostile):
        text = prometheus.render(data)
        theirs = {family.name: len(family.samples) for family in parser.text_string_to_metric_families(text)}
        assert theirs == {name: len(family.samples) for name, family in parsed(text).items()}
