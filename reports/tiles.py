"""Tiles: the numbers that a page begins with, of the highest load that holds or of the recommended configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from reports.data import ReportData, keys_of_verdict
from reports.format import THIN, UNKNOWN, dotted
from reports.sweeps import RATE, Load, Sweep, names_of, sweeps_of
from reports.tables import decision
from reports.tables.base import Table
from reports.tables.limits import class_of, statistic_of
from reports.tables.overview import MARKS, Line, Overview, overview

MOST, MOST_CONFIGURATIONS, MOST_OF_CHOICE = 6, 4, 3
SHOWN = (("ttft_ms", "p95"), ("tpot_ms", "p50"), ("e2e_ms", "p95"), ("output_tokens_per_s", "value"))
OF_ONE_LOAD = (("ttft_ms", "p50"), *SHOWN, ("attainment", "value"))
GOOD = ("attainment", "value")
ALONE, OUTCOMES = "recommended", {"tie": "tie", "front": "Pareto-optimal"}
NOT_OF_CHOICE = ("size on disk",)


@dataclass(frozen=True, slots=True)
class Tile:
    """Number with its name.

    Attributes:
        about: Load or configuration that it is of.
        tone: "good", "bad", "doubtful" or "".
        mark: Sign of a limit that the number breaks, "" for none.
        detail: Its 95 % interval.
    """

    label: str
    text: str
    unit: str = ""
    about: str = ""
    tone: str = ""
    mark: str = ""
    detail: str = ""


def of_run(data: ReportData) -> list[Tile]:
    """Return the tiles of a run, empty if it has no numbers."""
    found = overview(data)
    whole: dict[tuple[str, ...], Line] = {}
    for line in found.lines:
        whole.setdefault(line.keys, line)  # those of its classes follow
    sweeps, several = sweeps_of(data), len(names_of(data)) > 1
    if not found.figures:
        return []
    if several:
        tiles: Iterator[Tile] = chain(_chosen(data), _configurations(data, sweeps))
    elif sweeps:
        tiles = _sweep(data, found, whole, sweeps[0])
    elif len(whole) == 1:
        tiles = _numbers(data, found, next(iter(whole.values())), OF_ONE_LOAD)
    else:
        tiles = iter(())
    return list(tiles)[:MOST] or [tile for line in whole.values() for tile in _first(data, found, line)][:MOST]


def _chosen(data: ReportData) -> Iterator[Tile]:
    """Yield the recommended configuration of each model, and the first numbers of the decision table about it."""
    tables = decision.decisions(data)
    for table in tables:
        about = table["model"] if len(tables) > 1 else ""
        rows = [row for row in table["rows"] if row["chosen"]]
        label = OUTCOMES.get(table["recommendation"]["outcome"], ALONE) if len(rows) > 1 else ALONE
        tone = "doubtful" if not rows else "good" if label == ALONE else ""
        yield Tile(label, dotted(row["label"] for row in rows) or "none", about=about, tone=tone)
        if len(rows) == len(tables) == 1:
            yield from _of_row(decision.choice(table, wide=False), rows[0]["label"])


def _of_row(table: Table, label: str) -> list[Tile]:
    """Return the quality and the first numbers of a row of the decision table."""
    row = next(row for row in table.rows if row[0].text == label)
    cells = dict(zip(table.head, row, strict=True))
    numbers = [head for head in table.head[table.texts :] if head not in NOT_OF_CHOICE]
    tiles = []
    for head in [*numbers[:MOST_OF_CHOICE], "quality"]:
        if head in cells and cells[head].text != UNKNOWN:
            name, _, rest = head.partition(", ")
            unit = rest.replace("tokens/s", "tok/s") if "/" in rest else ""
            tiles.append(Tile(name, cells[head].text, unit, "" if unit else rest))
    return tiles


def _configurations(data: ReportData, sweeps: Sequence[Sweep]) -> Iterator[Tile]:
    """Yield up to which load each configuration holds."""
    names = names_of(data)
    for keys, own in list(sweeps[0].loads.items())[:MOST_CONFIGURATIONS] if sweeps else ():
        tile, _, _ = _capacity(data, sweeps[0], own)
        if tile:
            yield replace(tile, about=dotted((names[keys], sweeps[0].beside)))


def _sweep(data: ReportData, found: Overview, lines: Mapping[tuple[str, ...], Line], sweep: Sweep) -> Iterator[Tile]:
    """Yield up to which load the only configuration holds, its numbers there, and the SLO at the next load."""
    (own,) = sweep.loads.values()
    tile, at, above = _capacity(data, sweep, own)
    if tile:
        yield replace(tile, about=dotted((tile.about, sweep.beside)))
    yield from _numbers(data, found, lines[at.keys], SHOWN, f"at {at.name}")
    beyond = above or at
    yield from _numbers(data, found, lines[beyond.keys], (GOOD,), f"at {beyond.name}")


def _capacity(data: ReportData, sweep: Sweep, own: Sequence[Load]) -> tuple[Tile | None, Load, Load | None]:
    """Return the tile of the load that holds, the load that the other numbers are of, and the next one."""
    unit = "req/s" if sweep.axis == RATE else "users"
    outcomes: dict[tuple[str, ...], set[str]] = {}
    for verdict in data.verdicts:
        outcomes.setdefault(keys_of_verdict(verdict), set()).add(verdict["outcome"])
    if all(load.keys in outcomes for load in own):
        holds = next((number for number, load in enumerate(own) if outcomes[load.keys] != {"pass"}), len(own))
        if not holds:
            broken = "fail" in outcomes[own[0].keys]
            text, tone = ("at no load", "bad") if broken else ("cannot be told", "doubtful")
            return Tile("meets every limit", text, tone=tone), own[0], None
        at, above = own[holds - 1], own[holds] if holds < len(own) else None
        about = "every limit met" if above else "the most tried"
        return Tile("holds up to", f"{at.x:g}", unit, about, "good"), at, above
    knee = sweep.knees().get(own[0].keys[:-1])
    if knee is None:
        return None, own[-1], None
    at, above = (next(load for load in own if load.x == x) for x in (knee.below, knee.above))
    return Tile("knee", f"{knee.below:g} to {knee.above:g}", unit), at, above


def _first(data: ReportData, found: Overview, line: Line) -> list[Tile]:
    """Return the most important number of a line."""
    return list(_numbers(data, found, line, SHOWN, " · ".join(line.place)))[:1]


def _numbers(
    data: ReportData, found: Overview, line: Line, wanted: Sequence[tuple[str, str]], about: str = ""
) -> Iterator[Tile]:
    """Yield numbers of a line as the table of results has them."""
    columns = {figure.key: number for number, figure in enumerate(found.figures)}
    for key in wanted:
        if key not in columns or not line.cells[columns[key]].text:
            continue
        cell, unit = line.cells[columns[key]], found.units[columns[key]].partition(" (")[0]
        figure = found.figures[columns[key]]
        names = [name for name in (figure.over, figure.head) if name]
        if not unit and "/" in figure.head:
            unit = names.pop()
        mark = MARKS["fail"] if _fails(data, line.keys, key) else ""
        text = cell.text.replace(THIN, "\u00a0")
        yield Tile(" ".join(names), text, unit, about, "bad" if mark else cell.tone, mark, cell.detail)


def _fails(data: ReportData, keys: tuple[str, ...], key: tuple[str, str]) -> bool:
    """Return whether a number of all requests breaks a limit; one on a class is not about it."""
    metric, statistic = key
    broken = (one for one in data.verdicts if keys_of_verdict(one) == keys and one["outcome"] == "fail")
    own = (one["limit"] for one in broken if one["metric"] == metric and not class_of(one["limit"]))
    return any(statistic in ("value", statistic_of(limit)) for limit in own)
