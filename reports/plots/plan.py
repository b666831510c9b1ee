"""Pictures of a plan: demand against what the replicas hold over a week, and cost against the chance that they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reports.plan import money, rate, share
from reports.plots import marks, scales
from reports.plots.drawing import Panel, Plot, picture
from reports.plots.marks import COLOURS, DASHED, INK
from reports.plots.scales import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def of_plan(data: Mapping[str, Any]) -> list[Plot]:
    """Return the pictures of the cheapest plan; none without one."""
    if not data["plans"]:
        return []
    return [week(data), chances(data)]


def week(data: Mapping[str, Any]) -> Plot:
    """Return demand and capacity over the hours of a week, growth included."""
    rows = data["week"]
    hours = [edge for row in rows for edge in (row["hour"], row["hour"] + 1)]
    demand = [row["demand_rps"] for row in rows for _ in range(2)]
    holds = [row["holds_rps"] for row in rows for _ in range(2)]

    def draw(axes: Axes) -> None:
        marks.line(axes, hours, holds, INK, DASHED, words="replicas hold")
        marks.line(axes, hours, demand, COLOURS[0], words="demand")

    y = scales.from_zero([*demand, *holds])
    x = Scale(0.0, 168.0, marks={24.0 * day + 12: name for day, name in enumerate(_DAYS)})
    svg = picture("week", [Panel("requests/s", y, draw)], x, "local time")
    best = data["plans"][0]
    alt = f"Demand up to {rate(max(demand))}; {best['replicas']} replicas hold up to {rate(max(holds))}."
    reading = "In the busiest 5 minutes of each hour. Replicas hold this within their headroom; spares come on top."
    return Plot("week", alt, svg, "Demand and replicas over a week", reading)


def chances(data: Mapping[str, Any]) -> Plot:
    """Return the chance that the peak is held against the cost, for fewer and for more replicas."""
    rows = data["chances"]
    usd, sure = [row["usd_per_month"] for row in rows], [100 * row["chance"] for row in rows]
    chosen = data["plans"][0]["replicas"]

    def draw(axes: Axes) -> None:
        marks.across(axes, 100 * data["chance"], INK, DASHED, "asked for")
        marks.line(axes, usd, sure, COLOURS[0])
        marks.dots(axes, usd, sure, COLOURS[0])
        for row, x, y in zip(rows, usd, sure, strict=True):
            words = f"{row['replicas']}"
            weight = "bold" if row["replicas"] == chosen else "normal"
            axes.text(x, min(y, 97.0) + 3, words, ha="center", fontsize=marks.FONT - 1, fontweight=weight)

    room = 0.06 * (max(usd) - min(usd)) or 0.1 * max(usd)
    x = scales.between(max(0.0, min(usd) - room), max(usd) + room)
    svg = picture("chances", [Panel("chance that the peak is held, %", Scale(0.0, 108.0), draw)], x, "USD a month")
    told = "; ".join(
        f"{row['replicas']} replicas, {money(row['usd_per_month'])}: {share(row['chance'])}" for row in rows
    )
    reading = "Numbers are replicas, spares included and running all the time; the spares are gone when the peak comes."
    return Plot("chances", f"Chance against cost: {told}.", svg, "Cost and chance", reading)
