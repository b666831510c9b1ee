"""Decision tables: engines and levels of a model side by side, what to run, and why not the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.data import ReportData
from reports.format import UNKNOWN, dotted
from reports.labels import DECISION, DECISION_QUALITY, ENGINE, UNDER_LOAD, Column
from reports.tables.base import Cell, Table, data_quality, judgement, measured, noted

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Comparison of the engines and levels of one model.

    Attributes:
        advice: What to run, and why not the others.
        remarks: What the numbers are.
    """

    title: str
    model: str
    advice: list[str]
    tables: list[Table]
    remarks: list[str]


ABOUT = {"ttft_p95_ms": "ttft_ms", "tpot_p95_ms": "tpot_ms", "e2e_p95_ms": "e2e_ms", "success": "error_rate"}
"""The metrics that columns of another name show."""


def decisions(data: ReportData) -> list[dict[str, Any]]:
    """Return the models for which there is something to decide: more than one row, and load to compare them by."""
    return [table for table in data.decisions if len(table["rows"]) > 1 and table["loads"]]


def of_models(data: ReportData, *, wide: bool = True) -> list[Decision]:
    """Return one for each model with several rows. wide: there is room for every column and a table of the loads."""
    return [_of_model(data, table, wide) for table in decisions(data)]


def _of_model(data: ReportData, table: dict[str, Any], wide: bool) -> Decision:
    tables = (choice(table, wide=wide), engines([table]), *([loads(table)] if wide else []))
    shown = [one for one in tables if one.rows]
    return Decision(_title(data, table), table["model"], _advice(table), shown, _remarks(table))


def _title(data: ReportData, table: dict[str, Any]) -> str:
    """Return a title with the model if there are several, and the engine if there is but one."""
    engines = {row["engine"] for row in table["rows"]}
    named = [table["model"] if len(data.decisions) > 1 else "", *(engines if len(engines) == 1 else ())]
    about = dotted(named)
    what = "Which quantization" if len(engines) == 1 else "Which engine and quantization"
    return f"{what}: {about}" if about else what


def _advice(table: dict[str, Any]) -> list[str]:
    advice = table["recommendation"]
    out = [f"{one['label']}: {one['why']}" for one in advice["out"]]
    return [advice["sentence"], *([f"Rejected: {'; '.join(out)}."] if out else [])]


def _remarks(table: dict[str, Any]) -> list[str]:
    found = [f"Speed: {table['speed']['text']}."]
    if table["reference"]:
        found.append(f"Reference: {table['reference']['label']}, {table['reference']['why']}.")
        ratios = [row["values"]["speed_ratio"] for row in table["rows"]]
        methods = {ratio["source"] for ratio in ratios if ratio["value"] is not None} - {"", "the reference"}
        found += [f"Ratio of speeds: {method}." for method in sorted(methods)]
    found.append(
        "Dominated: another configuration is no worse in speed, memory and quality, and significantly better in one. "
        "The line in the picture joins the configurations that are not dominated (Pareto front)."
    )
    return [*found, *(f"{note[0].upper()}{note[1:]}." for note in table["notes"])]


def choice(table: dict[str, Any], *, wide: bool = True) -> Table:
    """Return what decides: speed, size, memory, quality, limits and who is beaten."""
    rows, notes = table["rows"], list[str]()
    limited, scored = any(row["limits"] for row in rows), _scored(table)

    def texts(row: Row) -> Iterator[Cell]:
        yield from (Cell(row["label"]), _choice(row, table["recommendation"], notes))
        if limited:
            yield judgement(row["limits"])
        yield _front(row)
        if scored:
            yield Cell(row["word"] or UNKNOWN)

    heads = ("engine, quantization", "decision", *(["limits"] * limited), "dominated by", *(["quality"] * scored))
    offered = [column for column in (*DECISION, *(DECISION_QUALITY if scored else ())) if wide or not column.wide]
    columns = _shown(offered, [row["values"] for row in rows])
    return _table("Decision", heads, columns, ((texts(row), row["values"]) for row in rows), notes)


def _scored(table: dict[str, Any]) -> bool:
    return any(_has(row["values"][name]) for row in table["rows"] for name in ("kl_mean", "top1_agreement"))


def engines(tables_of: Sequence[dict[str, Any]], *, with_model: bool = False) -> Table:
    """Return what each engine takes before any load: bits, sizes, memory, start."""
    rows = [(table["model"] if with_model else "", row) for table in tables_of for row in table["rows"]]
    columns = _shown(ENGINE, [row["values"] for _, row in rows])
    lines = (
        ((Cell(dotted((model, row["label"]))), Cell(row["loaded_level"] or UNKNOWN)), row["values"])
        for model, row in (rows if columns else ())
    )
    return _table("Size, memory and startup", ("engine, quantization", "as loaded"), columns, lines, [])


def single_engines(data: ReportData) -> Table:
    """Return the same for models with one row, for which there is nothing to decide."""
    alone = [table for table in data.decisions if len(table["rows"]) == 1]
    return engines(alone, with_model=True)


def loads(table: dict[str, Any]) -> Table:
    """Return every row under every load."""
    under = [
        (name, row, row["loads"][name] | _success(row["loads"][name]))
        for name in table["loads"]
        for row in table["rows"]
        if row["loads"].get(name)
    ]
    columns = _shown(UNDER_LOAD, [values for _, _, values in under])
    lines = (
        ((Cell(name), Cell(row["label"]), data_quality(row["validity"][name])), values)
        for name, row, values in under
        if name in row["validity"]
    )
    return _table("Under each load", ("load", "engine, quantization", "data"), columns, lines, [])


def _table(
    title: str,
    heads: Sequence[str],
    columns: Sequence[Column],
    rows: Iterable[tuple[Iterable[Cell], dict[str, Any]]],
    notes: list[str],
) -> Table:
    """Return a table of rows, each with its texts and the values of its columns."""
    lines = [(*texts, *(_value(values[one.name], one, notes) for one in columns)) for texts, values in rows]
    about = (*[""] * len(heads), *(ABOUT.get(one.name, one.name) for one in columns))
    return Table(title, (*heads, *(one.head for one in columns)), lines, notes, len(heads), about)


def _success(values: dict[str, Any]) -> dict[str, Any]:
    """Return the share that succeeded, from the share that did not."""
    failed = values.get("error_rate")
    if failed is None or failed["value"] is None:
        return {"success": failed or {}}
    ends = {new: None if failed[old] is None else 1 - failed[old] for new, old in (("low", "high"), ("high", "low"))}
    return {"success": failed | {"value": 1 - failed["value"]} | ends}


def _has(value: dict[str, Any]) -> bool:
    return bool(value) and (value["value"] is not None or value["bound"] != "point")


def _shown(columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> list[Column]:
    return [one for one in columns if not one.optional or any(_has(row[one.name]) for row in rows)]


def _value(value: dict[str, Any], column: Column, notes: list[str]) -> Cell:
    numbers = {name: math.nan if value[name] is None else value[name] for name in ("value", "low", "high")}
    shown = measured(numbers | {"bound": value["bound"]}, column.show)
    told_of_bounds = column.show == "bytes" or column.name == "kl_mean"
    if value["reason"] and (shown.text == UNKNOWN or value["bound"] == "point" or told_of_bounds):
        return replace(shown, note=noted(notes, value["reason"]))
    return shown


def _choice(row: Row, advice: dict[str, Any], notes: list[str]) -> Cell:
    if row["status"] != "complete" and not row["chosen"]:
        reason = row["reason"] or "no reason was recorded"
        return replace(judgement(row["status"]), note=noted(notes, reason))
    if row["chosen"]:
        word = {"choice": "recommended", "tie": "tie", "front": "Pareto-optimal"}[advice["outcome"]]
        return Cell(word, tone={"choice": "good", "tie": "doubtful"}.get(advice["outcome"], ""))
    if row["label"] == advice["closest"]:
        return Cell("closest", tone="doubtful")
    if any(one["label"] == row["label"] for one in advice["out"]):
        return Cell("rejected")
    return Cell("meets limits" if advice["outcome"] in ("choice", "tie") else "")


def _front(row: Row) -> Cell:
    """Return whether another row is at least as good in everything and clearly better in something."""
    if row["front"] is None:
        return Cell(UNKNOWN)
    if row["front"]:
        return Cell("none")
    first, more = row["beaten_by"][0], len(row["beaten_by"]) - 1
    return Cell(first, detail=f"and {more} more" if more else "")
