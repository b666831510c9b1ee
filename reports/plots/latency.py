"""Plots of latencies: their distribution, and against the length of prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reports.format import amount, between, shortened_inside
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import Plot, picture
from reports.plots.marks import COLOURS, Floats
from reports.plots.scales import SHARES, share_name
from reports.tables.base import Cell, Table, first_rows, number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NO_INTERVAL = "too few requests for an interval"
COMPARED = ("ttft_ms", "e2e_ms")
LOWEST = 0.01
MAX_LABEL = 64
LEAST_LENGTH_RATIO = 1.2
STEEP = 30.0


@dataclass(frozen=True, slots=True)
class Curve:
    """Inverse CDF: quantiles in ms at ascending shares, with the ends of their intervals (NaN if there is none).

    Attributes:
        n: Observations; requests that never ended are beyond the last share.
    """

    label: str
    share: Floats
    ms: Floats
    low: Floats
    high: Floats
    n: int

    @classmethod
    def of(cls, label: str, frame: pd.DataFrame) -> Curve:
        """Return the curve of rows with the columns share, ms, low_ms, high_ms, n."""
        share, ms, low, high = (frame[name].to_numpy(dtype=np.float64) for name in ("share", "ms", "low_ms", "high_ms"))
        return cls(label, share, ms, low, high, int(frame["n"].iloc[0]))

    def place(self, share: float) -> int | None:
        """Return the index of a quantile; None if it is censored, or needs more requests."""
        at = int(np.searchsorted(self.share, share - 1e-9))
        return at if at < len(self.share) and min(share, 1 - share) * self.n >= 1 else None

    def known(self, share: float) -> bool:
        at = self.place(share)
        return at is not None and math.isfinite(self.low[at]) and math.isfinite(self.high[at])

    def cell(self, share: float) -> Cell:
        """Return a quantile with its interval; an empty cell if it is unknown."""
        at = self.place(share)
        if at is None:
            return Cell("")
        value, low, high = float(self.ms[at]), float(self.low[at]), float(self.high[at])
        detail = between(low, high) or ("" if self.known(share) else NO_INTERVAL)
        return Cell(amount(value, low, high), detail, value=value)

    def words(self) -> str:
        """Return the median and the highest of p90, p95 and p99 with an interval, in words."""
        highest = next((share for share in (0.99, 0.95, 0.9) if self.known(share)), None)
        named = [share for share in (0.5, highest) if share is not None and self.place(share) is not None]
        found = [f"{share_name(share)} {self.cell(share).text} ms" for share in named]
        return f"{self.label} {' and '.join(found) or 'too few for a quantile'}"


def curves_table(curves: Sequence[Curve]) -> Table:
    """Return the quantiles of each curve."""
    lines = [(Cell(share_name(share)), *(curve.cell(share) for curve in curves)) for share in SHARES]
    rows = [line for line in lines if any(cell.text for cell in line[1:])]
    observed = (Cell("observations"), *(Cell(str(curve.n)) for curve in curves))
    return Table("", ("quantile", *(f"{curve.label}, ms" for curve in curves)), [*rows, observed])


def distribution(frame: pd.DataFrame, name: str) -> Plot | None:
    """Return the latencies of a trial on one logarithmic axis."""
    curves = [Curve.of(LATENCIES[metric], own) for metric in LATENCIES if len(own := frame[frame["metric"] == metric])]
    if not curves:
        return None
    title = "How latencies are distributed, with 95 % intervals"
    return _plot(f"{name}-distribution", "Latency distributions", title, curves, "latency")


def of_classes(frame: pd.DataFrame, name: str, total: int) -> Plot | None:
    """Return TTFT of each class, or end to end if nothing was streamed; of `total` classes at most len(COLOURS)."""
    metric = next((one for one in COMPARED if (frame["metric"] == one).any()), None)
    if metric is None:
        return None
    groups = frame[frame["metric"] == metric].groupby("class", sort=False, observed=True)
    curves = [Curve.of(shortened_inside(str(group), MAX_LABEL), own) for group, own in groups][: len(COLOURS)]
    of = "each class" if total <= len(curves) else f"{len(curves)} of {total} classes"
    label = LATENCIES[metric]
    title = f"{_capital(label)} of {of}, with 95 % intervals"
    return _plot(f"{name}-classes", f"Distribution of {label} of {of}", title, curves, label)


def overlay(metric: str, shown: Sequence[tuple[str, pd.DataFrame]]) -> Plot | None:
    """Return one curve for each of the first len(COLOURS) trials; None for fewer than two."""
    own = [(label, frame[frame["metric"] == metric]) for label, frame in shown]
    every = [Curve.of(shortened_inside(label, MAX_LABEL), frame) for label, frame in own if len(frame)]
    curves = every[: len(COLOURS)]
    if len(curves) < 2:
        return None
    some = f"the first {len(curves)} of {len(every)} trials" if len(every) > len(curves) else f"{len(curves)} trials"
    label, name = LATENCIES[metric], f"overview-{metric.removesuffix('_ms')}"
    about = f"Distribution of {label}, one curve for each of {some}"
    return _plot(name, about, f"{_capital(label)} of {some}", curves, label)


def _plot(name: str, about: str, title: str, curves: Sequence[Curve], label: str) -> Plot:
    """Draw quantiles against a logarithmic axis of time; on its scale a log-normal distribution is a straight line.

    The slowest request, whose quantile is unknown, ends its curve half a request below 1. Gaps between chunks, of which
    there are far more, are drawn as far up as the others.
    """
    seen = np.concatenate([curve.ms[(curve.share >= LOWEST) & (curve.ms > 0)] for curve in curves])
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (1.0, 10.0)
    requests = [curve.n for curve in curves if curve.label != LATENCIES["icl_ms"]] or [curve.n for curve in curves]

    def draw(axes: Axes) -> None:
        scales.logarithmic(axes.xaxis, low / 1.1, max(high * 1.1, low * 1.5))
        top = scales.of_shares(axes.yaxis, LOWEST, max(requests))
        for place, curve in enumerate(curves):
            colour, dash = marks.look(place)
            share = np.minimum(curve.share, 1 - 0.5 / curve.n)
            rows = (share >= LOWEST) & (share <= top + 1e-12) & (curve.ms > 0)
            share = share[rows]
            marks.band(axes, share, curve.low[rows], curve.high[rows], colour, along=True)
            marks.line(axes, curve.ms[rows], share, colour, dash, words=curve.label, steps=True)

    svg = picture(name, draw, (f"{label}, ms (logarithmic)", ""))
    return Plot(name, f"{about}: {'; '.join(curve.words() for curve in curves)}.", svg, title, curves_table(curves))


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def by_length(lengths: pd.DataFrame, bins: pd.DataFrame, name: str) -> Plot | None:
    """Return latency against the length of the prompt; None if lengths hardly vary."""
    if not len(lengths) or lengths["tokens"].max() < LEAST_LENGTH_RATIO * max(lengths["tokens"].min(), 1):
        return None
    metrics = [metric for metric in LATENCIES if (lengths["metric"] == metric).any()]
    shortest, longest = float(lengths["tokens"].min()), float(lengths["tokens"].max())
    wide = longest > 20 * max(shortest, 1.0)

    def draw(axes: Axes) -> None:
        if wide:
            scales.logarithmic(axes.xaxis, max(shortest, 1) / 1.1, longest * 1.1)
        else:
            scales.from_zero(axes.xaxis, longest)
        scales.upright(axes.yaxis, float(lengths["ms"].min()), float(lengths["ms"].max()), STEEP)
        for place, metric in enumerate(metrics):
            own, line = lengths[lengths["metric"] == metric], bins[bins["metric"] == metric]
            colour, dash = marks.look(place)
            marks.dots(axes, own["tokens"], own["ms"], colour, words=LATENCIES[metric])
            marks.line(axes, line["tokens"], line["p50_ms"], colour, dash)

    labels = (
        "prompt, tokens" + (" (logarithmic)" if wide else ""),
        "latency, ms (lines: medians)" if len(bins) else "latency, ms",
    )
    name, title = f"{name}-length", "Latency against the length of the prompt"
    svg, alt = picture(name, draw, labels), _length_alt(lengths, bins, metrics)
    return Plot(name, alt, svg, title, _length_table(lengths, bins, metrics))


def _length_alt(lengths: pd.DataFrame, bins: pd.DataFrame, metrics: Sequence[str]) -> str:
    shortest, longest = (f"{value:.0f}" for value in (lengths["tokens"].min(), lengths["tokens"].max()))
    parts = []
    for metric in metrics:
        own = bins[(bins["metric"] == metric) & bins["p50_ms"].notna()]
        if len(own) > 1:
            first, last = (
                f"{amount(row['p50_ms'])} ms around {row['tokens']:.0f}" for row in (own.iloc[0], own.iloc[-1])
            )
            parts.append(f"the median {LATENCIES[metric]} is {first} tokens and {last}")
    return f"Latency against prompts of {shortest} to {longest} tokens" + (f": {'; '.join(parts)}." if parts else ".")


def _length_table(lengths: pd.DataFrame, bins: pd.DataFrame, metrics: Sequence[str]) -> Table:
    """Return medians and p95 by length; the requests themselves if they are too few for that."""
    if not len(bins):
        own = lengths.sort_values("tokens", kind="stable").to_dict("records")
        listed = [(Cell(LATENCIES[str(row["metric"])]), number(row["tokens"]), number(row["ms"])) for row in own]
        return first_rows(Table("", ("latency", "prompt, tokens", "ms"), listed), "are in records.parquet")
    named = [(metric, key) for metric in metrics for key in ("p50_ms", "p95_ms")]
    rows: list[tuple[Cell, ...]] = []
    for _, group in bins[bins["n"] > 0].groupby("tokens", sort=True):
        found = {str(row["metric"]): row for row in group.to_dict("records")}
        values = [found.get(metric, {}).get(key, math.nan) for metric, key in named]
        sizes = (number(float(group["tokens"].iloc[0])), number(float(group["n"].max())))
        rows.append((*sizes, *(number(value, unknown="") for value in values)))
    head = (f"{LATENCIES[metric]} {key.removesuffix('_ms')}, ms" for metric, key in named)
    return Table("", ("prompt, tokens (mean)", "requests", *head), rows, texts=0)
