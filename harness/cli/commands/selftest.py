"""`harness selftest`: what the tool's own statistics do on data whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import AsJson
from harness.cli.output import say
from harness.errors import UsageError
from reports.format import for_terminal

if TYPE_CHECKING:
    from harness.history.bank import FalseAlarms
    from harness.history.detector.steps import Policy
    from harness.history.series import Series

selftest = typer.Typer(help="Test the statistics on simulated data.", no_args_is_help=True, rich_markup_mode=None)

_SERIES = "Simulated series for each cell of the tables."
_NIGHTS = "Nights of each series in which alerts are counted, after 100 others."
_SPREAD = "Standard deviation of a night, in per cent."
_STORE = "Also the false alarms on your own history: its noise, drawn again."
_ALL = "Also rows with parts of the policy switched off."
_PROGRESS = "Print no progress."
STEPS = (0.01, 0.02, 0.03, 0.05, 0.1)
RAMP = 0.005


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated: series, nights of each, the relative spread of a night, and the seed."""

    series: int
    nights: int
    spread: float
    seed: int


@selftest.command(name="regress")
def regress(
    series: Annotated[int, typer.Option(min=1, help=_SERIES)] = 40,
    nights: Annotated[int, typer.Option(min=1, help=_NIGHTS)] = 155,
    spread: Annotated[float, typer.Option(min=0.01, max=20, help=_SPREAD)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 1,
    folder: Annotated[Path | None, typer.Option("--store", metavar="DIR", help=_STORE)] = None,
    everything: Annotated[bool, typer.Option("--all", help=_ALL)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help=_PROGRESS)] = False,
    as_json: AsJson = False,
) -> None:
    """Run `harness regress` night by night on simulated series: false alarms, and what is found."""
    size = Size(series, nights, spread / 100, seed)
    tell: Callable[[str], None] = (lambda text: None) if quiet else say
    own = own_series(folder) if folder is not None else None
    found = {
        "simulated": {"series": series, "nights": nights, "spread": spread / 100, "seed": seed},
        "false_alarms": [*false_alarm_rows(size, tell, everything=everything)],
        "steps": [*step_rows(size, tell)],
        "others": [*other_rows(size, tell)],
        "own": None if own is None else own_rates(own, size, tell),
    }
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
        return
    for line in lines(found):
        print(for_terminal(line))


def own_series(folder: Path) -> list[Series]:
    """Return the series of a store. Raises UsageError if none has nights enough."""
    from harness.history.bank import own_residuals
    from harness.history.store.folder import Store

    series = [one for one in Store.open(folder).series() if own_residuals(one) is not None]
    if not series:
        raise UsageError(f"{folder}: no series has 30 nights since its last reset; leave out --store")
    return series


def policies(*, everything: bool) -> dict[str, Policy]:
    """Return the rows of the first table: the shipped policy, and parts of it."""
    from harness.history.detector.steps import POLICY

    plain = replace(POLICY, nights=1, whole=True, spike_filter=False, correlation=False, checks=False)
    parts = {
        "change points, p 0.001": replace(plain, p=1e-3),
        "change points, p 0.0001": plain,
        "+ age of 3, spike filter": replace(plain, nights=3, spike_filter=True),
    }
    return {**(parts if everything else {}), "harness regress": POLICY}


def false_alarm_rows(size: Size, tell: Callable[[str], None], *, everything: bool) -> Iterator[dict[str, Any]]:
    """Yield alerts per series-year without any change, for each policy and noise."""
    from harness.history.bank import MODELS, false_alarms

    for name, policy in policies(everything=everything).items():
        for model, draw in MODELS.items():
            tell(f"false alarms: {name}, {model}")
            found = false_alarms(draw, size.series, size.nights, size.spread, size.seed, policy)
            yield {"policy": name, "noise": model, **_rate(found)}


def step_rows(size: Size, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield how steps are found, for each size and noise; and with a fifth of the nights missing."""
    from harness.history.bank import MODELS, steps_found

    cases = [
        (model, step, size.spread, 0.0)
        for model in MODELS
        for step in STEPS
        if model == "normal" or step in (2 * size.spread, 3 * size.spread)
    ]
    wider = [("normal", sigmas * 2 * size.spread, 2 * size.spread, 0.0) for sigmas in (2, 3)]
    for model, step, spread, missing in [*cases, *wider, ("normal", 3 * size.spread, size.spread, 0.2)]:
        tell(f"steps: {100 * step:g} %, {model}")
        found = steps_found(MODELS[model], step, 5 * size.series, spread, size.seed, missing=missing)
        yield {
            "noise": model,
            "step": step,
            "spread": spread,
            "missing": missing,
            "within_5": found.within(5),
            "within_7": found.within(7),
            "within_14": found.within(14),
            "delay": _finite(found.delay),
            "placed": _finite(found.placed),
        }


def other_rows(size: Size, tell: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield what is told of a creeping loss, a wider spread and a single slow night."""
    import numpy as np

    from harness.history.bank import BEFORE, alarms_of, normal

    def creeping(rng: np.random.Generator) -> Any:
        return size.spread * normal(rng, BEFORE + 100) + RAMP / 7 * np.maximum(np.arange(BEFORE + 100) - BEFORE, 0)

    def wider(rng: np.random.Generator) -> Any:
        logs = size.spread * normal(rng, BEFORE + 60)
        logs[BEFORE:] *= 3
        return logs

    def spike(rng: np.random.Generator) -> Any:
        logs = size.spread * normal(rng, BEFORE + 30)
        logs[BEFORE + 5] += 8 * size.spread
        return logs

    for name, make in (("0.5 % a week", creeping), ("spread x 3", wider), ("one night of 8 s.d.", spike)):
        tell(f"others: {name}")
        alarms = [[pair for pair in one if pair[1].shape] for one in alarms_of(make, size.series, size.seed)]
        first = [one[0][0] - BEFORE + 1 for one in alarms if one]
        yield {
            "case": name,
            "told": len(first) / len(alarms),
            "once": sum(len(one) == 1 for one in alarms) / len(alarms),
            "night": float(np.median(first)) if first else None,
        }


def own_rates(series: Sequence[Series], size: Size, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return the false alarms on the noise of a history, drawn again: by series-year, and for its board a month."""
    from harness.history.bank import FalseAlarms, false_alarms, own_residuals, resampled

    each = max(1, -(-size.series // len(series)))
    alerts, years = 0, 0.0
    for number, one in enumerate(series):
        known = own_residuals(one)
        if known is None:
            continue
        tell(f"your history: series {number + 1} of {len(series)}")
        parts, nights = known
        found = false_alarms(resampled(parts), each, size.nights, 1.0, size.seed + number, scale=nights.scale)
        alerts, years = alerts + found.alerts, years + found.years
    together = FalseAlarms(alerts, years)
    return {"series": len(series), "board_per_month": together.rate * len(series) / 12, **_rate(together)}


def _rate(found: FalseAlarms) -> dict[str, Any]:
    return {"per_series_year": found.rate, "at_most": found.most, "alerts": found.alerts, "series_years": found.years}


def _finite(value: float) -> float | None:
    import math

    return value if math.isfinite(value) else None


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the tables for a terminal."""
    about = found["simulated"]
    yield f"False alerts per series-year, {about['series']} series of {about['nights']} nights without any change"
    models = list(dict.fromkeys(row["noise"] for row in found["false_alarms"]))
    yield f"{'':26}" + "".join(f"{model:>17}" for model in models)
    rows = {(row["policy"], row["noise"]): row for row in found["false_alarms"]}
    for policy in dict.fromkeys(row["policy"] for row in found["false_alarms"]):
        cells = [rows[policy, model] for model in models]
        yield f"{policy:<26}" + "".join(f"{_cell(row):>17}" for row in cells)
    yield "(at most, with 95 %)"
    yield ""
    yield f"Steps told, {5 * about['series']} series each; delay in nights at the new level"
    yield f"{'':22}{'s.d.':>6}{'step':>7}{'<= 5 nights':>13}{'<= 7':>7}{'<= 14':>7}{'delay':>7}{'right to a night':>18}"
    for row in found["steps"]:
        name = f"{row['noise']}{', 20 % missing' if row['missing'] else ''}"
        shares = [f"{100 * row[key]:.0f} %" for key in ("within_5", "within_7", "within_14")]
        delay = "-" if row["delay"] is None else f"{row['delay']:.0f}"
        placed = "-" if row["placed"] is None else f"{100 * row['placed']:.0f} %"
        sizes = f"{100 * row['spread']:>4g} %{100 * row['step']:>5g} %"
        yield f"{name:<22}{sizes}{shares[0]:>13}{shares[1]:>7}{shares[2]:>7}{delay:>7}{placed:>18}"
    yield ""
    yield f"{'Changes of the level told':<26}{'in':>8}{'once':>8}{'night':>7}"
    for row in found["others"]:
        night = "-" if row["night"] is None else f"{row['night']:.0f}"
        yield f"{row['case']:<26}{100 * row['told']:>6.0f} %{100 * row['once']:>6.0f} %{night:>7}"
    if found["own"] is not None:
        own = found["own"]
        yield ""
        yield (
            f"Your history: {_cell(own)} false alerts per series-year, {own['series']} series; "
            f"{own['board_per_month']:.2f} a month for the board"
        )


def _cell(row: dict[str, Any]) -> str:
    return f"{row['per_series_year']:.2f} ({row['at_most']:.2f})"
