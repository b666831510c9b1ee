"""Plots over the time of a trial: the load and the service."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.format import amount, count, seconds
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import LOW, Panel, Plot, picture
from reports.plots.marks import COLOURS, DASHED, DASHES, DOTTED, INK, MUTED
from reports.tables.base import Cell, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

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
BURST, SLO = COLOURS[2], COLOURS[1]
READING = "Dots are requests at their scheduled time. Latency that climbs under a level rate is a load beyond capacity."


def service(series: dict[str, Any], slo: Mapping[str, Mapping[float, str]], name: str) -> Plot | None:
    """Return latencies, rates, requests in flight and tokens over time.

    Args:
        slo: Labels of the SLOs of each latency, by their value in ms.
    """
    panels = [*_latency_panels(series, slo), *_rate_panels(series)]
    if not panels:
        return None
    name = f"{name}-time"
    svg = over_time(name, panels, series)
    return Plot(name, _service_alt(series), svg, "The service over time", READING, _slices_table(series["slices"]))


def over_time(name: str, panels: Sequence[Panel], series: dict[str, Any], notes: Sequence[str] = ()) -> str:
    """Draw axes over one time, with bursts and the time outside the window; notes: more to say below."""
    phases, bursts = series["phases"], series["bursts"]
    end_s = max(phases["end_s"], 1e-3)

    def mark(axes: Axes) -> None:
        for start, end in _unmeasured(phases):
            marks.span(axes, start, end, INK, 0.1)
        for start, end in bursts:
            marks.span(axes, start, end, BURST, 0.16)
        if phases.get("steady_s"):
            marks.line(axes, [phases["steady_s"]] * 2, axes.get_ylim(), INK, DOTTED, width=1.2)

    told = "; ".join([*_notes(phases, bursts), *notes])
    return picture(name, panels, scales.between(0.0, end_s, 8), "time, s", notes=told, mark=mark, height=LOW)


def _unmeasured(phases: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield the warm-up, and the time after the window."""
    end_s = phases["end_s"]
    if phases["warmup_end_s"] > 1e-3 * end_s:
        yield 0.0, phases["warmup_end_s"]
    if phases["measure_end_s"] < end_s * (1 - 1e-3):
        yield phases["measure_end_s"], end_s


def _notes(phases: dict[str, Any], bursts: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Yield what the marks along the time mean."""
    spans = list(_unmeasured(phases))
    before, after = any(start == 0 for start, _ in spans), any(start > 0 for start, _ in spans)
    if before or after:
        yield f"grey: {' and '.join([*['warm-up'] * before, *['after the window'] * after])}"
    if bursts:
        yield "yellow: burst"
    if phases.get("steady_s"):
        yield "dotted: steady from here"


def _latency_panels(series: dict[str, Any], slo: Mapping[str, Mapping[float, str]]) -> Iterator[Panel]:
    """Yield time to first token and time per token; end to end if nothing was streamed."""
    frame = series["latency"]
    seen = set(frame["metric"].unique())
    streamed = [metric for metric in ("ttft_ms", "tpot_ms") if metric in seen]
    for metric in streamed or sorted(seen & {"e2e_ms"}):
        yield _latency_panel(series, metric, f"{LATENCIES[metric]}, ms", slo.get(metric, {}))


def _latency_panel(series: dict[str, Any], metric: str, title: str, slo: Mapping[float, str]) -> Panel:
    own = series["latency"][series["latency"]["metric"] == metric]
    bins = series["latency_bins"][series["latency_bins"]["metric"] == metric]
    greatest, usual = float(own["ms"].max()), float(own["ms"].median())
    near = {value: words for value, words in slo.items() if value < MOST_ABOVE * greatest}
    steep = usual > 0 and greatest > scales.STEEP * usual
    seen = [*own["ms"].clip(lower=usual / 30), *near]

    def draw(axes: Axes) -> None:
        marks.dots(axes, own["at_s"], own["ms"], COLOURS[0])
        marks.line(axes, bins["at_s"], bins["p50_ms"], INK, words="median", width=1.4)
        marks.line(axes, bins["at_s"], bins["p95_ms"], INK, DASHES[1], words="p95", width=1.2)
        for value, words in near.items():
            marks.across(axes, value, SLO, DASHED, words)

    return Panel(title, scales.logarithmic(seen, 3) if steep else scales.from_zero(seen, 4), draw)


def _rate_panels(series: dict[str, Any]) -> Iterator[Panel]:
    rates = series["rates"]
    if not len(rates):
        return
    failed = [("failed", "failed", COLOURS[1], DOTTED)] if rates["failed"].any() else []
    lines = [("offered", "scheduled", MUTED, "-"), ("completed", "completed", COLOURS[0], DASHES[1]), *failed]
    yield _rates_panel("requests/s", rates, lines)
    yield _queue_panel(series)
    if rates["tokens"].any():
        yield _rates_panel("output tokens/s", rates, [("tokens", "", COLOURS[0], "-")])


def _rates_panel(title: str, rates: pd.DataFrame, lines: Sequence[tuple[str, str, str, Any]]) -> Panel:
    def draw(axes: Axes) -> None:
        for column, words, colour, dash in lines:
            marks.line(axes, *_bars(rates, column), colour, dash, words=words, steps="post")

    return Panel(title, scales.from_zero([float(rates[column].max()) for column, *_ in lines], 4), draw)


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
        marks.line(axes, *_bars(rates, "in_flight"), COLOURS[0], words="in flight", steps="post")
        for number, (words, total) in enumerate(of_server.items(), 1):
            marks.line(axes, total.index, total, COLOURS[number], DASHES[number], words=words, steps="post")

    most = max(float(rates["in_flight"].max()), *(float(total.max()) for total in of_server.values()), 1.0)
    return Panel("requests at a time", scales.from_zero([most], 4), draw)


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
