"""`harness compare`: two stored runs, number by number, with a verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from harness.cli.options import AsJson, FailOn, Inconclusive, check_inconclusive
from harness.cli.output import table_console
from harness.errors import ExitCode, UsageError, first_that_applies

if TYPE_CHECKING:
    from harness.scenario.margins import Margin

_RUNS = "The baseline, then runs: folder, name, latest, latest~1, or KEY=VALUE of a label. Or the folder of a gate."
_ACROSS = "Allow a difference: hardware, model, engine, quantization, load, driver, clock; repeatable."
_FORMATS = ("md", "json", "csv")


def compare(
    runs: Annotated[list[str], typer.Argument(help=_RUNS, show_default=False)],
    fail_on: FailOn = [],  # noqa: B006
    across: Annotated[list[str], typer.Option("--across", metavar="KIND", help=_ACROSS)] = [],  # noqa: B006
    inconclusive: Inconclusive = "fail",
    formats: Annotated[list[str], typer.Option("--format", metavar="NAME", help="Files: md, json, csv.")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Folder for the files. [default: here]")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare stored runs with a baseline: regressed, improved, unchanged, or cannot tell."""
    margins, kinds = parse_margins(fail_on), _kinds(across)
    fails = check_inconclusive(inconclusive)
    wanted = _wanted(formats)
    gate = _gate(runs[0], fails=fails) if len(runs) == 1 else None
    if len(runs) < 2 and gate is None:
        raise UsageError(f"name a baseline and a run, such as `harness compare {runs[0]} latest`")
    found = [gate] if gate is not None else [_compared(runs[0], head, margins, kinds, fails=fails) for head in runs[1:]]
    for number, data in enumerate(found, 1):
        store(data, wanted, out or Path(), "" if len(found) == 1 else f"-{number}")
    shown(found, table_console(), as_json=as_json)
    raise typer.Exit(first_that_applies(ExitCode(data["exit_code"]) for data in found))


def _gate(name: str, *, fails: bool) -> dict[str, Any] | None:
    """Return the comparison of a stored gate; None if the folder is none."""
    from harness.comparison.gate import STATE, Gate, judged
    from harness.comparison.plain import as_data

    folder = Path(name)
    if not (folder / STATE).exists():
        return None
    return as_data(judged(Gate.read(folder), folder).comparison, inconclusive_fails=fails)


def _compared(
    base: str, head: str, margins: Sequence[Margin], across: frozenset[str], *, fails: bool
) -> dict[str, Any]:
    from harness.comparison.comparison import compare as compare_sides
    from harness.comparison.plain import as_data
    from harness.comparison.sides import read_side
    from harness.store.run import find_run

    statistics = {(one.metric, one.statistic) for one in margins if one.statistic != "value"}
    sides = [read_side(name, find_run(name), statistics) for name in (base, head)]
    return as_data(compare_sides(sides[0], sides[1], margins, across), inconclusive_fails=fails)


def parse_margins(texts: Sequence[str]) -> list[Margin]:
    """Return the margins of `--fail-on`. Raises UsageError for a text that is none."""
    from harness.scenario.margins import parse_margin

    try:
        return [parse_margin(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"--fail-on: {error}") from error


def _kinds(across: Sequence[str]) -> frozenset[str]:
    from harness.comparison.differences import MUST_MATCH
    from harness.scenario.base import near

    kinds = [kind for text in across for kind in text.split(",")]
    for kind in kinds:
        if kind not in MUST_MATCH:
            raise UsageError(f"--across {kind}: {near(kind, MUST_MATCH)}")
    return frozenset(kinds)


def _wanted(formats: Sequence[str]) -> list[str]:
    names = [name for text in formats for name in text.split(",")]
    for name in names:
        if name not in _FORMATS:
            raise UsageError(f"--format {name}: known are {', '.join(_FORMATS)}")
    return names


def store(data: dict[str, Any], formats: Sequence[str], folder: Path, suffix: str = "") -> None:
    """Write the files of a comparison. Raises StorageFailed if one cannot be written."""
    from harness.store.streams import storage_errors
    from reports.writers import comparison

    renderers = {"md": comparison.as_markdown, "json": _as_json, "csv": comparison.as_csv}
    for name in formats:
        file = folder / f"comparison{suffix}.{name}"
        with storage_errors(file):
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(renderers[name](data), encoding="utf-8", newline="\n")


def shown(found: Sequence[dict[str, Any]], console: Console, *, as_json: bool) -> None:
    """Print comparisons, or their data as JSON."""
    if as_json:
        print(_as_json(found[0]) if len(found) == 1 else json.dumps([*found], indent=2), end="")
        return
    from reports.writers import comparison

    for data in found:
        comparison.show(data, console)


def _as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
