"""`harness list`, and the text of `harness run --dry-run`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.output import say
from harness.errors import UsageError, shortened
from harness.units import format_bytes
from reports.format import digits, for_terminal, sampling

if TYPE_CHECKING:
    from harness.prices.catalogue import Instance
    from harness.scenario.model import Scenario
    from harness.schedule.availability import Support
    from harness.schedule.cells import Cell, Skip, TrialPlan
    from harness.schedule.estimate import Estimate

BYTES_PER_RECORD = 500
BYTES_PER_TOKEN = 40  # the chunk lists of a record while it is still in the uncompressed stream
LISTS = ("scenarios", "engines", "models", "instances", "runs")


def list_(
    what: Annotated[str, typer.Argument(help="scenarios, engines, models, instances or runs.", show_default=False)],
) -> None:
    """List the shipped scenarios, the engines, the built-in models, machines with their prices, or the stored runs."""
    if what not in LISTS:
        raise UsageError(f"there is no list of {what!r}; write `harness list {'|'.join(LISTS)}`")
    if what == "runs":
        _show_runs(Path("runs"))
        return
    rows = _rows(what)
    width = max(len(name) for name in rows)
    for name, text in rows.items():
        print(f"{name:{width}}  " + text.replace("\n", "\n" + " " * (width + 2)))


def _show_runs(runs: Path) -> None:
    """Print the stored runs and gates, the newest first; on standard error those that cannot be read."""
    from harness.store.catalog import catalog, gates, newest_first

    found, damaged = catalog(runs)
    found = newest_first([*found, *gates(runs)])
    width = max((len(one.path.name) for one in found), default=0)
    for one in found:
        labels = " ".join(f"{key}={value}" for key, value in one.labels.items())
        when = one.created_utc[:16].replace("T", " ")
        line = f"{one.path.name:{width}}  {when:16}  {one.status:11}  {one.verdict:11}  {labels}"
        print(for_terminal(line.rstrip()))
    if not found:
        say(f"there is no run in {runs}/ yet; make one with `harness run scenario.yaml`")
    for why in damaged:
        say(f"harness: {why}")


def _rows(what: str) -> dict[str, str]:
    """Return names with descriptions; of an engine its levels by device, and whether it is installed here."""
    if what == "scenarios":
        from harness.scenario.templates import list_scenarios

        return list_scenarios()
    if what == "models":
        from engines.models.source import built_in

        return built_in()
    if what == "instances":
        from harness.prices.catalogue import read_catalogue

        return {name: _priced(one) for name, one in read_catalogue().instances.items()}
    from engines import clashes
    from harness.schedule.availability import supported

    found = {one.name: "\n".join(_support_lines(one)) for one in supported()}
    for name, clash in clashes().items():
        found[name] += f"\n{clash}"
    return found


def _priced(one: Instance) -> str:
    """Return the hardware of a machine, the prices of an hour, and their date."""
    from harness.scenario.plan import Pricing

    prices = ((pricing.value.replace("_", " "), one.price(pricing)) for pricing in Pricing)
    hourly = [f"${price.hourly_usd:.3f} {how}" for how, price in prices if price is not None]
    return ", ".join(filter(None, [one.hardware, f"an hour {' or '.join(hourly)}", f"as of {one.date}"]))


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
    from harness.prices.price import known_price_of
    from harness.schedule.cells import Skip
    from harness.schedule.duration import run_time_s
    from harness.schedule.estimate import estimate

    lines, ways = [f"{scenario.title}: {scenario.description}".rstrip(": ")], list[str]()
    for cell in planned:
        if isinstance(cell, Skip):
            lines.append(f"  {cell.id}  skipped: {cell.reason}")
            continue
        lines.append(f"  {cell.id}")
        lines += [f"    {plan.id}  {plan.load.kind}, seed {plan.seed}{_beside(plan)}" for plan in cell.trials]
        ways += [sampling(one.sampling.as_options()) for plan in cell.trials for one in plan.workloads]
    lines += [f"sampling        {way}" for way in dict.fromkeys(ways)]
    time_s, price = run_time_s(scenario, planned), known_price_of(scenario)
    lines += _totals(estimate(planned), time_s, folder)
    if price is not None:
        lines.append(f"cost            about {digits(price.usd_per_hour * time_s / 3600, 2)} USD: {price.text}")
    if scenario.quality is not None:
        lines.append(f"quality         up to {scenario.quality.tokens:,} tokens for each configuration")
    return "\n".join(lines)


def _beside(plan: TrialPlan) -> str:
    """Return what a load has beside its rate, as the end of a line."""
    load, beside = plan.load, ""
    if load.cap is not None:
        beside += f", at most {load.cap} in flight"
    if load.retries is not None and load.retries.times:
        beside += f", {load.retries.times} retr{'y' if load.retries.times == 1 else 'ies'}"
    return beside


def _totals(wanted: Estimate, time_s: float, folder: Path) -> list[str]:
    free = free_bytes(folder)
    disk = wanted.likely_tokens * BYTES_PER_TOKEN + wanted.likely_requests * BYTES_PER_RECORD
    endless = wanted.time_s.high is None
    return [
        f"configurations  {wanted.cells}" + (f" and {wanted.skipped} skipped" if wanted.skipped else ""),
        f"trials          {wanted.trials}",
        f"requests        about {wanted.likely_requests:,.0f}",
        f"tokens          about {wanted.likely_tokens:,.0f}"
        + (" and the prompts of files" if wanted.reads_prompts else ""),
        f"time            about {rounded_time(time_s)}"
        + (", more if replies are slow: the load ends with its last reply" if endless else ""),
        f"disk            about {format_bytes(disk)}; {format_bytes(free)} are free",
    ]


def free_bytes(folder: Path) -> int:
    """Return the free space where a folder is to be made. Raises UsageError for a path that cannot exist."""
    try:
        return shutil.disk_usage(next(one for one in (folder, *folder.absolute().parents) if one.exists())).free
    except OSError as error:
        raise UsageError(f"{shortened(str(folder))}: {error.strerror}; choose another folder with --out") from error


def rounded_time(seconds: float) -> str:
    """Return a time in two units at most: `45s`, `1m45s`, `2h10m`."""
    minutes, rest_s = divmod(round(seconds / 5) * 5, 60) if seconds > 59 else (0, math.ceil(seconds))
    hours, rest_m = divmod(minutes, 60)
    if hours:
        return f"{hours}h{rest_m}m" if rest_m else f"{hours}h"
    return (f"{minutes}m" if minutes else "") + (f"{rest_s}s" if rest_s or not minutes else "")
