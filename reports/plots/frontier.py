"""Frontiers: throughput against speed per user, of the system, per GPU, per dollar and per watt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reports.data import ReportData
from reports.format import amount, shortened
from reports.plots import marks, scales
from reports.plots.drawing import HEIGHT, Panel, Plot, picture
from reports.plots.marks import COLOURS, DASHED, INK, MUTED, SHAPES
from reports.sweeps import Estimate, loads_of, names_of, slos_of
from reports.tables.base import Cell, Table, first_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LABEL, MAX_NAME = 20, 40
MOST_LABELS = 24
SECONDS_PER_HOUR = 3600.0
Names = Mapping[tuple[str, ...], str]
_HOW = "Up and right is better; lines join the loads of a configuration that no load dominates beyond doubt"
_CROSSES = "crosses are dominated: another load is better in both, interval against interval"


@dataclass(frozen=True, slots=True)
class Kind:
    """Kind of a frontier.

    Attributes:
        title: Title of the picture.
        label: Label of its ordinate.
        head: Head of its column.
        remark: Sentence behind how to read it.
    """

    name: str
    title: str
    label: str
    head: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Spot:
    """Load in a picture.

    Attributes:
        keys: Its configuration.
        load: Load as the scenario names it; `name`: as pictures do.
        sweep: What it varies with others, and their kind; ("", ...) if it is part of no sweep.
        x: Its place in the sweep.
        speed: Of one user, tokens/s.
        yield_: Throughput, as the picture counts it.
    """

    keys: tuple[str, ...]
    load: str
    name: str
    sweep: tuple[str, str]
    x: float
    speed: Estimate
    yield_: Estimate

    @property
    def can_be_compared(self) -> bool:
        """Whether both numbers are good data, with an interval."""
        return all(one.low < one.high and not one.poor and not one.censored for one in (self.speed, self.yield_))

    @property
    def poor(self) -> bool:
        return bool(self.speed.poor or self.yield_.poor)


SYSTEM = Kind("system", "Throughput against speed per user", "system: output tokens/s", "output tokens/s")
PER_GPU = Kind(
    "per-gpu", "Throughput per GPU against speed per user", "output tokens/s per GPU", "output tokens/s per GPU"
)
PER_DOLLAR = Kind(
    "per-dollar",
    "Tokens per dollar against speed per user",
    "million output tokens per USD",
    "million output tokens per USD",
)
PER_WATT = Kind(
    "per-watt",
    "Throughput per watt against speed per user",
    "output tokens/s per W of the GPUs",
    "output tokens/s per W of the GPUs",
)
OUTPUT, ENERGY = "output_tokens_per_s", "energy_j_per_output_token"


def frontiers(data: ReportData) -> list[Plot]:
    """Return the frontiers that have two loads or more.

    Speed per user is 1000 / p50 of TPOT. Per GPU: where the machine has several. Per dollar: where its price is known.
    Per watt: where the energy of its GPUs was measured.
    """
    names, slos = names_of(data), _slowest_allowed(data)
    drawn = (frontier(kind, spots, names, slos) for kind, spots in _kinds(data))
    return [plot for plot in drawn if plot is not None]


def _kinds(data: ReportData) -> Iterator[tuple[Kind, list[Spot]]]:
    yield SYSTEM, _spots(data, OUTPUT)
    if data.gpus > 1:
        label = f"{PER_GPU.label}, of {data.gpus}"
        yield replace(PER_GPU, label=label, head=label), _spots(data, OUTPUT, 1 / data.gpus)
    if price := data.manifest.price:
        remark = f" {price.text}: {price.source}."
        yield replace(PER_DOLLAR, remark=remark), _spots(data, OUTPUT, per_dollar(price.usd_per_hour))
    yield PER_WATT, _spots(data, ENERGY, 1.0, inverted=True)


def per_dollar(usd_per_hour: float) -> float:
    """Return the million tokens of a dollar, of one token a second."""
    return SECONDS_PER_HOUR / usd_per_hour / 1e6


def _spots(data: ReportData, metric: str, factor: float = 1.0, *, inverted: bool = False) -> list[Spot]:
    found = []
    for load in loads_of(data):
        tpot, number = load.get("tpot_ms", "p50"), load.get(metric)
        if tpot is not None and number is not None and (number.value > 0 or not inverted):
            counted = number.inverted(factor) if inverted else number.times(factor)
            about = (load.keys[:-1], load.keys[-1], load.name, (load.axis, f"{load.kind}, {load.beside}"), load.x)
            found.append(Spot(*about, tpot.inverted(1000.0), counted))
    return found


def dominators(spots: Sequence[Spot]) -> list[Spot | None]:
    """Return for each load another one of its kind that dominates it beyond doubt, None without one.

    Its intervals lie wholly above those of the dominated load in both coordinates. A load without both intervals, or
    of poor data, dominates none and is dominated by none.
    """
    known = [one for one in spots if one.can_be_compared]
    return [next((other for other in known if one in known and _dominates(other, one)), None) for one in spots]


def _dominates(other: Spot, one: Spot) -> bool:
    return other.sweep == one.sweep and other.speed.low > one.speed.high and other.yield_.low > one.yield_.high


def frontier(kind: Kind, spots: Sequence[Spot], names: Names, slos: Mapping[float, str]) -> Plot | None:
    """Return the picture of the loads of all configurations; None of fewer than two.

    Args:
        names: Names of the configurations.
        slos: Speeds of one user that SLOs allow at least, with their labels.
    """
    if len(spots) < 2:
        return None
    x = scales.near([one.speed.value for one in spots], room=0.15)
    y = scales.near([one.yield_.value for one in spots], room=0.08)
    by = dominators(spots)

    def draw(axes: Axes) -> None:
        for number, (keys, name) in enumerate(names.items()):
            own = [(spot, over) for spot, over in zip(spots, by, strict=True) if spot.keys == keys]
            _configuration(axes, own, number, name if len(names) > 1 else "")
        for speed, words in slos.items():
            if x.low < speed < x.high:
                marks.upright(axes, speed, INK, DASHED, words)
        if any(by):
            marks.key(axes, "dominated", MUTED, "x")
        _label(axes, [spot for spot, over in zip(spots, by, strict=True) if len(spots) <= MOST_LABELS or over is None])

    svg = picture(kind.name, [Panel(kind.label, y, draw)], x, "one user: tokens/s, p50", height=1.2 * HEIGHT)
    every = [one for spot in spots for one in (spot.speed, spot.yield_)]
    reading = f"{_HOW}{f'; {_CROSSES}' if any(by) else ''}{remarks(every)}.{kind.remark}"
    table = _table(kind, spots, by, names)
    return Plot(kind.name, _alt(kind, spots, names), svg, kind.title, reading, table)


def remarks(shown: Sequence[Estimate]) -> str:
    """Return what bars, open and grey marks mean, as far as there are any."""
    found = [
        ("bars are 95 % intervals", any(one.low < one.high for one in shown)),
        ("open marks have a wide one", any(one.wide for one in shown)),
        ("triangles that point up are lower bounds", any(one.censored and not one.below for one in shown)),
        ("triangles that point down or to the left are upper bounds", any(one.below for one in shown)),
        ("grey is poor data", any(one.poor for one in shown)),
    ]
    return "".join(f"; {words}" for words, applies in found if applies)


def put(
    axes: Axes,
    x: float,
    shown: Estimate,
    number: int,
    about: str,
    across: Estimate | None = None,
    *,
    dominated_by: str = "",
) -> None:
    """Draw an estimate above x: hollow if its interval is wide, grey if its data is poor, a triangle if censored.

    Args:
        across: Estimate at x, with its own interval.
        dominated_by: Load that is better in both; such an estimate is a cross.
    """
    both = [shown] if across is None else [across, shown]
    why = next((one.poor for one in both if one.poor), "")
    bound = _triangle(shown, across) or SHAPES[number % len(SHAPES)]
    more = f". Dominated by {dominated_by}" if dominated_by else f". Data: poor. {why}" if why else ""
    marks.estimate(
        axes,
        x,
        shown.value,
        MUTED if why else COLOURS[number % len(COLOURS)],
        "x" if dominated_by else bound,
        filled=not why and not any(one.wide for one in both),
        beside=(across.low, across.high) if across else marks.NONE,
        above=(shown.low, shown.high),
        tip=f"{about}: {' at '.join(one.text for one in reversed(both))}{more}",
    )


def _triangle(shown: Estimate, across: Estimate | None) -> str:
    """Return the mark of a bound, which points to where the number is; "" for numbers."""
    if shown.censored:
        return "v" if shown.below else "^"
    return "<" if across is not None and across.below else ""


def _slowest_allowed(data: ReportData) -> dict[float, str]:
    """Return the speeds of one user that the SLOs on TPOT allow at least, with their labels."""
    found = {}
    for load in loads_of(data):
        for tpot_ms, words in slos_of(data, load.cell, load.trial).get("tpot_ms", {}).items():
            found[1000.0 / tpot_ms] = f"{words.replace('SLO', 'SLO TPOT', 1)}"
    return found


def _configuration(axes: Axes, own: Sequence[tuple[Spot, Spot | None]], number: int, name: str) -> None:
    """Draw the points of a configuration, and a line through those of each sweep that nothing dominates."""
    colour, dash = marks.look(number)
    sweeps: dict[tuple[str, str], list[Spot]] = {}
    for spot, over in own:
        if spot.sweep[0] and over is None and not spot.poor and not (spot.speed.censored or spot.yield_.censored):
            sweeps.setdefault(spot.sweep, []).append(spot)
    for spots in sweeps.values():
        ordered = sorted(spots, key=lambda one: one.x)
        x, y = [one.speed.value for one in ordered], [one.yield_.value for one in ordered]
        marks.line(axes, x, y, colour, dash, width=1.4)
    for spot, over in own:
        about = f"{name}, {spot.name}" if name else spot.name
        better = "" if over is None else over.name
        put(axes, spot.speed.value, spot.yield_, number, about, spot.speed, dominated_by=better)
    if own and name:
        marks.key(axes, shortened(name, MAX_NAME), colour, SHAPES[number % len(SHAPES)], dash=dash)


def _label(axes: Axes, spots: Sequence[Spot]) -> None:
    """Write the load beside its point."""
    labels = marks.Labels(axes, [one.speed.value for one in spots], [one.yield_.value for one in spots])
    for spot in spots:
        name = shortened(spot.name, MAX_LABEL)
        labels.put(spot.speed.value, spot.yield_.value, f"({name})" if spot.poor else name)


def _alt(kind: Kind, spots: Sequence[Spot], names: Names) -> str:
    known = [spot for spot in spots if not spot.poor] or spots
    fastest, quickest = max(known, key=lambda spot: spot.yield_.value), max(known, key=lambda spot: spot.speed.value)
    most, speediest = (
        f"{spot.yield_.sign}{amount(spot.yield_.value)} at {spot.speed.sign}{amount(spot.speed.value)} tokens/s "
        f"for one user ({names[spot.keys]}, {spot.name})"
        for spot in (fastest, quickest)
    )
    return f"{kind.title}, {len(spots)} loads. Most {kind.head}: {most}. Highest speed: {speediest}."


def _table(kind: Kind, spots: Sequence[Spot], by: Sequence[Spot | None], names: Names) -> Table:
    rows = [
        (
            Cell(names[spot.keys]),
            Cell(spot.load),
            *(Cell(one.text, value=one.value) for one in (spot.yield_, spot.speed)),
            *([Cell("" if over is None else f"{names[over.keys]}, {over.name}")] if any(by) else []),
        )
        for spot, over in zip(spots, by, strict=True)
    ]
    dominated = ("dominated by",) if any(by) else ()
    return first_rows(Table("", ("configuration", "load", kind.head, "one user, tokens/s", *dominated), rows, texts=2))
