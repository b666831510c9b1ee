"""Plots over the time of a trial: the load and the service."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.format import amount, count, seconds
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import Panel, Plot, stacked
from reports.plots.marks import COLOURS, DASHES, DOTTED, INK, MUTED
from reports.tables.base import Cell, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

STEEP = 15.0
MOST_ABOVE = 2.5
SHORT_S = 0.9
ALWAYS = ("offered", "completed", "failed", "in_flight")
SLICES = (
    ("offered", "scheduled, requests/s"),
    ("completed", "completed, requests/s"),
    ("failed", "failed, requests/s"),
    ("in_flight", "in flight (mean)"),
    ("tokens", "output tokens/s"),
    *((metric, f"{LATENCIES[metric]} p50, ms") for metric in ("ttft_ms", "tpot_ms", "e2e_ms")),
)
BURST, LIMIT = COLOURS[1], COLOURS[4]


def service(series: dict[str, Any], slo: Mapping[str, float | None], name: str) -> Plot | None:
    """Return latencies, rates, requests in flight and tokens over time; slo: limits of a good request, in ms."""
    panels = [*_latency_panels(series, slo), *_rate_panels(series)]
    if not panels:
        return None
    name = f"{name}-time"
    svg = over_time(name, panels, series)
    return Plot(name, _service_alt(series), svg, "The service over time", _slices_table(series["slices"]))


def over_time(name: str, panels: Sequence[Panel], series: dict[str, Any], notes: Sequence[str] = ()) -> str:
    """Draw axes over one time, with bursts and the time outside the window; notes: additions to the label."""
    phases, bursts = series["phases"], series["bursts"]
    end_s = max(phases["end_s"], 1e-3)

    def mark(axes: Axes) -> None:
        for start, end in _unmeasured(phases):
            marks.span(axes, start, end, INK, 0.1)
        for start, end in bursts:
            marks.span(axes, start, end, BURST, 0.16)
        if phases.get("steady_s"):
            marks.line(axes, [phases["steady_s"]] * 2, axes.get_ylim(), INK, DOTTED, width=1.2)

    def along(axes: Axes) -> None:
        scales.linear(axes.xaxis, 0.0, end_s, 10)

    return stacked(name, panels, along, _time_label(phases, bursts, notes), mark)


def _unmeasured(phases: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield the warm-up, and the time after the window."""
    end_s = phases["end_s"]
    if phases["warmup_end_s"] > 1e-3 * end_s:
        yield 0.0, phases["warmup_end_s"]
    if phases["measure_end_s"] < end_s * (1 - 1e-3):
        yield phases["measure_end_s"], end_s


def _time_label(phases: dict[str, Any], bursts: Sequence[tuple[float, float]], more: Sequence[str]) -> str:
    spans = list(_unmeasured(phases))
    before, after = any(start == 0 for start, _ in spans), any(start > 0 for start, _ in spans)
    greys = [*(["warm-up"] if before else []), *(["after the window"] if after else [])]
    notes = [f"grey: {' and '.join(greys)}"] if greys else []
    notes += ["orange: burst"] if bursts else []
    notes += ["dotted: steady from here"] if phases.get("steady_s") else []
    notes += more
    return "time, s" + (f" ({'; '.join(notes)})" if notes else "")


def _latency_panels(series: dict[str, Any], slo: Mapping[str, float | None]) -> Iterator[Panel]:
    """Yield time to first token and time per token; end to end if nothing was streamed."""
    frame = series["latency"]
    seen = set(frame["metric"].unique())
    streamed = [metric for metric in ("ttft_ms", "tpot_ms") if metric in seen]
    for metric in streamed or sorted(seen & {"e2e_ms"}):
        yield _latency_panel(series, metric, f"{LATENCIES[metric]}, ms", slo.get(metric))


def _latency_panel(series: dict[str, Any], metric: str, title: str, limit: float | None) -> Panel:
    own = series["latency"][series["latency"]["metric"] == metric]
    bins = series["latency_bins"][series["latency_bins"]["metric"] == metric]
    greatest, usual = float(own["ms"].max()), float(own["ms"].median())
    least = max(float(own["ms"].min()), usual / 30)
    steep = usual > 0 and greatest > STEEP * usual
    top = max(greatest, limit) if limit is not None and limit < MOST_ABOVE * greatest else greatest

    def draw(axes: Axes) -> None:
        if steep:
            scales.logarithmic(axes.yaxis, least / 1.2, top * 1.25, 5)
        else:
            scales.from_zero(axes.yaxis, top, 4)
        marks.dots(axes, own["at_s"], own["ms"], COLOURS[0])
        marks.line(axes, bins["at_s"], bins["p50_ms"], INK, words="median", width=1.4)
        marks.line(axes, bins["at_s"], bins["p95_ms"], INK, DASHES[1], words="p95", width=1.2)
        if limit is not None and limit < MOST_ABOVE * greatest:
            marks.across(axes, limit, LIMIT, DOTTED, f"limit {limit:g} ms")

    return Panel(title, draw)


def _rate_panels(series: dict[str, Any]) -> Iterator[Panel]:
    rates = series["rates"]
    if not len(rates):
        return
    failed = [("failed", "failed", COLOURS[4], DOTTED)] if rates["failed"].any() else []
    lines = [("offered", "scheduled", MUTED, "-"), ("completed", "completed", COLOURS[0], DASHES[1]), *failed]
    yield _rates_panel("requests/s", rates, lines)
    yield _queue_panel(series)
    if rates["tokens"].any():
        yield _rates_panel("output tokens/s", rates, [("tokens", "", COLOURS[2], "-")])


def _rates_panel(title: str, rates: pd.DataFrame, lines: Sequence[tuple[str, str, str, Any]]) -> Panel:
    def draw(axes: Axes) -> None:
        scales.from_zero(axes.yaxis, max(float(rates[column].max()) for column, *_ in lines), 4)
        for column, words, colour, dash in lines:
            marks.line(axes, *_bars(rates, column), colour, dash, words=words, steps=True)

    return Panel(title, draw)


def _bars(rates: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    """Return (begins, values) of the parts of the time, and the end of the last."""
    middles, values = rates["at_s"].tolist(), rates[column].tolist()
    half = (middles[1] - middles[0]) / 2 if len(middles) > 1 else middles[0]
    return [*(middle - half for middle in middles), middles[-1] + half], [*values, values[-1]]


def _queue_panel(series: dict[str, Any]) -> Panel:
    """Draw requests in flight, and requests that the server computes and queues."""
    rates, gauges = series["rates"], series["gauges"]
    of_server = {
        words: _summed(gauges[gauges["name"] == name])
        for name, words in (("running_requests", "server: running"), ("waiting_requests", "server: waiting"))
        if (gauges["name"] == name).any()
    }

    def draw(axes: Axes) -> None:
        scales.from_zero(axes.yaxis, most, 4)
        marks.line(axes, *_bars(rates, "in_flight"), COLOURS[0], words="in flight", steps=True)
        for number, (words, total) in enumerate(of_server.items(), 1):
            marks.line(axes, total.index, total, COLOURS[number + 2], DASHES[number], words=words)

    most = max(float(rates["in_flight"].max()), *(float(total.max()) for total in of_server.values()), 1.0)
    return Panel("requests at a time", draw)


def _summed(own: pd.DataFrame) -> pd.Series[float]:
    """Return the sum over servers of their last readings."""
    wide = own.pivot_table(index="at_s", columns="source", values="value", aggfunc="last").ffill()
    total: pd.Series[float] = wide.sum(axis=1)
    return total


def _service_alt(series: dict[str, Any]) -> str:
    rates, phases = series["rates"], series["phases"]
    parts = []
    if len(rates):
        peaks = {name: f"at most {_plainly(rates[name].max())}" for name in ("offered", "in_flight", "tokens")}
        parts += [f"{peaks['offered']} requests/s scheduled", f"{peaks['in_flight']} in flight"]
        parts += [f"{peaks['tokens']} output tokens/s"] if rates["tokens"].any() else []
    slices = series["slices"]
    for metric in ("ttft_ms", "tpot_ms"):
        known = slices[slices[metric].notna()]
        if len(known):
            ends = list(dict.fromkeys((amount(known[metric].min()), amount(known[metric].max()))))
            parts.append(f"the median {LATENCIES[metric]} {'between ' if len(ends) > 1 else ''}{' and '.join(ends)} ms")
    bursts = f", {count(len(series['bursts']), 'burst')}" if series["bursts"] else ""
    return f"Over {seconds(phases['end_s'])}{bursts}: {', '.join(parts) or 'nothing happened'}."


def _slices_table(slices: pd.DataFrame) -> Table:
    """Return the values that the plot draws, in its parts of the time or in fewer."""
    columns = [(name, head) for name, head in SLICES if name in ALWAYS or slices[name].any()]
    places = 1 if len(slices) and slices["until_s"].iloc[0] > SHORT_S else 3
    rows = [
        (
            *(Cell(f"{row[key]:.{places}f}") for key in ("from_s", "until_s")),
            *(Cell("" if math.isnan(row[name]) else _plainly(row[name])) for name, _ in columns),
        )
        for row in slices.to_dict("records")
    ]
    return Table("", ("from, s", "until, s", *(head for _, head in columns)), rows, texts=0)


def _plainly(value: float) -> str:
    """Return an amount; a whole number without decimals."""
    shown = amount(value)
    return shown.rstrip("0").rstrip(".") if "." in shown and value == round(value) else shown
