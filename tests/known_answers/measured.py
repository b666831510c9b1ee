"""What a run measured, through its documented files alone: the summary, the manifest, records and samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd


@dataclass
class Measured:
    """A run's folder; log: what the server or the engine wrote down itself, where it did."""

    folder: Path
    log: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The summary's rows, all repetitions together."""
        rows = pd.read_csv(self.folder / "summary.csv", keep_default_na=True)
        return rows[(rows["repetition"] == "pooled") & (rows["class"] == "all")]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest."""
        found: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return found

    def row(self, metric: str, statistic: str, load: str, cell: str) -> pd.Series[Any]:
        """The row of the summary for a statistic; `cell`: a variant or a level, "" where there is one cell."""
        rows = self.summary
        rows = rows[(rows["metric"] == metric) & (rows["statistic"] == statistic) & (rows["load"] == load)]
        if cell:
            rows = rows[(rows["variant"] == cell) | (rows["level"] == cell)]
        assert len(rows) == 1, f"{len(rows)} rows of {metric} {statistic} under {load}: {self.missing(load, cell)}"
        return rows.iloc[0]

    def value(self, metric: str, load: str, cell: str = "", statistic: str = "value") -> float:
        """A value of the summary."""
        return float(self.row(metric, statistic, load, cell)["value"])

    def cell(self, name: str = "") -> dict[str, Any]:
        """A cell of the manifest, by its variant or level."""
        (found,) = (one for one in self.manifest["cells"] if not name or name in (one["variant"], one["level"]))
        return dict(found)

    def trial(self, load: str, cell: str = "") -> dict[str, Any]:
        """A trial of the manifest."""
        (found,) = (one for one in self.cell(cell)["trials"] if one["load"] == load)
        return dict(found)

    def facts(self, load: str, cell: str = "") -> Mapping[str, Any]:
        """The facts about a trial."""
        told = json.loads((self.folder / "summary.json").read_text())
        wanted = self.cell(cell)["id"], self.trial(load, cell)["id"]
        (found,) = (one for one in told["trials"] if (one["cell"], one["trial"]) == wanted)
        facts: Mapping[str, Any] = found["facts"]
        return facts

    def missing(self, load: str, cell: str = "") -> Any:
        """Why metrics of a trial have no value."""
        return "no trial" if load == "quality" else self.facts(load, cell)["missing"]

    def records(self, load: str, cell: str = "") -> pd.DataFrame:
        """The records of a trial, in the order of the plan."""
        rows = pd.read_parquet(self.folder / self.trial(load, cell)["path"] / "records.parquet")
        return rows.sort_values("request").reset_index(drop=True)

    def samples(self, cell: str = "") -> pd.DataFrame:
        """The readings of a cell."""
        return pd.read_parquet(self.folder / "cells" / self.cell(cell)["id"] / "samples.parquet")

    def window_ns(self, load: str, cell: str = "") -> tuple[int, int]:
        """The measuring window on the monotonic clock."""
        t0_ns, window = self.trial(load, cell)["t0_ns"], self.facts(load, cell)["window"]
        return t0_ns + round(window["start_s"] * 1e9), t0_ns + round(window["end_s"] * 1e9)
