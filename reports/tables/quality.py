"""Quality: the distance of each cell from its reference, position by position, and what its replies look like."""

from __future__ import annotations

from typing import Any

from harness.store.manifest import GreedyEntry, NoiseFloor, QualityEntry, ReferenceEntry
from reports.data import ALL, ReportData, keys_of, place
from reports.format import UNKNOWN, amount
from reports.labels import QUALITY, REPLIES, Column
from reports.tables.base import Cell, Table, counted, measured, nan, noted, pooled_rows

LOAD = "quality"
_LEAST_IN_FULL = 1e-5
_INDISTINGUISHABLE = "no more than three times the reference's divergence from itself: indistinguishable from it"
_DESCRIPTIVE = "means over greedy replies: descriptive only, no measure of correctness"


def scored(data: ReportData) -> bool:
    """Return whether any cell was compared with a reference."""
    return any(cell.quality is not None and cell.quality.positions for cell in data.manifest.cells)


def detail(data: ReportData) -> Table:
    """Return one row per cell that was to be scored, with the reason if it could not be."""
    rows = pooled_rows(data)
    present = {key[-2] for key in rows if key[4] == LOAD}
    shown = [column for column in QUALITY if not column.optional or column.name in present]
    if not any(key[-2] == "kl_mean" and row["bound"] == "point" for key, row in rows.items()):
        shown = [column for column in shown if not column.name.startswith("kl_") or column.name == "kl_bound"]
    notes: list[str] = []
    lines = []
    for cell in data.manifest.cells:
        told = cell.quality
        if told is None:
            continue
        keys = keys_of(cell, LOAD)
        reason = told.reason
        values = [_value(rows.get((*keys, ALL, column.name, "value")), column) for column in shown]
        if told.indistinguishable and told.k is None:  # a small lower bound shows nothing
            values[0] = Cell(values[0].text, values[0].detail, note=noted(notes, _INDISTINGUISHABLE))
        said = f"not scored: {reason}" if reason else _remark(told, data)
        name = Cell(place(keys), note=noted(notes, said) if said else None)
        lines.append((name, *values, Cell(greedy_text(told.greedy))))
    head = ("configuration", *(column.head for column in shown), "greedy replies")
    below = notes + _references(data) if lines else []
    about = ("", *(column.name for column in shown))
    return Table("Quality vs. reference", head, lines, below, about=about)


def responses(data: ReportData) -> Table:
    """Return one row per cell that gave replies."""
    lines = []
    for cell in data.manifest.cells:
        told = cell.quality and cell.quality.responses
        if not told or not told.replies:
            continue
        cells = [Cell(amount(nan(getattr(told, column.name)), show=column.show)) for column in REPLIES]
        lines.append((Cell(place(keys_of(cell))), counted(told.replies), *cells))
    head = ("configuration", "replies", *(column.head for column in REPLIES))
    return Table("Replies (descriptive)", head, lines, [_DESCRIPTIVE] if lines else [])


def greedy_text(told: GreedyEntry | None) -> str:
    """Return in words where greedy replies leave the reference's."""
    if told is None or not told.prompts:
        return UNKNOWN
    if told.median_at is None:
        return f"all {told.prompts} the same for {told.tokens} tokens"
    gap = "" if told.median_gap is None else f" by a gap of {told.median_gap:.2g} nats"
    same = round((told.same_share or 0.0) * told.prompts)
    return f"first differ at token {told.median_at:g}{gap} (medians); {same} of {told.prompts} never"


def _remark(told: QualityEntry, data: ReportData) -> str:
    """Return what sets the scores of a cell apart from others; "" if nothing does."""
    if told.true_unknown:
        return f"the probability of the true token is unknown at {told.true_unknown} of {told.positions} positions"
    given = next((one.beginning for one in _told(data) if one.name == told.reference), None)
    own = told.beginning
    if given is None or own is None or own == given:
        return ""
    return f"scored after {_ids(given)}, as the reference is served; this engine puts {_ids(own)} in front of a text"


def _ids(ids: list[int]) -> str:
    return f"token {', '.join(map(str, ids))}" if ids else "nothing"


def _told(data: ReportData) -> list[ReferenceEntry]:
    """Of each reference that was scored."""
    return [told for told in data.manifest.quality.values() if told.positions]


def _references(data: ReportData) -> list[str]:
    """Return what was scored, and how far the reference is from itself."""
    lines = []
    for told in _told(data):
        name = " · ".join(part for part in told.name.stored().values() if part)
        floor = told.noise_floor or NoiseFloor()
        known = "unknown" if floor.kl_mean is None else f"{floor.kl_mean:.2g} nats"
        text = f"reference {name}: {told.positions} positions in {told.chunks} chunks of {told.text}, "
        text += f"tokens by {told.tokens}"
        text += f", each after {_ids(told.beginning)}" if told.beginning else ""
        text += f"; from itself {known} (KL; {floor.differs})"
        if told.quantized:
            text += f"; it is itself quantized ({told.level}), so these are distances from it, not quality"
        lines.append(f"{text}; {told.bound}" if told.bound else text)
    return lines


def _value(row: dict[str, Any] | None, column: Column) -> Cell:
    if row is not None and column.name.startswith("kl_") and 0 < row["value"] < _LEAST_IN_FULL:
        low, high = row["low"], row["high"]
        return Cell(f"{row['value']:.1e}", f"{low:.1e} to {high:.1e}" if low < high else "", value=row["value"])
    return measured(row, column.show)
