"""Plot of throughput per system against speed per user: what each configuration offers, over its loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.data import ReportData
from reports.format import amount, shortened
from reports.plots import marks, scales
from reports.plots.drawing import HEIGHT, Panel, Plot, picture
from reports.plots.marks import COLOURS, MUTED, SHAPES
from reports.sweeps import Estimate, Load, loads_of, names_of
from reports.tables.base import Cell, Table, first_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LABEL, MAX_NAME = 20, 40
MOST_LABELS = 24
_TITLE = "Throughput against speed per user"
_HOW = "Up and right is better; steps join the loads of a configuration that none of its others beats in both"

Spot = tuple[Load, Estimate, Estimate]


def system(data: ReportData) -> Plot | None:
    """Return output tokens per second against tokens per second and user (1000 / p50 of TPOT); None for one load."""
    spots: list[Spot] = []
    for load in loads_of(data):
        tpot, throughput = load.get("tpot_ms", "p50"), load.get("output_tokens_per_s")
        if tpot is not None and throughput is not None:
            spots.append((load, tpot.inverted(1000.0), throughput))
    if len(spots) < 2:
        return None
    names = names_of(data)
    x = scales.near([one.value for _, one, _ in spots], room=0.15)
    y = scales.near([one.value for _, _, one in spots], room=0.08)

    def draw(axes: Axes) -> None:
        for number, (keys, name) in enumerate(names.items()):
            own = [spot for spot in spots if spot[0].keys[:-1] == keys]
            _configuration(axes, own, number, name if len(names) > 1 else "")
        _label(axes, spots)

    panel = Panel("system: output tokens/s", y, draw)
    svg = picture("system", [panel], x, "one user: tokens/s, p50", height=1.2 * HEIGHT)
    every = [one for _, *both in spots for one in both]
    return Plot("system", _alt(spots, names), svg, _TITLE, f"{_HOW}{remarks(every)}.", _table(spots, names))


def remarks(shown: Sequence[Estimate]) -> str:
    """Return what bars, open and grey marks mean, as far as there are any."""
    found = [
        ("bars are 95 % intervals", any(one.low < one.high for one in shown)),
        ("open marks have a wide one", any(one.wide for one in shown)),
        ("triangles are lower bounds", any(one.censored for one in shown)),
        ("grey is poor data", any(one.poor for one in shown)),
    ]
    return "".join(f"; {words}" for words, applies in found if applies)


def put(axes: Axes, x: float, shown: Estimate, number: int, about: str, across: Estimate | None = None) -> None:
    """Draw an estimate above x: hollow if its interval is wide, grey if its data is poor, an arrow-head if censored."""
    both = [shown] if across is None else [across, shown]
    why = next((one.poor for one in both if one.poor), "")
    marks.estimate(
        axes,
        x,
        shown.value,
        MUTED if why else COLOURS[number % len(COLOURS)],
        "^" if shown.censored else SHAPES[number % len(SHAPES)],
        filled=not why and not any(one.wide for one in both),
        beside=(across.low, across.high) if across else marks.NONE,
        above=(shown.low, shown.high),
        tip=f"{about}: {' at '.join(one.text for one in reversed(both))}{f'. Data: poor. {why}' if why else ''}",
    )


def _configuration(axes: Axes, own: Sequence[Spot], number: int, name: str) -> None:
    """Draw the points of a configuration, and the front of each of its sweeps as steps."""
    colour, dash = marks.look(number)
    sweeps: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for load, across, up in own:
        if load.axis and not (across.poor or up.poor or across.censored or up.censored):
            sweeps.setdefault((load.axis, load.kind), []).append((across.value, up.value))
    for spots in sweeps.values():
        x, y = zip(*marks.front(spots), strict=True)
        marks.line(axes, x, y, colour, dash, width=1.4, steps="pre")
    for load, across, up in own:
        put(axes, across.value, up, number, f"{name}, {load.name}" if name else load.name, across)
    if own and name:
        marks.key(axes, shortened(name, MAX_NAME), colour, SHAPES[number % len(SHAPES)], dash=dash)


def _label(axes: Axes, spots: Sequence[Spot]) -> None:
    """Write the load beside its point; of many points only beside those that none beats in both."""
    best = marks.front([(across.value, up.value) for _, across, up in spots])
    labels = marks.Labels(axes, [one.value for _, one, _ in spots], [one.value for _, _, one in spots])
    for load, across, up in spots:
        if len(spots) > MOST_LABELS and (across.value, up.value) not in best:
            continue
        name = shortened(load.name, MAX_LABEL)
        labels.put(across.value, up.value, f"({name})" if across.poor or up.poor else name)


def _alt(spots: Sequence[Spot], names: dict[tuple[str, ...], str]) -> str:
    known = [spot for spot in spots if not (spot[1].poor or spot[2].poor)] or spots
    fastest, quickest = max(known, key=lambda spot: spot[2].value), max(known, key=lambda spot: spot[1].value)
    most, speediest = (
        f"{amount(up.value)} tokens/s at {amount(across.value)} for one user ({names[load.keys[:-1]]}, {load.name})"
        for load, across, up in (fastest, quickest)
    )
    return f"Throughput against speed per user of {len(spots)} loads. Most of the system: {most}. Most: {speediest}."


def _table(spots: Sequence[Spot], names: dict[tuple[str, ...], str]) -> Table:
    rows = [
        (Cell(names[load.keys[:-1]]), Cell(load.keys[-1]), *(Cell(one.text, value=one.value) for one in (up, across)))
        for load, across, up in spots
    ]
    return first_rows(Table("", ("configuration", "load", "output tokens/s", "one user, tokens/s"), rows, texts=2))
