"""Plots of latencies: how they are distributed, and against the length of prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from reports.drawing import COLOURS, DASHES, Plot, dots, figure, legend, plain_log_ticks
from reports.format import amount, count, interval
from reports.tables import Cell, Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NAMES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "end to end", "icl_ms": "between chunks"}
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999)
LOWEST = 0.01
MAX_LABEL = 64
LEGEND_LINE_INCHES = 0.17
SIZE_INCHES = (5.6, 3.1)
LEAST_LENGTH_RATIO = 1.2
_NORMAL = NormalDist()


def share_name(share: float) -> str:
    """0.999 as "p99.9"."""
    return f"p{share * 100:.10g}"


def quantile(curve: pd.DataFrame, share: float) -> dict[str, Any] | None:
    """The row of a curve at a share, as an estimate; None beyond its end (censored) or its number of requests."""
    reached = curve[curve["share"] >= share - 1e-9]
    n = int(curve["n"].iloc[0])
    if not len(reached) or min(share, 1 - share) * n < 1:
        return None
    row = reached.iloc[0]
    return {"value": row["ms"], "low": row["low_ms"], "high": row["high_ms"], "bound": "point"}


def cell(row: dict[str, Any] | None) -> Cell:
    """An estimate in a table, "" for none."""
    if row is None:
        return Cell("")
    value = float(row["value"])
    return Cell(amount(value, row["low"], row["high"]), interval(row), value=value)


def distribution(frame: pd.DataFrame, name: str) -> Plot | None:
    """The latencies of a trial on one logarithmic axis."""
    if not len(frame):
        return None
    curves = [
        (NAMES[metric], frame[frame["metric"] == metric]) for metric in NAMES if (frame["metric"] == metric).any()
    ]
    with figure(f"{name}-distribution", size_inches=SIZE_INCHES) as drawing:
        draw_curves(drawing.axes, curves, "latency, ms (logarithmic)")
        legend(drawing.axes, loc="lower right")
    found = [f"{label} {' and '.join(_named(curve, (0.5, 0.99)))}" for label, curve in curves]
    requests = count(
        int(max(curve["n"].iloc[0] for label, curve in curves if label != NAMES["icl_ms"] or len(curves) == 1)),
        "request",
    )
    alt = f"Latency distributions of up to {requests}: {'; '.join(found)}."
    title = "How latencies are distributed, with 95 % intervals"
    return Plot(f"{name}-distribution", alt, drawing.svg, title, curves_table(curves))


def of_classes(frame: pd.DataFrame, name: str) -> Plot | None:
    """The time to the first token of each class; end to end where nothing was streamed."""
    metric = next((one for one in ("ttft_ms", "e2e_ms") if (frame["metric"] == one).any()), None)
    if metric is None:
        return None
    chosen = frame[frame["metric"] == metric]
    curves = [(str(group), curve) for group, curve in chosen.groupby("class", sort=False)][: len(COLOURS)]
    with figure(f"{name}-classes", size_inches=SIZE_INCHES) as drawing:
        draw_curves(
            drawing.axes, [(shortened(label), curve) for label, curve in curves], f"{NAMES[metric]}, ms (logarithmic)"
        )
        legend(drawing.axes, loc="lower right")
    found = [f"{label} {' and '.join(_named(curve, (0.5, 0.95)))}" for label, curve in curves]
    alt = f"Distribution of {NAMES[metric]} by class: {'; '.join(found)}."
    title = f"{NAMES[metric]} of each class, with 95 % intervals"
    return Plot(f"{name}-classes", alt, drawing.svg, title, curves_table(curves))


def overlay(metric: str, shown: Sequence[tuple[str, pd.DataFrame]], name: str) -> Plot | None:
    """One curve for each of several trials, the first len(COLOURS) of them; None for fewer than two."""
    every = [(label, frame[frame["metric"] == metric]) for label, frame in shown]
    every = [(label, frame) for label, frame in every if len(frame)]
    curves = every[: len(COLOURS)]
    if len(curves) < 2:
        return None
    with figure(name, LEGEND_LINE_INCHES * (len(curves) + 0.5), SIZE_INCHES) as drawing:
        draw_curves(
            drawing.axes, [(shortened(label), frame) for label, frame in curves], f"{NAMES[metric]}, ms (logarithmic)"
        )
        legend(drawing.axes, loc="upper left", bbox_to_anchor=(-0.12, -0.17), handlelength=3.2)
    some = f"the first {len(curves)} of {len(every)} trials" if len(every) > len(curves) else f"{len(curves)} trials"
    found = [f"{label} {' and '.join(_named(curve, (0.5, 0.95)))}" for label, curve in curves]
    alt = f"Distribution of {NAMES[metric]}, one curve for each of {some}: {'; '.join(found)}."
    return Plot(name, alt, drawing.svg, f"{NAMES[metric]} of {some}", curves_table(curves))


def _named(curve: pd.DataFrame, shares: Iterable[float]) -> list[str]:
    found = [(share, quantile(curve, share)) for share in shares]
    return [f"{share_name(share)} {cell(row).text} ms" for share, row in found if row] or ["too few for a quantile"]


def curves_table(curves: Sequence[tuple[str, pd.DataFrame]]) -> Table:
    """The usual quantiles of each curve."""
    rows = []
    for share in SHARES:
        cells = [cell(quantile(curve, share)) for _, curve in curves]
        if any(one.text for one in cells):
            rows.append((Cell(share_name(share)), *cells))
    requests = [Cell(str(int(curve["n"].iloc[0]))) for _, curve in curves]
    return Table("", ("quantile", *(f"{label}, ms" for label, _ in curves)), [*rows, (Cell("observations"), *requests)])


def draw_curves(axes: Axes, curves: Sequence[tuple[str, pd.DataFrame]], label: str) -> None:
    """Quantiles against a logarithmic axis of time, on a scale on which a log-normal distribution is a straight line.

    The last requests, whose quantile no number of requests could tell, end at the upper edge.
    """
    most = max(int(curve["n"].iloc[0]) for _, curve in curves)
    top = _height(1 - 0.5 / max(most, 20))
    lowest, highest = [], []
    for number, (name, curve) in enumerate(curves):
        curve = curve[(curve["share"] >= LOWEST) & (curve["ms"] > 0)]
        if not len(curve):
            continue
        ms = curve["ms"].to_numpy()
        up = [min(_height(share), top) for share in curve["share"]]
        colour = COLOURS[number % len(COLOURS)]
        band = curve["low_ms"].notna().to_numpy() & curve["high_ms"].notna().to_numpy()
        axes.fill_betweenx(up, curve["low_ms"], curve["high_ms"], where=band, color=colour, alpha=0.18, linewidth=0)
        axes.step(ms, up, where="post", color=colour, linestyle=DASHES[number % len(DASHES)], label=name)
        lowest.append(ms[0])
        highest.append(ms[-1])
    axes.set_xscale("log")
    low, high = (min(lowest), max(highest)) if lowest else (1.0, 10.0)
    low, high = low / 1.15, max(high * 1.15, low * 1.5)
    axes.set_xlim(low, high)
    plain_log_ticks(axes.xaxis, low, high)
    marks = [share for share in SHARES if _height(share) < top + 1e-9]
    axes.set_yticks([_height(share) for share in marks], [share_name(share) for share in marks])
    axes.set_ylim(_height(LOWEST), top)
    axes.set_xlabel(label)


def _height(share: float) -> float:
    """In standard deviations."""
    return _NORMAL.inv_cdf(min(max(share, 1e-9), 1 - 1e-9))


def by_length(lengths: pd.DataFrame, bins: pd.DataFrame, name: str) -> Plot | None:
    """Latency against the length of the prompt; None where lengths hardly vary."""
    if not len(lengths) or lengths["tokens"].max() < LEAST_LENGTH_RATIO * max(lengths["tokens"].min(), 1):
        return None
    metrics = [metric for metric in NAMES if (lengths["metric"] == metric).any()]
    wide = lengths["tokens"].max() > 20 * max(lengths["tokens"].min(), 1)
    with figure(f"{name}-length", size_inches=SIZE_INCHES) as drawing:
        axes = drawing.axes
        for number, metric in enumerate(metrics):
            own, line = lengths[lengths["metric"] == metric], bins[bins["metric"] == metric]
            dots(axes, own["tokens"].tolist(), own["ms"].tolist(), COLOURS[number])
            look: dict[str, Any] = {"color": COLOURS[number], "linestyle": DASHES[number]}
            axes.plot(line["tokens"], line["p50_ms"], label=f"{NAMES[metric]}, median", **look)
        if wide:
            axes.set_xscale("log")
            plain_log_ticks(
                axes.xaxis, max(float(lengths["tokens"].min()), 1) / 1.1, float(lengths["tokens"].max()) * 1.1
            )
        _upright(axes, lengths["ms"].to_numpy())
        axes.set_xlabel("prompt, tokens" + (" (logarithmic)" if wide else ""))
        axes.set_ylabel("latency, ms")
        legend(axes, loc="upper left")
    table = _length_table(bins, metrics)
    title = "Latency against the length of the prompt"
    return Plot(f"{name}-length", _length_alt(lengths, bins, metrics), drawing.svg, title, table)


def _upright(axes: Axes, values: Any) -> None:
    """From zero; logarithmic where the values differ too much for that."""
    least, greatest = float(values.min()), float(values.max())
    if least > 0 and greatest > 30 * least:
        axes.set_yscale("log")
        axes.set_ylim(least / 1.2, greatest * 1.3)
        plain_log_ticks(axes.yaxis, least / 1.2, greatest * 1.3)
    else:
        axes.set_ylim(0, greatest * 1.1)


def _length_alt(lengths: pd.DataFrame, bins: pd.DataFrame, metrics: Sequence[str]) -> str:
    shortest, longest = (f"{value:.0f}" for value in (lengths["tokens"].min(), lengths["tokens"].max()))
    parts = []
    for metric in metrics:
        own = bins[bins["metric"] == metric]
        if len(own) > 1:
            first, last = own.iloc[0], own.iloc[-1]
            parts.append(
                f"the median {NAMES[metric]} is {amount(first['p50_ms'])} ms around {first['tokens']:.0f} tokens and "
                f"{amount(last['p50_ms'])} ms around {last['tokens']:.0f}"
            )
    return f"Latency against prompts of {shortest} to {longest} tokens" + (f": {'; '.join(parts)}." if parts else ".")


def _length_table(bins: pd.DataFrame, metrics: Sequence[str]) -> Table:
    head = (
        "prompt, tokens (mean)",
        "requests",
        *(f"{NAMES[metric]} {p}, ms" for metric in metrics for p in ("p50", "p95")),
    )
    rows = []
    for tokens, own in bins.groupby("tokens", sort=True):
        found = {str(row["metric"]): row for row in own.to_dict("records")}
        values = [found.get(metric, {}).get(key) for metric in metrics for key in ("p50_ms", "p95_ms")]
        requests = str(int(own["n"].max()))
        rows.append(
            (Cell(amount(float(str(tokens)))), Cell(requests), *(Cell("" if v is None else amount(v)) for v in values))
        )
    return Table("", head, rows)


def shortened(label: str) -> str:
    """A label that leaves room for the plot."""
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL // 2]}…{label[-MAX_LABEL // 2 :]}"
