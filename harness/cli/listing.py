"""`harness list`, and the plan of a scenario for `--dry-run`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.errors import UsageError
from harness.units import format_bytes, format_duration

if TYPE_CHECKING:
    from harness.scenario.model import Scenario
    from harness.schedule.availability import Support
    from harness.schedule.cells import Cell, Skip
    from harness.schedule.estimate import Estimate
    from harness.units import Range

BYTES_PER_RECORD = 500
BYTES_PER_TOKEN = 40  # the chunk lists of a record while it is still in the uncompressed stream


def list_(what: Annotated[str, typer.Argument(help="scenarios, engines or models.", show_default=False)]) -> None:
    """List the shipped scenarios, the engines, or the built-in models."""
    print(listing(what))


def plan_text(scenario: Scenario, planned: Sequence[Cell | Skip], folder: Path) -> str:
    """Cells, trials, what will be skipped and why, and what it will take; `folder` is where the run would be stored."""
    from harness.schedule.cells import Skip
    from harness.schedule.estimate import estimate

    lines = [f"{scenario.title}: {scenario.description}".rstrip(": ")]
    for cell in planned:
        if isinstance(cell, Skip):
            lines.append(f"  {cell.id}  skipped: {cell.reason}")
            continue
        lines.append(f"  {cell.id}")
        lines += [f"    {plan.id}  {plan.load.kind}, seed {plan.seed}" for plan in cell.trials]
    scoring = [] if scenario.quality is None else [f"quality    up to {scenario.quality.tokens:,} tokens for each cell"]
    return "\n".join([*lines, *drawn(planned), *totals(estimate(planned), folder), *scoring])


def drawn(planned: Sequence[Cell | Skip]) -> list[str]:
    """How tokens will be asked to be drawn: a line, or one for each way where there are several."""
    from harness.schedule.cells import Skip

    cells = [cell for cell in planned if not isinstance(cell, Skip)]
    asked = [workload.sampling.as_options() for cell in cells for plan in cell.trials for workload in plan.workloads]
    ways = [", ".join(f"{name} {told(value)}" for name, value in one.items()) or "left to the server" for one in asked]
    return [f"sampling   {way}" for way in dict.fromkeys(ways)]


def told(value: object) -> str:
    """A setting's value: numbers without needless digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def totals(wanted: Estimate, folder: Path) -> list[str]:
    """What a plan will take, in five lines."""
    free = shutil.disk_usage(next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())).free
    disk = wanted.tokens.times(BYTES_PER_TOKEN) + wanted.requests.times(BYTES_PER_RECORD)
    return [
        f"cells      {wanted.cells}" + (f" and {wanted.skipped} skipped" if wanted.skipped else ""),
        f"trials     {wanted.trials}",
        f"requests   {number(wanted.requests)}",
        f"tokens     {number(wanted.tokens)}",
        f"time       {duration(wanted.time_s)}, and the starts of the engines",
        f"disk       at most {bytes_text(disk.high)}; {bytes_text(free)} are free",
    ]


def number(found: Range) -> str:
    """A range of counts."""
    if found.high is None:
        return f"at least {found.low:,.0f}; how many more depends on how fast the engine is"
    return f"about {found.high:,.0f}" if found.low == found.high else f"{found.low:,.0f} to {found.high:,.0f}"


def duration(found: Range) -> str:
    """A range of times."""
    least = format_duration(round(found.low))
    if found.high is None:
        return f"at least {least}"
    return f"{least} to {format_duration(round(found.high))} (the latter if every request takes until its time-out)"


def bytes_text(count: float | None) -> str:
    """A size for people."""
    if count is None:
        return "an unknown size (closed loops limited by duration have no bound)"
    return format_bytes(count)


def listing(what: str) -> str:
    """The shipped scenarios, the engines or the built-in models, one a line with what it is."""
    if what not in LISTS:
        raise UsageError(f"there is no list of {what!r}; write `harness list {'|'.join(LISTS)}`")
    rows = LISTS[what]()
    width = max(len(name) for name in rows)
    gap = "\n" + " " * (width + 2)
    return "\n".join(f"{name:{width}}  {text.replace(chr(10), gap)}" for name, text in rows.items())


def scenarios() -> dict[str, str]:
    """Name and description of each shipped scenario."""
    from harness.scenario.templates import list_scenarios

    return list_scenarios()


def engines() -> dict[str, str]:
    """Each engine: where it answers, which levels it has on which devices, and what must be installed for it here."""
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


def models() -> dict[str, str]:
    """The built-in models, and what each is."""
    from engines.models.source import built_in

    return built_in()


LISTS = {"scenarios": scenarios, "engines": engines, "models": models}
