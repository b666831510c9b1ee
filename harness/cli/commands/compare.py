"""`harness compare`: two stored runs, number by number, with a verdict."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from harness.cli.options import AsJson, FailOn, Inconclusive, check_inconclusive, machines_of
from harness.cli.output import say, table_console
from harness.errors import ExitCode, HarnessError, RunUnreadable, UsageError, first_that_applies

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
_BY = "Compare within one run: model, engine, quantization, variant or load. Or runs by a label: label:KEY."
_AGAINST = "With --by: the value that is the baseline. [default: the first]"
_FILES = "Files: html, md, json, csv, junit."
_PRICES = "With --across hardware: YAML file with prices of machines, added to the shipped ones."
_INSTANCE = "With --across hardware: RUN=NAME of its machine. [default: `instance` of each scenario]"
_LABEL = "label:"
MOST_IN_FULL = 8
"""Comparisons with a baseline that are printed one by one; more of them are lines of one list."""
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
    short = by is None and len(runs) > MOST_IN_FULL + 1 and not (wanted or as_json)
    how = How(tuple(margins), kinds, fails=fails, pictures="html" in wanted, others=not short)
    unread: Sequence[HarnessError] = []
    if by is not None and by.startswith(_LABEL):
        found, unread = _of_labels(runs, by.removeprefix(_LABEL), against, how)
    elif by is not None or against is not None:
        found = _of_parts(runs, by, against, how)
    elif len(runs) == 1:
        found = [_of_gate(runs[0], how)]
    else:
        found, unread = _each(runs[0], runs[1:], how)
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
    from harness.prices.catalogue import read_catalogue
    from harness.scenario.plan import Pricing

    catalogue = read_catalogue(prices)
    for told in found:
        told.data["hardware"] = [
            row
            for side in told.sides
            for row in hardware_rows(side, machines.get(side.name, machines.get("")), catalogue, Pricing.ON_DEMAND)
        ]


def _curves(found: Comparison) -> list[Curves]:
    """Return the distributions and times of the loads that both sides have."""
    if not (found.base.distributions or found.head.distributions):
        return []  # nobody asked for pictures
    from reports.comparison import loads_of
    from reports.data import KEYS
    from reports.plots.comparison import Curves

    curves = []
    loads = loads_of([dict(zip(KEYS, base, strict=True)) for base, _ in found.matched])
    for (base, head), load in zip(found.matched, loads, strict=True):
        sides = {"base": (found.base, base), "head": (found.head, head)}
        both = {name: side.distributions[keys] for name, (side, keys) in sides.items() if keys in side.distributions}
        times = {name: side.times[keys] for name, (side, keys) in sides.items() if keys in side.times}
        curves.append(Curves(load, both, times))
    return curves


def _of_gate(name: str, how: How) -> Told:
    """Return the comparison of a stored gate; margins that are named replace its own, and kinds are added to its own.

    Raises UsageError if the folder is none.
    """
    from harness.comparison.gate import STATE, Gate, judged

    folder = Path(name)
    if not (folder / STATE).exists():
        one, parts = f"`harness compare {name} latest`", f"`harness compare {name} --by variant`"
        raise UsageError(f"name a baseline and a run, such as {one}, or what to compare within it: {parts}")
    gate = Gate.read(folder)
    fail_on = tuple(one.text for one in how.margins) or gate.fail_on
    asked = replace(gate, fail_on=fail_on, across=tuple(sorted({*gate.across, *how.across})))
    return Told.of(judged(asked, folder).comparison, fails=how.fails)


@dataclass(frozen=True, slots=True)
class How:
    """How sides are compared.

    Attributes:
        across: Kinds of differences that are meant.
        fails: Whether "cannot tell" has an exit code of its own.
        pictures: Whether pictures are drawn.
        others: Whether numbers that do not gate are compared too.
    """

    margins: tuple[Margin, ...] = ()
    across: frozenset[str] = frozenset()
    fails: bool = True
    pictures: bool = True
    others: bool = True

    @property
    def statistics(self) -> set[tuple[str, str]]:
        """Statistics that the margins ask for, of latencies from sent, too."""
        from harness.scenario.margins import statistics_of

        return statistics_of([*self.margins, *(one.from_sent() for one in self.margins)])

    def compared(self, base: Side, head: Side, *, pairs: int = 0) -> Told:
        """Compare two sides. pairs: starts of both that took turns."""
        from harness.comparison.comparison import compare as compare_sides

        found = compare_sides(base, head, self.margins, self.across, pairs=pairs, others=self.others)
        return Told.of(found, fails=self.fails)

    def prepare(self, names: Sequence[str]) -> None:
        """Derive many runs at once, on all cores, if what is kept of them can serve."""
        from harness.comparison.ahead import derive_ahead, lacking, processes_for

        if self.pictures or not processes_for(len(names)):
            return
        runs = lacking(names)
        if processes := processes_for(len(runs)):
            say(f"harness: deriving {len(runs):,} runs for the first time, on {processes} cores")
            derive_ahead(runs, processes)

    def opened(self, name: str) -> Side:
        """Read a run or a file, as it is named."""
        from harness.comparison.opening import open_side

        return open_side(name, self.statistics, pictures=self.pictures)


def _of_parts(runs: Sequence[str], by: str | None, against: str | None, how: How) -> list[Told]:
    """Compare the configurations of one run with one of them, the first unless another is named."""
    from harness.comparison.parts import parts_of
    from harness.comparison.sides import read_side
    from harness.store.run import find_run

    if by is None or len(runs) != 1:
        raise UsageError("--by compares the configurations of one run, such as `harness compare latest --by variant`")
    side = read_side(runs[0], find_run(runs[0]), how.statistics, pictures=how.pictures)
    return _with_one(parts_of(side, by), against, replace(how, across=how.across | {by}))


def _of_labels(runs: Sequence[str], key: str, against: str | None, how: How) -> tuple[list[Told], list[RunUnreadable]]:
    """Compare the runs of each value of a label with those of one, the first unless another is named."""
    from harness.comparison.labels import by_label

    how.prepare(runs)
    sides, unread = _readable(runs, how)
    groups, without = by_label(sides, key, how.across)
    for side in without:
        say(f"harness: {side.name} has no label {key}; left out")
    return _with_one(groups, against, how), unread


def _with_one(sides: dict[str, Side], against: str | None, how: How) -> list[Told]:
    """Compare sides with one of them; starts that took turns are pairs. Raises UsageError if none has its name."""
    from harness.comparison.parts import pairs_in_turns
    from harness.scenario.base import near

    if against is not None and against not in sides:
        raise UsageError(f"--against {against}: {near(against, sides)}")
    base = sides.pop(against or next(iter(sides)))
    return [how.compared(base, head, pairs=pairs_in_turns(base, head)) for head in sides.values()]


def compared(base: str, head: str, margins: Sequence[Margin], across: frozenset[str], *, fails: bool) -> Told:
    """Compare two runs or files, as they are named. fails: whether "cannot tell" has an exit code of its own."""
    how = How(tuple(margins), across, fails=fails)
    return how.compared(how.opened(base), how.opened(head))


def _each(base: str, heads: Sequence[str], how: How) -> tuple[list[Told], list[HarnessError]]:
    """Return the comparison of each head, and the errors of those of several that cannot be compared: they are told."""
    how.prepare([base, *heads])
    one = how.opened(base)
    if len(heads) == 1:
        return [how.compared(one, how.opened(heads[0]))], []
    found: list[Told] = []
    skipped: list[HarnessError] = []
    for head in heads:
        sides, errors = _readable([head], how)
        skipped += errors
        try:
            found += [how.compared(one, side) for side in sides]
        except UsageError as error:
            say(f"harness: {head} is skipped: {error}")
            skipped.append(error)
    return found, skipped


def _readable(names: Sequence[str], how: How) -> tuple[list[Side], list[RunUnreadable]]:
    """Return the sides that can be read, and the errors of those that cannot: they are told."""
    sides: list[Side] = []
    unread: list[RunUnreadable] = []
    for name in names:
        try:
            sides.append(how.opened(name))
        except RunUnreadable as error:
            say(f"harness: {error}; skipped")
            unread.append(error)
    return sides, unread


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
    from reports.files import replace as replace_file
    from reports.writers import comparison

    renderers = {"md": comparison.as_markdown, "json": _as_json, "csv": comparison.as_csv, "junit": comparison.as_junit}
    files = {}
    for name in formats:
        files[name] = folder / f"comparison{suffix}.{'xml' if name == 'junit' else name}"
        text = comparison.as_html(told.data, told.curves) if name == "html" else renderers[name](told.data)
        with storage_errors(files[name]):
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(files[name], text)
    return files


def shown(found: Sequence[dict[str, Any]], console: Console, *, as_json: bool) -> None:
    """Print comparisons, or their data as JSON."""
    if as_json:
        print(_as_json(found[0]) if len(found) == 1 else json.dumps([*found], indent=2), end="")
        return
    from reports.writers import comparison

    comparison.show_hardware(found, console)
    if len(found) > MOST_IN_FULL:
        comparison.show_many(found, console)
        return
    for data in found:
        comparison.show(data, console)


def _as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
