"""Plots over the time of a trial: what was offered and what the service made of it, and the machine meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.drawing import COLOURS, DASHES, INK, MUTED, Plot, dots, figure, legend_above, plain_log_ticks
from reports.format import amount, seconds
from reports.tables import Cell, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PANEL_INCHES = (5.6, 1.18)
STEEP = 15.0
BURST = COLOURS[1]


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes over time."""

    title: str
    draw: Callable[[Axes], None]


def service(series: dict[str, Any], name: str) -> Plot | None:
    """Latencies, rates, requests in flight and tokens, over one axis of time."""
    panels = [*_latency_panels(series), *_rate_panels(series)]
    if not panels:
        return None
    svg = stacked(f"{name}-time", panels, series)
    return Plot(f"{name}-time", _service_alt(series), svg, "The service over time", _slices_table(series["slices"]))


def stacked(salt: str, panels: list[Panel], series: dict[str, Any]) -> str:
    """Axes below each other over the same time, the parts that were not measured and the bursts marked in each."""
    phases, bursts = series["phases"], series["bursts"]
    with figure(salt, size_inches=PANEL_INCHES, titles=[panel.title for panel in panels]) as drawing:
        for panel, axes in zip(panels, drawing.stack, strict=True):
            panel.draw(axes)
            _mark(axes, phases, bursts)
            legend_above(axes)
        drawing.stack[-1].set_xlabel(_time_label(phases, bursts))
    return drawing.svg


def _mark(axes: Axes, phases: dict[str, Any], bursts: list[tuple[float, float]]) -> None:
    end_s = max(phases["end_s"], 1e-3)
    axes.set_xlim(0, end_s)
    for start, end in _unmeasured(phases):
        axes.axvspan(start, end, color=INK, alpha=0.1, linewidth=0)
    for start, end in bursts:
        axes.axvspan(start, max(end, start + end_s / 300), color=BURST, alpha=0.16, linewidth=0)
    if phases.get("steady_s"):
        axes.axvline(phases["steady_s"], color=INK, linewidth=0.8, linestyle=DASHES[2])


def _unmeasured(phases: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """The warm-up, and what came after the window."""
    end_s = phases["end_s"]
    if phases["warmup_end_s"] > 1e-3 * end_s:
        yield 0.0, phases["warmup_end_s"]
    if phases["measure_end_s"] < end_s * (1 - 1e-3):
        yield phases["measure_end_s"], end_s


def _time_label(phases: dict[str, Any], bursts: list[tuple[float, float]]) -> str:
    notes = []
    if phases["warmup_end_s"] > 1e-3 * phases["end_s"]:
        notes.append("grey: warm-up and after the window")
    elif any(_unmeasured(phases)):
        notes.append("grey: after the window")
    if bursts:
        notes.append("orange: burst")
    if phases.get("steady_s"):
        notes.append("dotted: steady from here")
    return "time, s" + (f" ({'; '.join(notes)})" if notes else "")


def _latency_panels(series: dict[str, Any]) -> Iterator[Panel]:
    """Time to the first token and time per token; end to end where nothing was streamed."""
    frame = series["latency"]
    seen = [metric for metric in ("ttft_ms", "tpot_ms") if (frame["metric"] == metric).any()]
    names = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "end to end"}
    for metric in seen or [metric for metric in ("e2e_ms",) if (frame["metric"] == metric).any()]:
        yield Panel(f"{names[metric]}, ms", _latency_drawer(series, metric))


def _latency_drawer(series: dict[str, Any], metric: str) -> Callable[[Axes], None]:
    own = series["latency"][series["latency"]["metric"] == metric]
    bins = series["latency_bins"][series["latency_bins"]["metric"] == metric]

    def draw(axes: Axes) -> None:
        dots(axes, own["at_s"].tolist(), own["ms"].tolist(), COLOURS[0])
        axes.plot(bins["at_s"], bins["p50_ms"], color=INK, linewidth=1.2, label="median")
        axes.plot(bins["at_s"], bins["p95_ms"], color=INK, linewidth=1.0, linestyle=DASHES[1], label="p95")
        greatest, usual = float(own["ms"].max()), float(own["ms"].median())
        if usual > 0 and greatest > STEEP * usual:
            low = max(float(own["ms"].min()), usual / 30) / 1.2
            axes.set_yscale("log")
            axes.set_ylim(low, greatest * 1.3)
            plain_log_ticks(axes.yaxis, low, greatest * 1.3)
        else:
            axes.set_ylim(0, greatest * 1.1)

    return draw


def _rate_panels(series: dict[str, Any]) -> Iterator[Panel]:
    rates = series["rates"]
    if not len(rates):
        return
    failed = [("failed", "failed", COLOURS[4], DASHES[2])] if rates["failed"].any() else []
    lines = [("offered", "offered", MUTED, "-"), ("completed", "completed", COLOURS[0], DASHES[1]), *failed]
    yield Panel("requests/s", lambda axes: _steps(axes, rates, lines))
    yield Panel("requests in flight", lambda axes: _queue(axes, series))
    if rates["tokens"].any():
        yield Panel("output tokens/s", lambda axes: _steps(axes, rates, [("tokens", "", COLOURS[2], "-")]))


def _steps(axes: Axes, frame: pd.DataFrame, lines: list[tuple[str, str, str, Any]]) -> None:
    for column, label, colour, dash in lines:
        known: dict[str, Any] = {"label": label} if label else {}
        axes.plot(frame["at_s"], frame[column], color=colour, linestyle=dash, drawstyle="steps-mid", **known)
    axes.set_ylim(bottom=0)


def _queue(axes: Axes, series: dict[str, Any]) -> None:
    """What the client had sent and not yet got, and what the server says it works on and keeps waiting."""
    rates, gauges = series["rates"], series["gauges"]
    axes.plot(rates["at_s"], rates["in_flight"], color=COLOURS[0], label="in flight", drawstyle="steps-mid")
    for number, (name, label) in enumerate((("running_requests", "running"), ("waiting_requests", "waiting")), 1):
        own = gauges[gauges["name"] == name]
        if len(own):
            total = own.groupby("at_s")["value"].sum() if own["source"].nunique() == 1 else _summed(own)
            look: dict[str, Any] = {"color": COLOURS[number + 2], "linestyle": DASHES[number]}
            axes.plot(total.index, total, label=f"{label} in the server", **look)
    axes.set_ylim(bottom=0)


def _summed(own: pd.DataFrame) -> pd.Series[float]:
    """Of several servers the sum, each with its last reading before."""
    wide = own.pivot_table(index="at_s", columns="source", values="value", aggfunc="last").ffill()
    total: pd.Series[float] = wide.sum(axis=1)
    return total


def _service_alt(series: dict[str, Any]) -> str:
    rates, phases = series["rates"], series["phases"]
    parts = []
    if len(rates):
        parts.append(
            f"at most {amount(rates['offered'].max())} requests/s offered, "
            f"at most {amount(rates['in_flight'].max())} in flight"
        )
        if rates["tokens"].any():
            parts.append(f"at most {amount(rates['tokens'].max())} output tokens/s")
    slices = series["slices"]
    for metric, label in (("ttft_ms", "TTFT"), ("tpot_ms", "TPOT")):
        known = slices[slices[metric].notna()]
        if len(known):
            parts.append(
                f"the median {label} between {amount(known[metric].min())} and {amount(known[metric].max())} ms"
            )
    bursts = f", {len(series['bursts'])} bursts" if series["bursts"] else ""
    return f"Over {seconds(phases['end_s'])}{bursts}: {', '.join(parts) or 'nothing happened'}."


def _slices_table(slices: pd.DataFrame) -> Table:
    head = (
        "from, s",
        "until, s",
        "offered",
        "completed",
        "failed",
        "in flight (mean)",
        "TTFT p50, ms",
        "TPOT p50, ms",
        "end to end p50, ms",
    )
    rows = [
        (
            *(Cell(f"{row[key]:.4g}") for key in ("from_s", "until_s")),
            *(Cell(str(int(row[key]))) for key in ("offered", "completed", "failed")),
            *(
                Cell("" if math.isnan(row[key]) else amount(row[key]))
                for key in ("in_flight", "ttft_ms", "tpot_ms", "e2e_ms")
            ),
        )
        for row in slices.to_dict("records")
    ]
    return Table("", head, rows, texts=0)
