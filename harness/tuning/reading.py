"""What a start of a candidate measured, from its stored run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.analysis.summary import POOLED
from harness.errors import RunUnreadable
from harness.results import Results, derive
from harness.scenario.margins import Margin, Scale, statistics_of
from harness.store.manifest import Manifest
from harness.store.run import MANIFEST, Run
from harness.verdict.limits.held import LIKELY, Outcome


@dataclass(frozen=True, slots=True)
class Broken:
    """Limit that a start did not hold. sure: not by its value alone, but by its whole interval."""

    limit: str
    sentence: str
    sure: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """What a start measured.

    Attributes:
        value: Number that is tuned; NaN if it is unknown, or has no gain.
        broken: Limits that it did not hold.
        doubt: Why the data of the number is poor; "" if it is not.
        failure: Why nothing was measured; "" if something was.
        in_force: Options of the engine that were in force, as it reports them.
    """

    value: float = math.nan
    broken: tuple[Broken, ...] = ()
    doubt: str = ""
    failure: str = ""
    in_force: Mapping[str, Any] = field(default_factory=dict)


def observed(folder: Path, number: Margin) -> Observed | None:
    """Return what a run measured; None if there is no run, or it was ended."""
    run = _over(folder)
    if run is None:
        return None
    if (why := _failure(run.manifest)) is not None:
        return Observed(failure=why)
    return _of_results(derive(run.manifest, run.trials(), folder, statistics_of([number])), number)


def failure_of(folder: Path) -> str | None:
    """Return why a run measured nothing; None if it measured its load, or there is none."""
    run = _over(folder)
    return None if run is None else _failure(run.manifest)


def _over(folder: Path) -> Run | None:
    """Return a stored run that came to its own end; None if there is none."""
    if not (folder / MANIFEST).exists():
        return None
    try:
        run = Run.open(folder)
    except RunUnreadable:
        return None
    return None if run.manifest.status in ("running", "interrupted") else run


def _failure(manifest: Manifest) -> str | None:
    """Return why a run measured nothing; None if it measured its load."""
    for cell in manifest.cells:
        if cell.status in ("skipped", "failed"):
            return next(filter(None, (cell.reason, *(trial.reason for trial in cell.trials))), "nothing was measured")
        for trial in cell.trials:
            if trial.status != "complete":
                return trial.reason or "nothing was measured"
    return None


def _of_results(results: Results, number: Margin) -> Observed:
    broken = tuple(
        Broken(one.limit, one.sentence, one.certainty != LIKELY)
        for one in results.verdicts
        if one.outcome is Outcome.FAIL
    )
    poor = [(why, about) for one in results.validity.values() for why, about in one.poor]
    doubt = next((why for why, about in poor if not about or number.metric in about), "")
    in_force = next((dict(cell.engine_info.options) for cell in results.manifest.cells), {})
    value = _value(results, number)
    known = value if math.isfinite(gain(value, number)) else math.nan  # zero has no logarithm
    return Observed(known, broken, doubt, in_force=in_force)


def _value(results: Results, number: Margin) -> float:
    rows = results.summary
    wanted = {"class": number.class_name, "metric": number.metric, "statistic": number.statistic, "repetition": POOLED}
    for column, value in wanted.items():
        rows = rows[rows[column] == value]
    return float(rows["value"].iloc[0]) if len(rows) else math.nan


def gain(value: float, number: Margin) -> float:
    """Return a number on the scale of gains, where more is better; NaN if it has none."""
    if number.scale is Scale.RATIO:
        value = math.log(value) if value > 0 else math.nan
    return -value if number.more_is_worse else value


def margin_in_gains(number: Margin) -> float:
    """Return the difference of gains that the margin allows."""
    return number.size if number.scale is Scale.DIFFERENCE else abs(math.log(number.better))


@dataclass(frozen=True, slots=True)
class Record:
    """All starts of a candidate, in the order of their rounds."""

    starts: tuple[Observed, ...] = ()

    @property
    def failure(self) -> str:
        """Why a start failed, with how many; "" if none did."""
        failed = [one.failure for one in self.starts if one.failure]
        of = f" ({len(failed)} of {len(self.starts)} starts)" if len(self.starts) > 1 else ""
        return f"{failed[0]}{of}" if failed else ""

    @property
    def breaks(self) -> Broken | None:
        """Limit that more than half of the starts did not hold, the first of several; None if there is none."""
        counts: dict[str, list[Broken]] = {}
        for start in self.starts:
            for one in start.broken:
                counts.setdefault(one.limit, []).append(one)
        often = [found for found in counts.values() if 2 * len(found) > len(self.starts)]
        return next((next((one for one in found if one.sure), found[0]) for found in often), None)

    @property
    def doubt(self) -> str:
        """Why the data of more than half of the starts is poor; "" if it is not."""
        doubts = [one.doubt for one in self.starts if one.doubt]
        return doubts[0] if 2 * len(doubts) > len(self.starts) else ""

    @property
    def in_force(self) -> Mapping[str, Any]:
        """Options of the engine at the first start; none if it is unknown."""
        return self.starts[0].in_force if self.starts else {}

    @property
    def unknown(self) -> bool:
        """Whether a start that measured its load has not the number."""
        return any(math.isnan(one.value) for one in self.starts if not one.failure)


def gains_of(records: Mapping[int, Record], number: Margin) -> dict[int, Sequence[float]]:
    """Return the gains of each candidate by its rounds."""
    return {one: [gain(start.value, number) for start in record.starts] for one, record in records.items()}
