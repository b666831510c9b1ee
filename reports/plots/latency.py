"""Plots of latencies: how they are distributed, and against the length of prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reports.format import amount, between, shortened_inside
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import Plot, picture
from reports.plots.marks import COLOURS
from reports.plots.scales import SHARES, share_name
from reports.tables.base import Cell, Table, first_rows, number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

NO_INTERVAL = "too few requests for an interval"


@dataclass(frozen=True, slots=True)
class Curve:
    """An inverse CDF.

    Attributes:
        share: Ascending.
        ms: The quantiles.
        low, high: Ends of their intervals, NaN if there is none.
        n: Observations; those that never ended are beyond the last share.
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
        """Return where a quantile stands; None if it is censored or no request of so few is that rare."""
        at = int(np.searchsorted(self.share, share - 1e-9))
        return at if at < len(self.share) and min(share, 1 - share) * self.n >= 1 else None

    def known(self, share: float) -> bool:
        """Return whether a quantile has an interval."""
        at = self.place(share)
        return at is not None and math.isfinite(self.low[at]) and math.isfinite(self.high[at])

    def cell(self, share: float) -> Cell:
        """Return a quantile for a table, with its interval; empty if there is none."""
        at = self.place(share)
        if at is None:
            return Cell("")
        value, low, high = float(self.ms[at]), float(self.low[at]), float(self.high[at])
        detail = between(low, high) or ("" if self.known(share) else NO_INTERVAL)
        return Cell(amount(value, low, high), detail, value=value)

    def words(self) -> str:
        """Return the median and the highest usual quantile that has an interval."""
        highest = next((share for share in (0.99, 0.95, 0.9) if self.known(share)), None)
        named = [share for share in (0.5, highest) if share is not None and self.place(share) is not None]
        found = [f"{share_name(share)} {self.cell(share).text} ms" for share in named]
        return f"{self.label} {' and '.join(found) or 'too few for a quantile'}"


def curves_table(curves: Sequence[Curve]) -> Table:
    """Return the usual quantiles of each curve."""
    lines = [(Cell(share_name(share)), *(curve.cell(share) for curve in curves)) for share in SHARES]
    rows = [line for line in lines if any(cell.text for cell in line[1:])]
    observed = (Cell("observations"), *(Cell(str(curve.n)) for curve in curves))
    return Table("", ("quantile", *(f"{curve.label}, ms" for curve in curves)), [*rows, observed])


COMPARED = ("ttft_ms", "e2e_ms")
LOWEST = 0.01
MAX_LABEL = 64
LEAST_LENGTH_RATIO = 1.2
STEEP = 30.0


def distribution(frame: pd.DataFrame, name: str) -> Plot | None:
    """Return the latencies of a trial on one logarithmic axis."""
    curves = [Curve.of(LATENCIES[metric], own) for metric in LATENCIES if len(own := frame[frame["metric"] == metric])]
    if not curves:
        return None
    alt = f"Latency distributions: {'; '.join(curve.words() for curve in curves)}."
    title = "How latencies are distributed, with 95 % intervals"
    name = f"{name}-distribution"
    return Plot(name, alt, _picture(name, curves, "latency"), title, curves_table(curves))


def of_classes(frame: pd.DataFrame, name: str, total: int) -> Plot | None:
    """Return the time to the first token of each class; end to end if nothing was streamed.

    total: how many classes there are; no more than len(COLOURS) of them are drawn.
    """
    metric = next((one for one in COMPARED if (frame["metric"] == one).any()), None)
    if metric is None:
        return None
    groups = frame[frame["metric"] == metric].groupby("class", sort=False, observed=True)
    curves = [Curve.of(shortened_inside(str(group), MAX_LABEL), own) for group, own in groups][: len(COLOURS)]
    of = "each class" if total <= len(curves) else f"{len(curves)} of {total} classes"
    alt = f"Distribution of {LATENCIES[metric]} of {of}: {'; '.join(curve.words() for curve in curves)}."
    title = f"{_capital(LATENCIES[metric])} of {of}, with 95 % intervals"
    name = f"{name}-classes"
    return Plot(name, alt, _picture(name, curves, LATENCIES[metric]), title, curves_table(curves))


def overlay(metric: str, shown: Sequence[tuple[str, pd.DataFrame]]) -> Plot | None:
    """Return one curve for each of several trials, the first len(COLOURS) of them; None for fewer than two."""
    own = [(label, frame[frame["metric"] == metric]) for label, frame in shown]
    every = [Curve.of(shortened_inside(label, MAX_LABEL), frame) for label, frame in own if len(frame)]
    curves = every[: len(COLOURS)]
    if len(curves) < 2:
        return None
    some = f"the first {len(curves)} of {len(every)} trials" if len(every) > len(curves) else f"{len(curves)} trials"
    words = "; ".join(curve.words() for curve in curves)
    alt = f"Distribution of {LATENCIES[metric]}, one curve for each of {some}: {words}."
    name = f"overview-{metric.removesuffix('_ms')}"
    title = f"{_capital(LATENCIES[metric])} of {some}"
    return Plot(name, alt, _picture(name, curves, LATENCIES[metric]), title, curves_table(curves))


def _picture(name: str, curves: Sequence[Curve], label: str) -> str:
    """Draw quantiles against a logarithmic axis of time; on its scale a log-normal distribution is a straight line.

    The slowest request, whose quantile no number of requests could tell, ends its curve half a request below 1. Gaps
    between chunks, of which there are far more, are drawn as far up as the others.
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

    return picture(name, draw, (f"{label}, ms (logarithmic)", ""))


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
    """Return medians and p95 by length; the requests themselves where they are too few for that."""
    if not len(bins):
        return _requests_table(lengths)
    named = [(metric, key) for metric in metrics for key in ("p50_ms", "p95_ms")]
    rows: list[tuple[Cell, ...]] = []
    for _, own in bins.groupby("tokens", sort=True):
        found = {str(row["metric"]): row for row in own.to_dict("records")}
        values = [found.get(metric, {}).get(key, math.nan) for metric, key in named]
        first = next(iter(found.values()))
        sizes = (number(first["tokens"]), number(float(own["n"].max())))
        rows.append((*sizes, *(number(value, unknown="") for value in values)))
    head = (f"{LATENCIES[metric]} {key.removesuffix('_ms')}, ms" for metric, key in named)
    return Table("", ("prompt, tokens (mean)", "requests", *head), rows, texts=0)


def _requests_table(lengths: pd.DataFrame) -> Table:
    own = lengths.sort_values("tokens", kind="stable").to_dict("records")
    rows = [(Cell(LATENCIES[str(row["metric"])]), number(row["tokens"]), number(row["ms"])) for row in own]
    return first_rows(Table("", ("latency", "prompt, tokens", "ms"), rows), "are in records.parquet")
