"""Tables of quality: the distance of each cell from its reference, and figures of its replies."""

from __future__ import annotations

from typing import Any

from harness.store.manifest import GreedyEntry, NoiseFloor, QualityEntry, ReferenceEntry
from reports.data import ALL, ReportData, keys_of, place
from reports.format import UNKNOWN, amount, dotted
from reports.labels import QUALITY, REPLIES, Column
from reports.tables.base import Cell, Table, by_class, counted, measured, nan, noted

LOAD = "quality"
_LEAST_IN_FULL = 1e-5
_INDISTINGUISHABLE = "no more than three times the reference's divergence from itself: indistinguishable from it"
_DESCRIPTIVE = "means over greedy replies: descriptive only, no measure of correctness"


def scored(data: ReportData) -> bool:
    """Return whether any cell was compared with a reference."""
    return any(cell.quality is not None and cell.quality.positions for cell in data.manifest.cells)


def detail(data: ReportData) -> Table:
    """Return one row per cell to be scored, with the reason if it was not."""
    known = by_class(data)
    present = {metric for keys, rows in known.items() if keys[4] == LOAD for metric, _ in rows}
    shown = [column for column in QUALITY if not column.optional or column.name in present]
    points = (rows["kl_mean", "value"]["bound"] == "point" for rows in known.values() if ("kl_mean", "value") in rows)
    if not any(points):
        shown = [column for column in shown if not column.name.startswith("kl_") or column.name == "kl_bound"]
    lines, notes = [], list[str]()
    for cell in data.manifest.cells:
        if (entry := cell.quality) is None:
            continue
        keys = keys_of(cell, LOAD)
        rows = known.get((*keys, ALL), {})
        values = [_value(rows.get((column.name, "value")), column) for column in shown]
        if entry.indistinguishable and entry.k is None:  # a small lower bound shows nothing
            values[0] = Cell(values[0].text, values[0].detail, note=noted(notes, _INDISTINGUISHABLE))
        remark = _reason(entry) or _remark(entry, data)
        name = Cell(place(keys), note=noted(notes, remark) if remark else None)
        lines.append((name, *values, Cell(greedy_text(entry.greedy))))
    head = ("configuration", *(column.head for column in shown), "greedy replies")
    below = [*notes, *map(_reference_text, _references(data))] if lines else []
    about = ("", *(column.name for column in shown))
    return Table("Quality vs. reference", head, lines, below, about=about)


def responses(data: ReportData) -> Table:
    """Return one row per cell that gave replies."""
    lines = []
    for cell in data.manifest.cells:
        entry = cell.quality and cell.quality.responses
        if entry and entry.replies:
            cells = [Cell(amount(nan(getattr(entry, column.name)), show=column.show)) for column in REPLIES]
            lines.append((Cell(place(keys_of(cell))), counted(entry.replies), *cells))
    head = ("configuration", "replies", *(column.head for column in REPLIES))
    return Table("Replies (descriptive)", head, lines, [_DESCRIPTIVE] if lines else [])


def greedy_text(greedy: GreedyEntry | None) -> str:
    """Return the token at which greedy replies first differ from the reference's, in words."""
    if greedy is None or not greedy.prompts:
        return UNKNOWN
    if greedy.median_at is None:
        return f"all {greedy.prompts} the same for {greedy.tokens} tokens"
    gap = "" if greedy.median_gap is None else f" by a gap of {greedy.median_gap:.2g} nats"
    same = round((greedy.same_share or 0.0) * greedy.prompts)
    alike = f"; {same} of {greedy.prompts} do not differ" if same else ""
    return f"first differ at token {greedy.median_at:g}{gap} (medians){alike}"


def _reason(entry: QualityEntry) -> str:
    """Return why a cell has no figures; "" if it has some."""
    if not entry.reason:
        return ""
    return f"scored, but {entry.reason}" if entry.positions else f"not scored: {entry.reason}"


def _remark(entry: QualityEntry, data: ReportData) -> str:
    """Return the peculiarity of a cell's scores; "" if there is none."""
    if entry.true_unknown:
        return f"the probability of the true token is unknown at {entry.true_unknown} of {entry.positions} positions"
    given = next((one.beginning for one in _references(data) if one.name == entry.reference), None)
    own = entry.beginning
    if given is None or own is None or own == given:
        return ""
    return f"scored after {_ids(given)}, as the reference is served; this engine puts {_ids(own)} in front of a text"


def _ids(ids: list[int]) -> str:
    return f"token {', '.join(map(str, ids))}" if ids else "nothing"


def _references(data: ReportData) -> list[ReferenceEntry]:
    return [one for one in data.manifest.quality.values() if one.positions]


def _reference_text(one: ReferenceEntry) -> str:
    """Return the scored text, and the divergence of the reference from itself."""
    floor = one.noise_floor or NoiseFloor()
    known = "unknown" if floor.kl_mean is None else f"{floor.kl_mean:.2g} nats"
    text = f"reference {dotted(one.name.stored().values())}: {one.positions} positions in {one.chunks} chunks of "
    text += f"{one.text}, tokens by {one.tokens}{f', each after {_ids(one.beginning)}' if one.beginning else ''}"
    text += f"; from itself {known} (KL; {floor.differs})"
    if one.quantized:
        text += f"; it is itself quantized ({one.level}), so these are distances from it, not quality"
    return f"{text}; {one.bound}" if one.bound else text


def _value(row: dict[str, Any] | None, column: Column) -> Cell:
    if row is not None and column.name.startswith("kl_") and 0 < row["value"] < _LEAST_IN_FULL:
        low, high = row["low"], row["high"]
        return Cell(f"{row['value']:.1e}", f"{low:.1e} to {high:.1e}" if low < high else "", value=row["value"])
    return measured(row, column.show)
