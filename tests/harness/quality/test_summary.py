"""Figures of quality in the results of a run: rows of the summary, and limits judged once a cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.errors import ExitCode
from harness.quality.summary import is_about_quality, quality_limits
from harness.results import Results, derive
from harness.run.events import Events
from harness.run.supervisor import StopRequest
from harness.scenario.limits import parse_limit
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from harness.store.run import RunWriter
from harness.telemetry.sampler import Sampler
from tests.fabricated import NO_PAGES, again

LIMITS = ("kl_mean <= 0.01", "top1_agreement >= 0.95")


def store(folder: Path, cell: str, kl: float) -> None:
    """Positions of 4 chunks with this mean divergence; one in 50 differs."""
    n = 200
    spread = np.random.default_rng(0).normal(1.0, 0.1, n)
    columns = {
        "chunk": np.repeat(np.arange(4, dtype=np.int32), 50),
        "nll_reference": np.ones(n),
        "nll": np.ones(n),
        "kl": kl * spread / spread.mean(),
        "kl_lower_bound": np.full(n, np.nan),
        "top1_same": np.arange(n) % 50 != 0,
    }
    (folder / "cells" / cell).mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "cells" / cell / "quality.parquet")


def cell(level: str, quality: dict[str, Any] | None, **changed: Any) -> CellEntry:
    """A cell without loads."""
    names = {"model": "m", "engine": "e", "level": level, "variant": None, "repetition": 1}
    entry = {"id": level, **names, "status": "complete", "reason": None, "trials": [], "quality": quality}
    return CellEntry.model_validate(entry | changed)


def derived(folder: Path, cells: list[CellEntry], limits: tuple[str, ...] = LIMITS, decide: str = "all") -> Results:
    """The results of a run of these cells."""
    scenario = {"limits": list(limits), "decide": decide, "quality": {}}
    return derive(Manifest(status="complete", cells=cells, scenario=scenario, name="t"), [], folder)


def scored(level: str, **changed: Any) -> dict[str, Any]:
    """What is told of a cell that was scored."""
    told = {"status": "complete", "reason": None, "positions": 200, "chunks": 4, "k": None}
    return told | {"path": f"cells/{level}/quality.parquet"} | changed


def test_a_limit_is_judged_once_a_cell(tmp_path: Path) -> None:
    """By the cell's own figure; one that breaks it makes the exit code, and `decide: any` needs only one that holds."""
    store(tmp_path, "q8", 0.001)
    store(tmp_path, "q4", 0.02)
    cells = [cell("q8", scored("q8")), cell("q4", scored("q4"))]
    found = derived(tmp_path, cells)
    assert [one.outcome.value for one in found.verdicts] == ["pass", "pass", "fail", "pass"]
    assert {one.keys[-1] for one in found.verdicts} == {"quality"}
    assert found.exit_code is ExitCode.LIMIT_BROKEN
    assert derived(tmp_path, cells, decide="any").exit_code is ExitCode.HOLDS
    row = found.summary[(found.summary["metric"] == "kl_mean") & (found.summary["repetition"] == "pooled")].iloc[0]
    assert (row["value"], row["n"], row["n_eff"], row["source"]) == (pytest.approx(0.001), 200, 4, "full vocabulary")


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (cell("q8", None), "the scenario asks for none"),
        (cell("q8", {"status": "skipped", "reason": "e does not tell", "path": None}), "e does not tell"),
        (cell("q8", None, status="failed", reason="no such file"), "no such file"),
    ],
)
def test_what_has_no_figure_cannot_be_told(tmp_path: Path, entry: CellEntry, sentence: str) -> None:
    """The verdict repeats the reason."""
    found = derived(tmp_path, [entry])
    assert {one.outcome.value for one in found.verdicts} == {"cannot_tell"}
    assert sentence in found.verdicts[0].sentence


def test_a_lower_bound_decides_nothing_about_the_divergence(tmp_path: Path) -> None:
    """A limit on kl_mean says which figure there is in its place."""
    store(tmp_path, "q8", 0.001)
    table = pq.read_table(tmp_path / "cells" / "q8" / "quality.parquet").to_pandas()
    table["kl_lower_bound"], table["kl"] = table["kl"], np.nan
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "cells" / "q8" / "quality.parquet")
    found = derived(tmp_path, [cell("q8", scored("q8", k=20))], ("kl_mean <= 0.01", "kl_bound <= 0.01"))
    assert [one.outcome.value for one in found.verdicts] == ["cannot_tell", "pass"]
    assert "only a lower bound can be told" in found.verdicts[0].sentence


def test_a_lower_bound_breaks_a_limit_that_it_exceeds(tmp_path: Path) -> None:
    """The divergence is above it, whatever it is."""
    store(tmp_path, "q8", 0.02)
    table = pq.read_table(tmp_path / "cells" / "q8" / "quality.parquet").to_pandas()
    table["kl_lower_bound"], table["kl"] = table["kl"], np.nan
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "cells" / "q8" / "quality.parquet")
    (verdict,) = derived(tmp_path, [cell("q8", scored("q8", k=20))], ("kl_mean <= 0.01",)).verdicts
    assert verdict.outcome.value == "fail"
    assert "known only as at least 0.01" in verdict.sentence


def test_a_figure_without_an_interval_is_judged_by_its_value(tmp_path: Path) -> None:
    """Four chunks say too little of a quantile to be sure, on either side of the limit; the largest is a fact."""
    store(tmp_path, "q8", 0.001)
    limits = ("kl_p99 <= 0.1", "kl_p99 <= 0.0001", "kl_max <= 0.1")
    found = derived(tmp_path, [cell("q8", scored("q8"))], limits).verdicts
    judged = [(one.outcome.value, one.certainty) for one in found]
    assert judged == [("pass", "likely"), ("fail", "likely"), ("pass", "")]
    assert "likely; too few observations for an interval" in found[0].sentence


def test_perplexity_of_runs_before_all_tokens_were_asked_for(tmp_path: Path) -> None:
    """Stored positions without the true token's probability make the perplexity a lower bound, and no ratio."""
    store(tmp_path, "q8", 0.001)
    table = pq.read_table(tmp_path / "cells" / "q8" / "quality.parquet").to_pandas()
    table.loc[::20, "nll"] = np.nan
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "cells" / "q8" / "quality.parquet")
    found = derived(tmp_path, [cell("q8", scored("q8", k=512))], ("ppl_ratio <= 2", "ppl <= 2", "ppl <= 10"))
    assert [one.outcome.value for one in found.verdicts] == ["cannot_tell", "fail", "cannot_tell"]
    assert "the true token is not among the likeliest" in found.verdicts[0].sentence
    row = found.summary[(found.summary["metric"] == "ppl") & (found.summary["repetition"] == "pooled")].iloc[0]
    assert row["bound"] == "lower"
    assert np.e < row["low"] <= np.exp((190 + 10 * np.log(513)) / 200)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.unlink(), "quality.parquet is missing"),
        (lambda file: file.write_bytes(b""), "Parquet file size is 0 bytes"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "Parquet magic bytes not found"),
        (lambda file: file.write_text("chunk,kl"), "Parquet"),
        (lambda file: pq.write_table(pa.table({"a": [1]}), file), "it has no column chunk"),
        (lambda file: keep(file, lambda t: t.drop_columns(["nll"])), "it has no column nll"),
        (lambda file: keep(file, lambda t: t.slice(0, 150)), "150 positions in 3 chunks, and there were 200 positions"),
        (lambda file: keep(file, lambda t: pa.concat_tables([t, t])), "it has 400 positions in 4 chunks"),
        (lambda file: keep(file, lambda t: changed(t, "kl", ["x"] * 200)), "kl has the type string and not double"),
        (lambda file: keep(file, lambda t: changed(t, "top1_same", [None, *[True] * 199])), "rows without a value"),
    ],
)
def test_a_damaged_table_costs_its_own_figures_alone(
    tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    """Its cell says which file it is and why, the other has its figures, and the limits that hang on it are open."""
    for level, kl in (("q8", 0.001), ("q4", 0.002)):
        store(tmp_path, level, kl)
    damage(tmp_path / "cells" / "q8" / "quality.parquet")
    found = derived(tmp_path, [cell("q8", scored("q8")), cell("q4", scored("q4"))])
    assert [one.outcome.value for one in found.verdicts] == ["cannot_tell", "cannot_tell", "pass", "pass"]
    assert {*found.summary["level"]} == {"q4"}
    said = found.manifest.cells[0].quality
    assert said is not None
    assert (said.status, words in str(said.reason)) == ("failed", True), said.reason
    (note,) = found.manifest.notes
    assert "cells/q8/quality.parquet " in note
    assert note.endswith("; the figures of quality of its configuration are missing")


def keep(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Store a table of which something was changed."""
    pq.write_table(change(pq.read_table(file)), file)


def changed(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    """A table with another column."""
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def test_limits_of_loads_count_once() -> None:
    """Those of the scenario stand in each of its trials, too."""
    trial = TrialEntry(limits=["ttft_ms p50 <= 1", "kl_mean <= 0.01", "ppl_ratio <= 1.1"])
    manifest = Manifest(scenario={"limits": ["kl_mean <= 0.01", "error_rate <= 1"]})
    assert quality_limits(manifest, CellEntry(trials=[trial, trial])) == ("kl_mean <= 0.01", "ppl_ratio <= 1.1")
    assert not is_about_quality("error_rate <= 1")
    assert parse_limit("top1_agreement >= 95%").value == 0.95


def test_figures_stay_where_they_are_when_loads_are_measured_again(tmp_path: Path) -> None:
    """A resumed cell has another folder; what was scored before is still found in the first one."""
    store(tmp_path, "q8", 0.001)
    writer = RunWriter(tmp_path / "run", Manifest(cells=[cell("q8", None, path="cells/q8")]))
    (entry,) = writer.manifest.cells
    sampler = Sampler(lambda _: None, client_pid=None, scope="client")
    events = Events(writer, entry, (sampler, NO_PAGES), StopRequest(), lambda *_: None)
    events.receive({"event": "quality", "quality": scored("q8", path="quality.parquet")})
    resumed = again(entry, path="cells/q8/attempt-2")
    assert [one.outcome.value for one in derived(tmp_path, [resumed]).verdicts] == ["pass", "pass"]
