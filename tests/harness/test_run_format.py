"""The stored format: frozen, documented column by column, and read again by every later version."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from harness import format_columns, format_manifest, run_format
from harness.divergence import Positions
from harness.drivers.base import DriveReport
from harness.entries import first_manifest
from harness.matrix import expand
from harness.records import FORMAT_VERSION, record_schema, sample_schema
from harness.scenario import load
from reports import summaries, summary_parquet

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "run-format.md"
FROZEN: dict[int, str] = {}
RUNS = ROOT / "tests" / "data" / "runs"


def test_the_page_is_up_to_date() -> None:
    """`python -m harness.run_format` would change nothing."""
    assert PAGE.read_text(encoding="utf-8") == run_format.markdown()


def test_every_column_has_a_text_and_every_text_a_column() -> None:
    """Records, samples, summary (CSV and Parquet alike) and quality, in the order of the files."""
    assert list(format_columns.RECORDS) == record_schema().names
    assert list(format_columns.SAMPLES) == sample_schema().names
    assert list(format_columns.SUMMARY) == summary_parquet.schema().names == list(summaries.COLUMNS)
    assert set(format_columns.QUALITY) == {"chunk", "position", "token", "top1_same", *Positions.__slots__}
    every = (format_columns.RECORDS, format_columns.SAMPLES, format_columns.SUMMARY, format_columns.QUALITY)
    for columns in (*every, format_columns.DECISION, format_manifest.EVERY):
        assert all(column.meaning.endswith(".") for column in columns.values())


def test_every_column_of_the_decision_has_a_text() -> None:
    """Its own columns by name, those of values by their pattern."""
    header = (ROOT / "tests/data/golden/decision.csv").read_text(encoding="utf-8").split("\n")[0].split(",")
    own = [name for name in header if name in format_columns.DECISION]
    assert set(own) >= {"model", "engine", "level", "chosen", "beaten_by"}
    value = r"[a-z0-9_]+( low| high| bound)?"
    for name in set(header) - set(own):
        assert re.fullmatch(rf"{value}|[a-z_]+ (validity|{value})", name), name


def test_every_key_of_a_manifest_has_a_text(tmp_path: Path) -> None:
    """Of a run that is about to begin, and of what the client says of itself."""
    scenario = load(ROOT / "scenarios" / "quickstart.yaml")
    assert format_manifest.undocumented({"format": 0} | first_manifest(scenario, expand(scenario), "harness")) == set()
    client = {one.name: [] if one.name in ("notes", "workers", "recounted") else 1 for one in fields(DriveReport)}
    assert format_manifest.undocumented({"cells": [{"trials": [{"client": client}]}]}) == set()
    assert format_manifest.undocumented({"cells": [{"new": 1}]}) == {"cells[].new"}


def test_the_format_is_frozen() -> None:
    """A column that came, went or changed its type raises FORMAT_VERSION: then add the new fingerprint here."""
    assert FROZEN[FORMAT_VERSION] == run_format.fingerprint()
