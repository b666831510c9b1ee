"""The stored format: frozen, documented column by column, and read again by every later version."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import reports
from harness.cli import format_outputs, format_page
from harness.cli.commands.report import report_data
from harness.drivers.base import DriveReport
from harness.quality.divergence import Positions
from harness.records import FORMAT_VERSION, Column, Record, Sample, columns_of, record_schema, sample_schema
from harness.results import derive
from harness.run.entries import first_manifest
from harness.scenario.reader import load
from harness.schedule.matrix import expand
from harness.store.manifest import ClientEntry, Manifest, Part
from harness.store.run import Run
from reports.writers import summaries

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "run-format.md"
FROZEN = {1: "6591e7bc8ab11b05398377880448775a5651f10f1f58cc460661f22a3aa63314"}
NOT_FROZEN_YET = 2
"""The format that is being worked on: columns may still come, and no run of it is stored."""
CAME_WITH = {
    2: {"planned_cancel_ns", "held_ns", "accepting_ns", "resends", "retries", "finish_ns"}
    | {"attempt_sent_ns", "attempt_done_ns", "attempt_end"}
    | {"reported_prompt_ms", "reported_generation_ms"}
}
"""Columns of records, by the format that brought them."""
RUNS = ROOT / "tests" / "data" / "runs"
NEWEST = RUNS / f"v{max(FROZEN)}" / "quick"
STORED = sorted(file.parent for file in RUNS.glob("v*/*/manifest.json"))
DOCUMENT = format_outputs.DOCUMENT | {f"trials[].facts.{key}": one for key, one in format_outputs.FACTS.items()}
KEYS = ["model", "engine", "level", "variant", "load", "class", "repetition", "metric", "statistic"]
NUMBERS = ("value", "low", "high", "n", "n_eff")


def unknown_keys(part: Part, path: str = "") -> set[str]:
    """Keys of a part of a manifest, and below it, that the models do not know."""
    found = {f"{path}{name}" for name in part.model_extra or {}}
    for name in type(part).model_fields:
        value = getattr(part, name)
        for below in value if isinstance(value, list) else [value]:
            found |= unknown_keys(below, f"{path}{name}.") if isinstance(below, Part) else set()
    return found


def undocumented(document: object, texts: Mapping[str, Column], path: str = "") -> set[str]:
    """Keys of a document that no text describes."""
    if any(f"{path}{ending}" in texts for ending in ("", ".*", "[]", "[].*")):
        return set()
    if isinstance(document, dict):
        below = (undocumented(value, texts, f"{path}.{key}" if path else str(key)) for key, value in document.items())
        return set().union(*below)
    if isinstance(document, list):
        return set().union(*(undocumented(value, texts, f"{path}[]") for value in document))
    has_below = any(key.startswith((f"{path}.", f"{path}[]")) for key in texts)
    return {path} if document is not None or not has_below else set()


def test_the_page_is_up_to_date() -> None:
    """`python -m harness.cli.format_page` would change nothing."""
    assert PAGE.read_text(encoding="utf-8") == format_page.markdown()


def test_every_column_has_a_text_and_every_text_a_column() -> None:
    """Records, samples, summary (CSV and Parquet alike) and quality, in the order of the files."""
    records, samples = columns_of(Record), columns_of(Sample)
    assert list(records) == record_schema().names
    assert list(samples) == sample_schema().names
    assert list(format_outputs.SUMMARY) == summaries.schema().names == list(summaries.COLUMNS)
    assert set(format_outputs.QUALITY) == {"chunk", "position", "token", "top1_same", *Positions.__slots__}
    parts = [format_page.keys_of(part) for part in format_page.SECTIONS]
    every = (records, samples, format_outputs.SUMMARY, format_outputs.QUALITY, format_outputs.DECISION)
    for columns in (*every, *parts, format_outputs.DOCUMENT, format_outputs.FACTS):
        assert all(column.meaning.endswith(".") for column in columns.values())


def test_every_column_of_the_decision_has_a_text() -> None:
    """Its own columns by name, those of values by their pattern."""
    header = (ROOT / "tests/data/golden/decision.csv").read_text(encoding="utf-8").split("\n")[0].split(",")
    own = [name for name in header if name in format_outputs.DECISION]
    assert set(own) >= {"model", "engine", "level", "chosen", "beaten_by"}
    value = r"[a-z0-9_]+( low| high| bound)?"
    for name in set(header) - set(own):
        assert re.fullmatch(rf"{value}|[a-z_]+ (validity|{value})", name), name


def test_every_key_of_a_manifest_has_a_text(tmp_path: Path) -> None:
    """Of a run that is about to begin, and of what the client says of itself."""
    scenario = load(ROOT / "scenarios" / "quickstart.yaml")
    assert unknown_keys(first_manifest(scenario, expand(scenario), "harness")) == set()
    client = {one.name for one in fields(DriveReport)} - {"recounted"}
    assert client | {"equal_gap_share"} == set(ClientEntry.model_fields), "that one is read only"
    assert unknown_keys(Manifest.model_validate({"cells": [{"new": 1}]})) == {"cells.new"}


def test_every_key_of_a_manifest_is_on_the_page() -> None:
    """A key has a text, or is part of what has one; a part without a text of its own has keys with texts."""
    for part, keys in ((part, format_page.keys_of(part)) for part in format_page.SECTIONS):
        listed = {re.split(r"[.\[]", key)[0] for key in keys}
        own_table = {"sessions", "cells", "trials", "client"}
        assert set(part.model_fields) - listed <= own_table, part


@pytest.mark.parametrize("path", STORED, ids=lambda path: str(path.relative_to(RUNS)))
def test_a_stored_manifest_is_written_again_as_it_was(path: Path) -> None:
    """The same bytes, whatever version made it: no key comes, goes or changes; nor do keys of a later version."""
    content = (path / "manifest.json").read_bytes()
    assert Manifest.model_validate_json(content).text() == content
    later = json.loads(content)
    later["new"], later["cells"][0]["trials"][0]["newer"] = {"a": [1, None]}, 2.5
    assert json.loads(Manifest.model_validate(later).text()) == later


def test_no_key_of_a_manifest_goes() -> None:
    """What the stored run of this version has, and a run does not begin with, comes while it goes on: nothing else."""
    scenario = load(RUNS / "frozen.yaml")
    then = json.loads((NEWEST / "manifest.json").read_text(encoding="utf-8"))
    now = first_manifest(scenario, expand(scenario), "harness").stored()
    assert set(then) - set(now) == {"quality"}
    assert set(then["cells"][0]) - set(now["cells"][0]) == {"page_reader", "sampler", "unread"}
    later = {"begun_ns", "driver", "ended_ns", "others_on_gpus", "pages", "pinned_outputs", "prompt_length_source"}
    trials = (run["cells"][0]["trials"][0] for run in (then, now))
    assert set.difference(*map(set, trials)) == later | {"session", "start", "workers"}


@pytest.mark.parametrize("path", STORED, ids=lambda path: str(path.relative_to(RUNS)))
def test_every_key_of_the_json_has_a_text(path: Path) -> None:
    """Of the document, its trials and the facts about them."""
    run = Run.open(path)
    document = json.loads(summaries.as_json(report_data(derive(run.manifest, run.trials(), path))))
    assert undocumented(document, DOCUMENT) == set()


def test_the_format_is_frozen() -> None:
    """A column that came, went or changed its type raises FORMAT_VERSION: then the new fingerprint goes here, and a run
    of that version beside the older ones. One format may be not frozen yet: the one behind the last that was.
    """
    assert max(FROZEN) <= FORMAT_VERSION <= NOT_FROZEN_YET == max(FROZEN) + 1
    stored = {int(path.parent.name.removeprefix("v")) for path in STORED}
    assert stored == {0, *FROZEN}
    assert (format_page.fingerprint() in FROZEN.values()) is (FORMAT_VERSION in FROZEN)
    assert FROZEN.get(FORMAT_VERSION, format_page.fingerprint()) == format_page.fingerprint()


@pytest.mark.parametrize("path", STORED, ids=lambda path: str(path.relative_to(RUNS)))
def test_a_stored_run_gives_the_same_summary(path: Path, request: pytest.FixtureRequest) -> None:
    """Whatever version reads it; metrics that are new may be added. `--update-golden` stores what is found now."""
    run = Run.open(path)
    found = derive(run.manifest, run.trials(), path).summary.query("repetition == 'pooled'")[[*KEYS, "bound", *NUMBERS]]
    expected = path.with_suffix(".csv")
    if request.config.getoption("--update-golden"):
        found.to_csv(expected, index=False, float_format="%.9g", lineterminator="\n")
    stored = pd.read_csv(
        expected, keep_default_na=False, na_values=dict.fromkeys(NUMBERS, ""), dtype={"repetition": str}
    )
    both = stored.merge(found, on=KEYS, how="left", suffixes=("", "_now"), indicator=True)
    assert (both["_merge"] == "both").all(), both[both["_merge"] != "both"][KEYS]
    assert both["bound_now"].tolist() == both["bound"].tolist()
    for name in NUMBERS:
        assert both[f"{name}_now"].astype(float).to_numpy() == pytest.approx(both[name], rel=1e-6, nan_ok=True), name
    assert len(stored) > 100


@pytest.mark.parametrize("path", STORED, ids=lambda path: str(path.relative_to(RUNS)))
def test_a_stored_run_holds_what_the_page_says_and_nothing_of_its_machine(path: Path) -> None:
    """The columns of its version, no key without a text, no path of whoever made it; and it is small."""
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    assert unknown_keys(Manifest.model_validate(manifest)) == set()
    assert not re.search(r'"[^"]*/(root|home|tmp|work|Users)/', json.dumps(manifest))
    if manifest["format"] > 0:
        came_later = set().union(*(names for version, names in CAME_WITH.items() if version > manifest["format"]))
        columns = pa.schema([column for column in record_schema() if column.name not in came_later])
        for file in path.rglob("records.parquet"):
            assert pq.read_schema(file).equals(columns)
        for file in path.rglob("samples.parquet"):
            assert pq.read_schema(file).equals(sample_schema())
    assert sum(file.stat().st_size for file in path.rglob("*")) < 200_000


@pytest.mark.parametrize("path", STORED, ids=lambda path: str(path.relative_to(RUNS)))
def test_readings_are_under_names_that_the_page_lists(path: Path) -> None:
    """Every source and name in the samples stands in the table of them."""
    listed = {
        source: set(re.findall(r"`([a-z0-9_]+)`", names))
        for sources, names, _ in format_outputs.SAMPLE_NAMES
        for source in re.findall(r"`([a-z]+)\d*`", sources)
    }
    for file in path.rglob("samples.parquet"):
        seen = pd.read_parquet(file)[["source", "name"]].drop_duplicates()
        unlisted = [(s, n) for s, n in seen.itertuples(index=False) if n not in listed[s.rstrip("0123456789")]]
        assert unlisted == []


def test_a_run_of_format_0_is_read_with_what_it_lacks_unknown(tmp_path: Path) -> None:
    """Columns that came later are null; its numbers are those of the others."""
    shutil.copytree(NEWEST, tmp_path / "run")
    for name, gone in (("records", "retokenized_tokens"), ("samples", "width_ns")):
        for file in (tmp_path / "run").rglob(f"{name}.parquet"):
            pq.write_table(pq.read_table(file).drop_columns([gone]), file)
    file = tmp_path / "run" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | {"format": 0}), encoding="utf-8")
    old, new = Run.open(tmp_path / "run"), Run.open(NEWEST)
    assert old.trials()[0].records(["retokenized_tokens"])["retokenized_tokens"].isna().all()
    pd.testing.assert_frame_equal(
        derive(old.manifest, old.trials()).summary, derive(new.manifest, new.trials()).summary
    )


def test_a_few_lines_of_pandas_go_on_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both examples of the page, as they stand there."""
    shutil.copytree(NEWEST, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    reports.write(report_data(derive(run.manifest, run.trials())), tmp_path / "run", ["parquet"])
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [[line for line in block.splitlines() if line and not line.startswith("from")] for block in blocks]
    assert [len(block) for block in lines] == [3, 4]
    for block in blocks:
        exec(block, {"run": str(tmp_path / "run")})
    shown = capsys.readouterr().out
    assert "simulated" in shown
    assert "measure" in shown
