"""Plots of latencies: their distribution, and against the length of prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from reports.data import ReportData
from reports.format import amount, between, shortened_inside
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import Panel, Plot, file_name, picture
from reports.plots.marks import COLOURS, MUTED, Floats
from reports.plots.scales import SHARES, share_name
from reports.sweeps import loads_of, names_of
from reports.tables.base import Cell, Table, first_rows, number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NO_INTERVAL = "too few requests for an interval"
COMPARED = ("ttft_ms", "e2e_ms")
LOWEST = 0.01
MOST_LOADS = 24
MAX_LABEL = 48
LEAST_LENGTH_RATIO = 1.2
READING = "Further left is faster; a flat end at the top is a slow tail. Bands are 95 % intervals."


@dataclass(frozen=True, slots=True)
class Curve:
    """Inverse CDF: quantiles in ms at ascending shares, with the ends of their intervals (NaN if there is none).

    Attributes:
        n: Observations; requests that never ended are beyond the last share.
        poor: Whether its data is poor.
    """

    label: str
    share: Floats
    ms: Floats
    low: Floats
    high: Floats
    n: int
    poor: bool = False

    @classmethod
    def of(cls, label: str, frame: pd.DataFrame, *, poor: bool = False) -> Curve:
        """Return the curve of rows with the columns share, ms, low_ms, high_ms, n."""
        share, ms, low, high = (frame[name].to_numpy(dtype=np.float64) for name in ("share", "ms", "low_ms", "high_ms"))
        return cls(label, share, ms, low, high, int(frame["n"].iloc[0]), poor)

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
    title = "How latencies are distributed"
    return distribution_of(f"{name}-distribution", "Latency distributions", title, curves, "latency")


def of_classes(frame: pd.DataFrame, name: str, total: int) -> Plot | None:
    """Return TTFT of each class, or end to end if nothing was streamed; of `total` classes at most len(COLOURS)."""
    metric = next((one for one in COMPARED if (frame["metric"] == one).any()), None)
    if metric is None:
        return None
    groups = frame[frame["metric"] == metric].groupby("class", sort=False, observed=True)
    curves = [Curve.of(shortened_inside(str(group), MAX_LABEL), own) for group, own in groups][: len(COLOURS)]
    of = "each class" if total <= len(curves) else f"{len(curves)} of {total} classes"
    label = LATENCIES[metric]
    return distribution_of(
        f"{name}-classes", f"Distribution of {label} of {of}", f"{_capital(label)} of {of}", curves, label
    )


def of_loads(data: ReportData) -> list[Plot]:
    """Return TTFT and E2E of each load that several configurations had, one curve each, their repetitions together.

    Of more than MOST_LOADS the first ones; every trial has its own picture, too.

    The pictures of a metric share their axes. A configuration has one colour in all of them; poor data is grey.
    """
    places = {keys: place for place, keys in enumerate(names_of(data))}
    return [plot for metric in COMPARED for plot in _of_loads(data, metric, places)]


def _of_loads(data: ReportData, metric: str, places: Mapping[tuple[str, ...], int]) -> Iterator[Plot]:
    names, by_load = names_of(data), dict[str, dict[int, Curve]]()
    for load in loads_of(data):
        keys = load.keys[:-1]
        frame = data.pooled[load.keys]["distribution"] if load.keys in data.pooled else None
        own = None if frame is None else frame[frame["metric"] == metric]
        if own is not None and len(own):
            poor = bool(data.poor_because(load.keys, metric))
            label = shortened_inside(names[keys], MAX_LABEL)
            curve = Curve.of(f"({label})" if poor else label, own, poor=poor)
            by_load.setdefault(load.keys[-1], {})[places[keys]] = curve
    several = ((load, curves) for load, curves in by_load.items() if len(curves) > 1)
    shared = dict(islice(several, MOST_LOADS))
    every = [curve for curves in shared.values() for curve in curves.values()]
    label = LATENCIES[metric]
    for under, curves in shared.items():
        name = file_name(f"load-{under}-{metric.removesuffix('_ms')}")
        about = f"Distribution of {label} under {under}"
        yield distribution_of(
            name, about, f"{_capital(label)}, {under}", list(curves.values()), label, list(curves), every
        )


def distribution_of(
    name: str,
    about: str,
    title: str,
    curves: Sequence[Curve],
    label: str,
    places: Sequence[int] | None = None,
    beside: Sequence[Curve] | None = None,
) -> Plot:
    """Draw quantiles against a logarithmic axis of time; on its scale a log-normal distribution is a straight line.

    The slowest request, whose quantile is unknown, ends its curve half a request below 1. Gaps between chunks, of which
    there are far more, are drawn as far up as the others.

    Args:
        places: Numbers of the curves' colours.
        beside: Curves of all pictures with the same axes.
    """
    every = beside or curves
    x = scales.logarithmic(np.concatenate([curve.ms[curve.share >= LOWEST] for curve in every]))
    requests = [curve.n for curve in every if curve.label != LATENCIES["icl_ms"]] or [curve.n for curve in every]
    y = scales.shares(LOWEST, max(requests))

    def draw(axes: Axes) -> None:
        for place, curve in zip(places or range(len(curves)), curves, strict=True):
            colour, dash = marks.look(place)
            colour = MUTED if curve.poor else colour
            share = np.minimum(curve.share, 1 - 0.5 / curve.n)
            rows = (share >= LOWEST) & (share <= y.high + 1e-12) & (curve.ms > 0)
            share = share[rows]
            marks.band(axes, share, curve.low[rows], curve.high[rows], colour, along=True)
            marks.line(axes, curve.ms[rows], share, colour, dash, words=curve.label, steps="post")

    svg = picture(name, [Panel("share of requests at most as slow", y, draw)], x, f"{label}, ms")
    alt = f"{about}: {'; '.join(curve.words() for curve in curves)}."
    return Plot(name, alt, svg, title, READING, curves_table(curves))


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def by_length(lengths: pd.DataFrame, bins: pd.DataFrame, name: str) -> Plot | None:
    """Return latency against the length of the prompt; None if lengths hardly vary."""
    if not len(lengths) or lengths["tokens"].max() < LEAST_LENGTH_RATIO * max(lengths["tokens"].min(), 1):
        return None
    metrics = [metric for metric in LATENCIES if (lengths["metric"] == metric).any()]
    shortest, longest = float(lengths["tokens"].min()), float(lengths["tokens"].max())
    x = scales.upright([max(shortest, 1.0), longest])

    def draw(axes: Axes) -> None:
        for place, metric in enumerate(metrics):
            own, line = lengths[lengths["metric"] == metric], bins[bins["metric"] == metric]
            colour, dash = marks.look(place)
            marks.dots(axes, own["tokens"], own["ms"], colour, words=LATENCIES[metric])
            marks.line(axes, line["tokens"], line["p50_ms"], colour, dash)

    name, title = f"{name}-length", "Latency against the length of the prompt"
    svg = picture(name, [Panel("latency, ms", scales.upright(lengths["ms"]), draw)], x, "prompt, tokens")
    reading = f"A dot is a request{'; lines are medians' * bool(len(bins))}. A slope is the time to read the prompt."
    return Plot(name, _length_alt(lengths, bins, metrics), svg, title, reading, _length_table(lengths, bins, metrics))


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
