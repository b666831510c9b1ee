"""What a report is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reports.format import UNKNOWN, dotted

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("model", "engine", "level", "variant", "load")
POOLED = "pooled"
ALL = "all"


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything the formats show; plain values only.

    manifest: of the run.
    summary: its tidy table, with the columns model, engine, level, variant, load, class, repetition, metric, statistic,
        value, low, high, bound, n, n_eff, unit, source, window.
    validity: per trial {cell, trial, verdict, reasons: [{code, level, sentence, advice}]}.
    facts: per trial {cell, trial, window, requests, statuses, errors, missing, ...}.
    verdicts: per limit {limit, metric, model, ..., load, outcome, value, low, high, n, sentence}.
    definitions: per metric {name, unit, definition, direction, show, unmeasured}.
    decisions: per model {model, reference, speed, loads, rows, recommendation, quality, notes}; a row has engine,
        level, variant, label, loaded_level, device, status, reason, repetitions, values, loads, validity, memory,
        front, beaten_by, limits, chosen; a value is {value, low, high, bound, n, unit, source, reason}, or None.
    series: per (cell, trial) the frames distribution, classes, latency, latency_bins, lengths, length_bins, rates,
        slices, gauges, and phases, bursts.
    calibration: how exactly the client measures where the run was made, in one sentence.
    late_readings_above: the share of late readings of the machine from which on they are doubtful.
    """

    title: str
    manifest: dict[str, Any]
    summary: pd.DataFrame
    validity: Sequence[dict[str, Any]] = ()
    facts: Sequence[dict[str, Any]] = ()
    verdicts: Sequence[dict[str, Any]] = ()
    definitions: Sequence[dict[str, str]] = ()
    decisions: Sequence[dict[str, Any]] = ()
    series: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    exit_code: int | None = None
    calibration: str = ""
    late_readings_above: float = 1.0

    def trials(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """(cell, trial) of everything planned, in order."""
        for cell in self.manifest["cells"]:
            for trial in cell.get("trials", ()):
                yield cell, trial

    def validity_of(self, cell: str, trial: str) -> dict[str, Any] | None:
        """The judgement of a trial, None if there is none."""
        return self._validity.get((cell, trial))

    def facts_of(self, cell: str, trial: str) -> dict[str, Any]:
        """The facts about a trial, empty if it left none."""
        return self._facts.get((cell, trial), {})

    def invalid(self, cell: str, trial: str) -> bool:
        """Whether a trial was judged invalid: it has no result then."""
        return (self.validity_of(cell, trial) or {}).get("verdict") == "invalid"

    def verdict(self) -> str:
        """The worst validity of the run: "valid", "warn", "invalid", or "" if nothing was judged."""
        return _worst(self.validity)

    def verdict_of(self, keys: Sequence[str], repetition: str = POOLED) -> str:
        """The validity of one row of the results: of the repetitions together the worst, or of one of them."""
        judged = self._judged.get(tuple(keys), ())
        return _worst([found for own, found in judged if repetition in (POOLED, own)])

    @cached_property
    def _validity(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(one["cell"], one["trial"]): one for one in self.validity}

    @cached_property
    def _facts(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(one["cell"], one["trial"]): one for one in self.facts}

    @cached_property
    def _judged(self) -> dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]]:
        """(repetition, judgement) by the keys of the summary: every row of it asks."""
        found: dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]] = {}
        for cell, trial in self.trials():
            if judged := self.validity_of(cell["id"], trial["id"]):
                found.setdefault(keys_of(cell, trial["load"]), []).append((str(cell["repetition"]), judged))
        return found


def _worst(judged: Sequence[dict[str, Any]]) -> str:
    found = {one["verdict"] for one in judged}
    return next((level for level in ("invalid", "warn", "valid") if level in found), "")


def keys_of(cell: Mapping[str, Any], load: str = "") -> tuple[str, ...]:
    """Return where in the summary the rows of a load on a cell are."""
    return (*(str(cell[key] or "") for key in KEYS[:-1]), load)


def place(keys: Sequence[str]) -> str:
    """Return model, engine, level and variant in words."""
    return dotted(keys[:-1]) or UNKNOWN
