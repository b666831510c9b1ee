"""`harness list`, and the text of `harness run --dry-run`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UsageError
from harness.units import format_bytes, format_duration
from reports.format import sampling

if TYPE_CHECKING:
    from harness.scenario.model import Scenario
    from harness.schedule.availability import Support
    from harness.schedule.cells import Cell, Skip
    from harness.schedule.estimate import Estimate
    from harness.units import Range

BYTES_PER_RECORD = 500
BYTES_PER_TOKEN = 40  # the chunk lists of a record while it is still in the uncompressed stream
LISTS = ("scenarios", "engines", "models")


def list_(what: Annotated[str, typer.Argument(help="scenarios, engines or models.", show_default=False)]) -> None:
    """List the shipped scenarios, the engines, or the built-in models."""
    if what not in LISTS:
        raise UsageError(f"there is no list of {what!r}; write `harness list {'|'.join(LISTS)}`")
    rows = _rows(what)
    width = max(len(name) for name in rows)
    for name, text in rows.items():
        print(f"{name:{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))


def _rows(what: str) -> dict[str, str]:
    """Return names with descriptions; of an engine its levels by device, and whether it is installed here."""
    if what == "scenarios":
        from harness.scenario.templates import list_scenarios

        return list_scenarios()
    if what == "models":
        from engines.models.source import built_in

        return built_in()
    from engines import clashes
    from harness.schedule.availability import supported

    found = {one.name: "\n".join(_support_lines(one)) for one in supported()}
    for name, clash in clashes().items():
        found[name] += f"\n{clash}"
    return found


def _support_lines(one: Support) -> Iterator[str]:
    if one.broken:
        yield one.broken
        return
    yield f"{one.where}; {'installed' if one.missing is None else 'not installed'}"
    for devices, levels in one.by_device().items():
        yield f"  {devices:9}  {', '.join(levels)}"
    if not one.levels:
        yield "  levels are the server's"
    if one.missing is not None:
        yield f"  {one.missing}"


def plan_text(scenario: Scenario, planned: Sequence[Cell | Skip], folder: Path) -> str:
    """Return the configurations, trials and skips of a run, with an estimate of time and disk space in `folder`."""
    from harness.schedule.cells import Skip
    from harness.schedule.estimate import estimate

    lines, ways = [f"{scenario.title}: {scenario.description}".rstrip(": ")], list[str]()
    for cell in planned:
        if isinstance(cell, Skip):
            lines.append(f"  {cell.id}  skipped: {cell.reason}")
            continue
        lines.append(f"  {cell.id}")
        lines += [f"    {plan.id}  {plan.load.kind}, seed {plan.seed}" for plan in cell.trials]
        ways += [sampling(one.sampling.as_options()) for plan in cell.trials for one in plan.workloads]
    lines += [f"sampling   {way}" for way in dict.fromkeys(ways)]
    lines += _totals(estimate(planned), folder)
    if scenario.quality is not None:
        lines.append(f"quality    up to {scenario.quality.tokens:,} tokens for each cell")
    return "\n".join(lines)


def _totals(wanted: Estimate, folder: Path) -> list[str]:
    free = shutil.disk_usage(next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())).free
    disk = wanted.tokens.times(BYTES_PER_TOKEN) + wanted.requests.times(BYTES_PER_RECORD)
    unbounded = "an unknown size (closed loops limited by duration have no bound)"
    size = unbounded if disk.high is None else format_bytes(disk.high)
    return [
        f"cells      {wanted.cells}" + (f" and {wanted.skipped} skipped" if wanted.skipped else ""),
        f"trials     {wanted.trials}",
        f"requests   {_number(wanted.requests)}",
        f"tokens     {_number(wanted.tokens)}",
        f"time       {_duration(wanted.time_s)}, and the starts of the engines",
        f"disk       at most {size}; {format_bytes(free)} are free",
    ]


def _number(found: Range) -> str:
    if found.high is None:
        return f"at least {found.low:,.0f}; how many more depends on how fast the engine is"
    return f"about {found.high:,.0f}" if found.low == found.high else f"{found.low:,.0f} to {found.high:,.0f}"


def _duration(found: Range) -> str:
    least = format_duration(round(found.low))
    if found.high is None:
        return f"at least {least}"
    return f"{least} to {format_duration(round(found.high))} (the latter if every request takes until its time-out)"
