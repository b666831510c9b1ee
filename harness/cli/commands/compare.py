"""`harness compare`: two stored runs, number by number, with a verdict."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from harness.cli.options import AsJson, FailOn, Inconclusive, check_inconclusive, machines_of
from harness.cli.output import say, table_console
from harness.errors import ExitCode, RunUnreadable, UsageError, first_that_applies

if TYPE_CHECKING:
    from harness.comparison.comparison import Comparison
    from harness.comparison.sides import Side
    from harness.scenario.margins import Margin
    from reports.plots.comparison import Curves

_RUNS = (
    "The baseline, then runs: folder, name, latest~1, baseline:NAME, KEY=VALUE of a label, or a result file of vllm "
    "bench, AIPerf, GuideLLM, SGLang or llm-d. Or the folder of a gate."
)
_ACROSS = "Allow a difference: hardware, model, engine, quantization, load, driver, clock; repeatable."
_BY = "Compare within one run: model, engine, quantization, variant or load."
_AGAINST = "With --by: the value that is the baseline. [default: the first]"
_FILES = "Files: html, md, json, csv, junit."
_PRICES = "With --across hardware: YAML file with prices of machines, added to the shipped ones."
_INSTANCE = "With --across hardware: RUN=NAME of its machine. [default: `instance` of each scenario]"
_FORMATS = ("html", "md", "json", "csv", "junit")


def compare(
    runs: Annotated[list[str], typer.Argument(help=_RUNS, show_default=False)],
    fail_on: FailOn = [],  # noqa: B006
    across: Annotated[list[str], typer.Option("--across", metavar="KIND", help=_ACROSS)] = [],  # noqa: B006
    by: Annotated[str | None, typer.Option(metavar="KIND", help=_BY)] = None,
    against: Annotated[str | None, typer.Option(metavar="VALUE", help=_AGAINST)] = None,
    inconclusive: Inconclusive = "fail",
    formats: Annotated[list[str], typer.Option("--format", metavar="NAME", help=_FILES)] = [],  # noqa: B006
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help=_PRICES)] = None,
    instance: Annotated[list[str], typer.Option(metavar="RUN=NAME", help=_INSTANCE)] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Folder for the files. [default: here]")] = None,
    opens: Annotated[bool, typer.Option("--open", help="Write comparison.html and show it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare stored runs with a baseline: regressed, improved, unchanged, or cannot tell."""
    margins, kinds = parse_margins(fail_on), check_across(across)
    fails = check_inconclusive(inconclusive)
    wanted = _wanted([*formats, *(["html"] if opens else [])])
    if (prices is not None or instance) and "hardware" not in kinds:
        raise UsageError("--prices and --instance are for machines side by side; add --across hardware")
    unread: list[RunUnreadable] = []
    if by is not None or against is not None:
        found = _of_parts(runs, by, against, margins, kinds, fails=fails)
    elif len(runs) == 1:
        found = [_of_gate(runs[0], fails=fails)]
    else:
        found, unread = _each(runs[0], runs[1:], margins, kinds, fails=fails)
    if "hardware" in kinds:
        add_hardware(found, prices, machines_of(instance, runs))
    for number, told in enumerate(found, 1):
        files = store(told, wanted, out or Path(), "" if len(found) + len(unread) == 1 else f"-{number}")
        if opens:
            webbrowser.open(files["html"].absolute().as_uri())
    shown([told.data for told in found], table_console(), as_json=as_json)
    codes = [*(ExitCode(told.data["exit_code"]) for told in found), *(error.exit_code for error in unread)]
    raise typer.Exit(first_that_applies(codes))


@dataclass(frozen=True, slots=True)
class Told:
    """A comparison as plain data, with the curves behind its pictures."""

    data: dict[str, Any]
    curves: Sequence[Curves]
    sides: tuple[Side, ...] = ()

    @classmethod
    def of(cls, found: Comparison, *, fails: bool) -> Told:
        """Return a comparison for reports. fails: whether "cannot tell" has an exit code of its own."""
        from harness.comparison.plain import as_data

        return cls(as_data(found, inconclusive_fails=fails), _curves(found), (found.base, found.head))


def add_hardware(found: Sequence[Told], prices: Path | None, machines: Mapping[str, str]) -> None:
    """Add to each comparison what its runs measured on their machines, and what that costs there.

    Args:
        machines: Machine of each run by its name; that of all others under "".
    """
    from harness.capacity.hardware import hardware_rows
    from harness.capacity.prices import Pricing, read_catalogue

    catalogue = read_catalogue(prices)
    for told in found:
        told.data["hardware"] = [
            row
            for side in told.sides
            for row in hardware_rows(side, machines.get(side.name, machines.get("")), catalogue, Pricing.ON_DEMAND)
        ]


def _curves(found: Comparison) -> list[Curves]:
    """Return the distributions and times of the loads that both sides have."""
    from reports.plots.comparison import Curves

    curves = []
    for base, head in found.matched:
        sides = {"base": (found.base, base), "head": (found.head, head)}
        both = {name: side.distributions[keys] for name, (side, keys) in sides.items() if keys in side.distributions}
        times = {name: side.times[keys] for name, (side, keys) in sides.items() if keys in side.times}
        curves.append(Curves(base[-1], both, times))
    return curves


def _of_gate(name: str, *, fails: bool) -> Told:
    """Return the comparison of a stored gate. Raises UsageError if the folder is none."""
    from harness.comparison.gate import STATE, Gate, judged

    folder = Path(name)
    if not (folder / STATE).exists():
        one, parts = f"`harness compare {name} latest`", f"`harness compare {name} --by variant`"
        raise UsageError(f"name a baseline and a run, such as {one}, or what to compare within it: {parts}")
    return Told.of(judged(Gate.read(folder), folder).comparison, fails=fails)


def _of_parts(
    runs: Sequence[str],
    by: str | None,
    against: str | None,
    margins: Sequence[Margin],
    across: frozenset[str],
    *,
    fails: bool,
) -> list[Told]:
    """Compare the configurations of one run with one of them, the first unless another is named."""
    from harness.comparison.comparison import compare as compare_sides
    from harness.comparison.parts import pairs_in_turns, parts_of
    from harness.comparison.sides import read_side
    from harness.scenario.base import near
    from harness.store.run import find_run

    if by is None or len(runs) != 1:
        raise UsageError("--by compares the configurations of one run, such as `harness compare latest --by variant`")
    parts = parts_of(read_side(runs[0], find_run(runs[0]), _statistics(margins)), by)
    if against is not None and against not in parts:
        raise UsageError(f"--against {against}: {near(against, parts)}")
    base = parts.pop(against or next(iter(parts)))
    kinds = across | {by}
    return [
        Told.of(compare_sides(base, head, margins, kinds, pairs=pairs_in_turns(base, head)), fails=fails)
        for head in parts.values()
    ]


def compared(base: str, head: str, margins: Sequence[Margin], across: frozenset[str], *, fails: bool) -> Told:
    """Compare two runs or files, as they are named. fails: whether "cannot tell" has an exit code of its own."""
    from harness.comparison.opening import open_side

    statistics = _statistics(margins)
    return _compared(open_side(base, statistics), open_side(head, statistics), margins, across, fails=fails)


def _each(
    base: str, heads: Sequence[str], margins: Sequence[Margin], across: frozenset[str], *, fails: bool
) -> tuple[list[Told], list[RunUnreadable]]:
    """Return the comparison of each head that can be read, and the errors of those that cannot: they are told."""
    from harness.comparison.opening import open_side

    statistics = _statistics(margins)
    one, found, unread = open_side(base, statistics), list[Told](), list[RunUnreadable]()
    for head in heads:
        try:
            other = open_side(head, statistics)
        except RunUnreadable as error:
            if len(heads) == 1:
                raise
            say(f"harness: {error}; skipped")
            unread.append(error)
            continue
        found.append(_compared(one, other, margins, across, fails=fails))
    return found, unread


def _statistics(margins: Sequence[Margin]) -> set[tuple[str, str]]:
    """Return the statistics that margins ask for, of latencies from sent, too."""
    from harness.scenario.margins import statistics_of

    asked = [*margins, *(one.from_sent() for one in margins)]
    return statistics_of(asked)


def _compared(base: Side, head: Side, margins: Sequence[Margin], across: frozenset[str], *, fails: bool) -> Told:
    from harness.comparison.comparison import compare as compare_sides

    return Told.of(compare_sides(base, head, margins, across), fails=fails)


def parse_margins(texts: Sequence[str]) -> list[Margin]:
    """Return the margins of `--fail-on`. Raises UsageError for a text that is none."""
    from harness.scenario.margins import parse_margin

    try:
        return [parse_margin(text) for text in texts]
    except ValueError as error:
        raise UsageError(f"--fail-on: {error}") from error


def check_across(across: Sequence[str]) -> frozenset[str]:
    """Return the kinds of differences that are allowed. Raises UsageError for one that is none."""
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


def store(told: Told, formats: Sequence[str], folder: Path, suffix: str = "") -> dict[str, Path]:
    """Write the files of a comparison; return them by format. Raises StorageFailed if one cannot be written."""
    from harness.store.streams import storage_errors
    from reports.writers import comparison

    renderers = {"md": comparison.as_markdown, "json": _as_json, "csv": comparison.as_csv, "junit": comparison.as_junit}
    files = {}
    for name in formats:
        files[name] = folder / f"comparison{suffix}.{'xml' if name == 'junit' else name}"
        text = comparison.as_html(told.data, told.curves) if name == "html" else renderers[name](told.data)
        with storage_errors(files[name]):
            folder.mkdir(parents=True, exist_ok=True)
            files[name].write_text(text, encoding="utf-8", newline="\n")
    return files


def shown(found: Sequence[dict[str, Any]], console: Console, *, as_json: bool) -> None:
    """Print comparisons, or their data as JSON."""
    if as_json:
        print(_as_json(found[0]) if len(found) == 1 else json.dumps([*found], indent=2), end="")
        return
    from reports.writers import comparison

    comparison.show_hardware(found, console)
    for data in found:
        comparison.show(data, console)


def _as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
