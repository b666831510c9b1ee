"""`harness baseline`: keep runs under names, for comparisons with later ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.output import say
from harness.errors import RunUnreadable, UsageError
from harness.units import format_bytes
from reports.format import for_terminal

if TYPE_CHECKING:
    from harness.store.baselines import Kept

baseline = typer.Typer(help="Keep runs as baselines.", no_args_is_help=True, rich_markup_mode=None)
_NAME = "Name of a baseline, such as main."
_RUN = "Folder or name of a run, latest, or KEY=VALUE of a label."
_EXACT = "NAME if it has one run, NAME/RUN as `harness baseline list` shows it, or NAME with --all or --keep."

Folder = Annotated[
    Path | None, typer.Option("--dir", help="Folder of the baselines. [default: HARNESS_BASELINES, or baselines]")
]


@baseline.command(name="set")
def set_(
    name: Annotated[str, typer.Argument(help=_NAME, show_default=False)],
    run: Annotated[str, typer.Argument(help=_RUN, show_default=False)],
    folder: Folder = None,
) -> None:
    """Keep a run as the baseline of a name; the ones before stay as its history."""
    from harness.comparison.baseline import keep
    from harness.store.baselines import check_name
    from harness.store.run import find_run

    check_name(name)
    kept = keep(name, find_run(run), _folder(folder))
    say(f"kept {kept.path} ({format_bytes(kept.size_bytes)}); compare with it: harness compare baseline:{name} latest")


@baseline.command(name="list")
def list_(folder: Folder = None) -> None:
    """List the baselines with their history, the newest first."""
    from harness.store.baselines import history, names

    place = _folder(folder)
    kept = [one for name in names(place) for one in reversed(history(name, place))]
    before = ""
    for one in kept:
        print(for_terminal(f"{one.name if one.name != before else '':<20}  {_line(one)}".rstrip()))
        before = one.name
    if not kept:
        say(f"there is no baseline in {place}/; make one with `harness baseline set main latest`")
    for one in kept:
        if one.damaged:
            say(f"harness: {one.path} cannot be used: {one.damaged}")


@baseline.command(name="show")
def show(
    name: Annotated[str, typer.Argument(help=f"{_NAME[:-1]}, main~1 or main/RUN.", show_default=False)],
    folder: Folder = None,
) -> None:
    """Show what a baseline was measured with."""
    from harness.store.baselines import find
    from harness.store.run import Run

    one = find(name, _folder(folder))
    manifest = Run.open(one.path).manifest
    loads = dict.fromkeys(trial.load for _, trial in manifest.trials())
    machine = manifest.provenance.must_match
    facts = {
        "baseline": one.reference,
        "folder": str(one.path),
        "size": format_bytes(one.size_bytes),
        "set": f"{one.set_utc:%Y-%m-%d %H:%M} UTC",
        "run": one.run,
        "measured": str(manifest.created_utc or ""),
        "scenario": manifest.name,
        "labels": " ".join(f"{key}={value}" for key, value in manifest.labels.items()),
        "loads": ", ".join(loads),
        "machine": f"{machine.cpu or ''}, {machine.usable_cores or machine.cores or '?'} cores".strip(", "),
        "harness": str(manifest.harness_version or ""),
        "command": str(manifest.command or ""),
    }
    for key, value in facts.items():
        if value:
            print(for_terminal(f"{key:<10}{value}"))


@baseline.command(name="rm")
def rm(
    name: Annotated[str, typer.Argument(help=_EXACT, show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="Remove the name with its whole history.")] = False,
    newest: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=1, help="Remove all runs of the name but the newest N.")
    ] = None,
    folder: Folder = None,
) -> None:
    """Remove a baseline, exactly as it is named."""
    from harness.store.baselines import history, named, remove
    from harness.store.streams import storage_errors

    place = _folder(folder)
    if "~" in name or ("/" in name and (everything or newest)) or (everything and newest):
        raise UsageError(
            f"{name}: name one run as `harness baseline list` does, NAME/RUN, or NAME with --all or --keep"
        )
    one = named(name, place)
    kept = history(one.name, place)
    if "/" not in name and len(kept) > 1 and not (everything or newest):
        what = f"name one, such as {kept[-1].reference}, or remove all of them with --all"
        raise UsageError(f"{name} has {len(kept)} runs: {what}")
    gone = kept[:-newest] if newest else kept if everything else [one]
    with storage_errors(place):
        remove(gone)
    said = ", ".join(each.reference for each in gone) or "nothing"
    say(f"removed {said}" + _now(history(one.name, place)))


def _now(left: list[Kept]) -> str:
    return f"; {left[-1].name} is {left[-1].path.name} now" if left else ""


def _line(one: Kept) -> str:
    return f"{one.set_utc:%Y-%m-%d %H:%M}  {format_bytes(one.size_bytes):>9}  {one.path.name}  {_labels(one)}"


def _labels(one: Kept) -> str:
    """Return the labels of a run; "(damaged)" if its manifest cannot be read."""
    from harness.store.run import Run

    if one.damaged:
        return "damaged"
    try:
        return " ".join(f"{key}={value}" for key, value in Run.open(one.path).manifest.labels.items())
    except RunUnreadable:
        return "damaged"


def _folder(given: Path | None) -> Path:
    from harness.store.baselines import default_folder

    return given or default_folder()
