"""Tables of the decision: engines and levels of a model side by side, with the recommendation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.choice import FATES, against, numbers
from reports.data import ReportData
from reports.format import UNKNOWN, dotted
from reports.labels import DECISION, DECISION_QUALITY, ENGINE, UNDER_LOAD, Column
from reports.tables.base import Cell, Table, data_quality, judgement, measured, noted

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """Comparison of the engines and levels of one model.

    Attributes:
        advice: The recommendation, and the reasons against the others.
        remarks: Explanations of the numbers.
    """

    title: str
    model: str
    advice: list[str]
    tables: list[Table]
    remarks: list[str]


ABOUT = {"ttft_p95_ms": "ttft_ms", "tpot_p95_ms": "tpot_ms", "e2e_p95_ms": "e2e_ms", "success": "error_rate"}
"""Metrics of columns that have another name."""


def decisions(data: ReportData) -> list[dict[str, Any]]:
    """Return the tables of models with several rows, and with load to compare them by."""
    return [table for table in data.decisions if len(table["rows"]) > 1 and table["loads"]]


def of_models(data: ReportData, *, wide: bool = True) -> list[Decision]:
    """Return the decision of each model; wide: with every column and a table of the loads."""
    found = []
    for table in decisions(data):
        tables = (choice(table, wide=wide), engines([table]), *([loads(table)] if wide else []))
        shown = [one for one in tables if one.rows]
        found.append(Decision(_title(data, table), table["model"], _advice(table), shown, _remarks(table)))
    return found


def _title(data: ReportData, table: dict[str, Any]) -> str:
    """Return a title with the model if there are several, and with the engine if it is the only one."""
    engines = {row["engine"] for row in table["rows"]}
    about = dotted([table["model"] if len(data.decisions) > 1 else "", *(engines if len(engines) == 1 else ())])
    what = "Which quantization" if len(engines) == 1 else "Which engine and quantization"
    return f"{what}: {about}" if about else what


def _advice(table: dict[str, Any]) -> list[str]:
    advice = table["recommendation"]
    return [advice["sentence"], *against(advice["out"])]


def _remarks(table: dict[str, Any]) -> list[str]:
    found = [f"Speed: {table['speed']['text']}."]
    if table["reference"]:
        found.append(f"Reference: {table['reference']['label']}, {table['reference']['why']}.")
        ratios = [row["values"]["speed_ratio"] for row in table["rows"]]
        methods = {ratio["source"] for ratio in ratios if ratio["value"] is not None} - {"", "the reference"}
        found += [f"Ratio of speeds: {method}." for method in sorted(methods)]
    found.append(
        "Dominated: another configuration is no worse in speed, memory and quality, and significantly better in one. "
        "Filled marks in the picture are not dominated (Pareto-optimal)."
    )
    return [*found, *(f"{note[0].upper()}{note[1:]}." for note in table["notes"])]


def choice(table: dict[str, Any], *, wide: bool = True) -> Table:
    """Return speed, size, memory, quality, limits and dominance of each row."""
    rows, notes = table["rows"], list[str]()
    limited = any(row["limits"] for row in rows)
    scored = any(_has(row["values"][name]) for row in rows for name in ("kl_mean", "top1_agreement"))

    def texts(row: Row) -> Iterator[Cell]:
        yield from (Cell(row["label"]), _choice(row, table["recommendation"], notes))
        if limited:
            yield judgement(row["limits"])
        yield _dominating(row)
        if scored:
            yield Cell(row["word"] or UNKNOWN)

    heads = ("configuration", "decision", *(["limits"] * limited), "dominated by", *(["quality"] * scored))
    offered = [column for column in (*DECISION, *(DECISION_QUALITY if scored else ())) if wide or not column.wide]
    columns = _shown(offered, [row["values"] for row in rows])
    return _table("Decision", heads, columns, ((texts(row), row["values"]) for row in rows), notes)


def engines(tables_of: Sequence[dict[str, Any]], *, with_model: bool = False) -> Table:
    """Return the needs of each engine before any load: bits, sizes, memory, startup."""
    rows = [(table["model"] if with_model else "", row) for table in tables_of for row in table["rows"]]
    columns = _shown(ENGINE, [row["values"] for _, row in rows])
    lines = (
        ((Cell(dotted((model, row["label"]))), Cell(row["loaded_level"] or UNKNOWN)), row["values"])
        for model, row in (rows if columns else ())
    )
    return _table("Size, memory and startup", ("configuration", "as loaded"), columns, lines, [])


def single_engines(data: ReportData) -> Table:
    """Return the needs of engines of models with one row, which have no decision."""
    return engines([table for table in data.decisions if len(table["rows"]) == 1], with_model=True)


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
    return _table("Under each load", ("load", "configuration", "data"), columns, lines, [])


def _table(
    title: str,
    heads: Sequence[str],
    columns: Sequence[Column],
    rows: Iterable[tuple[Iterable[Cell], dict[str, Any]]],
    notes: list[str],
) -> Table:
    """Return a table; each row has its texts, and values by the names of columns."""
    lines = [(*texts, *(_value(values[one.name], one, notes) for one in columns)) for texts, values in rows]
    about = (*[""] * len(heads), *(ABOUT.get(one.name, one.name) for one in columns))
    return Table(title, (*heads, *(one.head for one in columns)), lines, notes, len(heads), about)


def _success(values: dict[str, Any]) -> dict[str, Any]:
    """Return the share of successes, from the share of errors."""
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
    """Return a number, in brackets if it is invalid; a footnote has the reason."""
    if not value:
        return Cell(UNKNOWN)
    shown = measured(numbers(value), column.show)
    if value["invalid"]:
        shown = replace(shown, text=f"({shown.text})", tone="bad")
    return replace(shown, note=noted(notes, value["reason"])) if value["reason"] else shown


def _choice(row: Row, advice: dict[str, Any], notes: list[str]) -> Cell:
    if row["status"] != "complete" and not row["chosen"]:
        return replace(judgement(row["status"]), note=noted(notes, row["reason"] or "no reason was recorded"))
    if row["chosen"]:
        alone = len(advice["chosen"]) == 1
        word = "recommended" if alone else "tie" if advice["outcome"] == "tie" else "Pareto-optimal"
        return Cell(word, tone={"recommended": "good", "tie": "doubtful"}.get(word, ""))
    if row["label"] == advice["closest"]:
        return Cell("closest", tone="doubtful")
    fate = next((FATES[one["cause"]] for one in advice["out"] if one["label"] == row["label"]), "")
    return Cell(fate or ("meets limits" if advice["outcome"] in ("choice", "tie") else ""))


def _dominating(row: Row) -> Cell:
    """Return the first row that dominates a row, and the number of further ones."""
    if row["front"] is None:
        return Cell(UNKNOWN)
    if row["front"]:
        return Cell("none")
    first, more = row["beaten_by"][0], len(row["beaten_by"]) - 1
    return Cell(first, detail=f"and {more} more" if more else "")
