"""`harness history`: nights of measurements in a store, and their series."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import AsJson, Labels
from harness.cli.output import say, table_console
from harness.errors import HarnessError, RunUnreadable, ScenarioError, UsageError, first_that_applies
from reports.format import count, for_terminal

if TYPE_CHECKING:
    from harness.history.series import Series
    from harness.history.store.folder import Store

_HELP = "Keep nights of measurements, and show their series."

history = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)
_RUNS = "Runs or imports: folder, name, latest~1, KEY=VALUE of a label; or result files of other tools."
_AT = "When a result of another tool ran that does not say: 2026-11-30, or 2026-11-30T02:00."
_SCENARIO = "Scenario of a result of another tool. [default: the tool]"
_SERIES = "Number in the list, or words of the name, such as: chat ttft p95 q4_k_m."
_NOTE_AT = (
    "SERIES@DATE: words of the name and the day, such as 'chat ttft p95@2026-11-30'; '@DATE' is about all series."
)
_FILE = "File to write; its ending says how: .csv, .parquet or .json."

Folder = Annotated[
    Path | None,
    typer.Option("--store", metavar="DIR", help="Folder of the history. [default: HARNESS_HISTORY, or history]"),
]


@history.command()
def add(
    runs: Annotated[list[str], typer.Argument(help=_RUNS, show_default=False)],
    folder: Folder = None,
    labels: Labels = [],  # noqa: B006
    at: Annotated[str | None, typer.Option(metavar="DATE", help=_AT)] = None,
    scenario: Annotated[str | None, typer.Option(metavar="NAME", help=_SCENARIO)] = None,
    as_json: AsJson = False,
) -> None:
    """Add the numbers of runs. Adding a run twice changes nothing."""
    from harness.history.store.intake import night_of

    named, moment = _labels(labels), None if at is None else _moment(at)
    store, failed = _for_adding(_place(folder))
    added = list[dict[str, Any]]()
    for run in runs:
        try:
            night = night_of(run, store.settings.selection, named, at=moment, scenario=scenario)
        except (RunUnreadable, UsageError) as error:
            if len(runs) == 1 and not failed:
                raise
            say(f"harness: {error}; skipped")
            failed.append(error)
            continue
        new = store.add(night)
        numbers = count(len(night.rows), "number")
        there = f"added {numbers} of {night.run}" if new else f"{night.run} is there already, with {numbers}"
        say(f"{there}: night of {night.at:%Y-%m-%d %H:%M} UTC in {store.folder}")
        added.append({"run": night.run, "at": night.at.isoformat(), "numbers": len(night.rows), "new": new})
    if as_json:
        print(json.dumps({"store": str(store.folder), "added": added}, indent=2, ensure_ascii=False))
    raise typer.Exit(first_that_applies(error.exit_code for error in failed))


@history.command(name="list")
def list_(
    name: Annotated[list[str] | None, typer.Argument(metavar="[SERIES]", help=f"{_SERIES} [default: all]")] = None,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """List all series with their nights, or those that some words name."""
    from harness.history.plain import overview

    _, series = _opened(folder)
    data = overview(series, _places(name, series))
    if as_json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
        return
    from reports import history as tables

    if data["shared"]:
        print(for_terminal(f"all: {data['shared']}"))
    _print(tables.overview(data), ("first", "last nights", "nights", "last"))


@history.command()
def show(
    name: Annotated[list[str], typer.Argument(metavar="SERIES", help=_SERIES, show_default=False)],
    folder: Folder = None,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="Show the last N nights.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show the nights of a series, with what is known of each."""
    from harness.history.names import the_one
    from harness.history.plain import nights

    store, series = _opened(folder)
    place = the_one(" ".join(name), [one.key for one in series])
    data = nights(series[place], place + 1, store.settings.release, last)
    if as_json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
        return
    from reports import history as tables

    print(for_terminal(f"{data['name']}{' (control)' if data['control'] else ''}"))
    values = [point["value"] for point in data["points"]]
    print(for_terminal(f"{tables.sparkline(values)}  {tables.runs_text(data)}, {data['better']} is better"))
    _print(tables.nights(data), ("95 % interval", "label", "change"))


@history.command()
def export(
    file: Annotated[Path, typer.Argument(help=_FILE, show_default=False)],
    name: Annotated[list[str] | None, typer.Argument(metavar="[SERIES]", help=f"{_SERIES} [default: all]")] = None,
    folder: Folder = None,
) -> None:
    """Write the nights of all series, or of those that some words name, for other programs."""
    from harness.history.export import KINDS
    from harness.history.export import export as write

    if file.suffix.removeprefix(".") not in KINDS:
        raise UsageError(
            f"{file}: the ending says how to write it; end it with .{', .'.join(KINDS[:-1])} or .{KINDS[-1]}"
        )
    _, series = _opened(folder)
    series = [series[place] for place in _places(name, series)]
    nights = write(series, file)
    say(f"wrote {count(nights, 'night')} of {len(series)} series to {file}")


@history.command()
def note(
    where: Annotated[str, typer.Argument(metavar="SERIES@DATE", help=_NOTE_AT, show_default=False)],
    text: Annotated[str, typer.Argument(help="What happened that night.", show_default=False)],
    folder: Folder = None,
    every: Annotated[bool, typer.Option("--all", help="Note it on all series that fit.")] = False,
) -> None:
    """Note what happened on a night. A change that has a note is known, and is not told again."""
    from harness.history.names import fitting, the_one
    from harness.history.store.notes import key_facts

    name, sign, day = where.rpartition("@")
    if not sign or not text.strip():
        raise UsageError(f"{where}: write SERIES@DATE and a text, such as: 'ttft p95@2026-11-30' \"new driver\"")
    _moment(day)
    store, series = _opened(folder)
    keys = [one.key for one in series]
    if name.strip():
        places = fitting(name, keys) if every else [the_one(name, keys)]
        about = [(series[place], key_facts(keys[place])) for place in places]
    else:
        about = [(one, {}) for one in series]
    _check_night(day, [one for one, _ in about])
    facts = [{}] if not name.strip() else [facts for _, facts in about]
    for each in facts:
        store.note(day, " ".join(text.split()), each, _user())
    said = "all series" if not name.strip() else count(len(facts), "series").removesuffix("s") + "s"
    say(f"noted on {said}: {day} {text}")


def _places(name: Sequence[str] | None, series: Sequence[Series]) -> Sequence[int]:
    """Return the places of the series that some words fit; of all without words. Raises UsageError if none fit."""
    from harness.history.names import fitting

    if not name:
        return range(len(series))
    if not (found := fitting(" ".join(name), [one.key for one in series])):
        raise UsageError(f"there is no series {' '.join(name)!r}; `harness history list` shows all {len(series)}")
    return found


def _check_night(day: str, series: Sequence[Series]) -> None:
    """Raise UsageError for a day on which no series has a night: it is likely mistyped."""
    wanted = _moment(day).date()
    days = sorted({point.at.date() for one in series for point in one.points})
    if not days:
        raise UsageError("no series fits; `harness history list` shows all")
    if wanted not in days:
        nearest = sorted(sorted(days, key=lambda one: abs(one - wanted))[:3])
        raise UsageError(f"no night of {wanted}; the nearest are {', '.join(map(str, nearest))}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _for_adding(folder: Path) -> tuple[Store, list[HarnessError]]:
    """Return a store, and the error of wrong settings: the usual numbers are stored nevertheless."""
    from harness.history.store.folder import Store
    from harness.history.store.settings import Settings

    try:
        return Store.made(folder), []
    except ScenarioError as error:
        say(f"harness: {error}; the usual numbers are stored")
        return Store(folder, Settings.model_validate({})), [error]


def _opened(folder: Path | None) -> tuple[Store, list[Series]]:
    """Return a store and its series. Files that cannot be read are told on standard error, and skipped."""
    from harness.history.store.folder import Store

    store = Store.open(_place(folder))
    series = store.series()
    for why in store.damage:
        say(f"harness: {why}")
    if not series:
        raise UsageError(f"there is no night in {store.folder} yet; `harness history add latest` adds one")
    return store, series


def _place(folder: Path | None) -> Path:
    from harness.history.store.folder import default_folder

    return folder or default_folder()


def _moment(text: str) -> Any:
    from harness.history.store.notes import moment

    try:
        return moment(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _labels(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise UsageError(f"--label {text}: write KEY=VALUE, such as commit=abc")
        found[name.strip()] = value
    return found


def _print(table: Any, left_out: Sequence[str]) -> None:
    """Print a table as wide as the terminal; without room the columns of `left_out` are missing."""
    from reports.writers.grid import grid_of_table

    console = table_console()
    for line in grid_of_table(table, console.width, left_out, "--json"):
        console.print(line, no_wrap=True, overflow="crop")
