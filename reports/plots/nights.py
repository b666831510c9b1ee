"""Pictures of nights: a sparkline, and a chart that is as wide as its page; each curve is one path of whole numbers.

A chart is stretched to its place, so its texts are HTML beside the SVG, at shares of its width and height.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import median

from reports.board import RESETS, Series, axis_unit, known
from reports.plots.scales import Scale, near

WIDTH, HEIGHT = 4000, 1000
SPARK_WIDTH, SPARK_HEIGHT, SPARK_NIGHTS = 236, 24, 60
MOST_MARKS = 5
_FAR = 1.0
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_DAY_S = 86400.0

Spot = tuple[int, int]
Place = Callable[[float, float], tuple[int, int]]
"""Gives the place of a time and a value."""


@dataclass(frozen=True, slots=True)
class Label:
    """Text beside a chart, at a share of its width (x) or height (y, from the top) in per cent."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Paths of a chart, in units of WIDTH and HEIGHT.

    Attributes:
        dots: Nights.
        poor: Nights with poor data.
        beyond: Nights whose value lies outside of the chart, drawn at its end.
        levels: Median of the nights between two changes.
        first_s, last_s: Ends of the time axis, Unix time.
    """

    band: str
    line: str
    dots: str
    poor: str
    beyond: str
    levels: str
    across: tuple[Label, ...]
    up: tuple[Label, ...]
    first_s: float
    last_s: float

    def share(self, at: str) -> float:
        """Return the place of a time, per cent of the width."""
        return round(100 * (seconds(at) - self.first_s) / (self.last_s - self.first_s), 2)


def seconds(at: str) -> float:
    """Return Unix time; a time without a zone is UTC."""
    found = datetime.fromisoformat(at)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


@dataclass(frozen=True, slots=True)
class Segment:
    """Nights of one level.

    Attributes:
        first, last: Indices of its first night and behind its last.
        level: Median of its values; None if none is known.
    """

    first: int
    last: int
    level: float | None


def segments(series: Series) -> list[Segment]:
    """Return the nights between steps, and between events after which earlier nights are no measure."""
    times = [seconds(point["at"]) for point in series["points"]]
    starts = [seconds(change["at"]) for change in series["changes"] if not change.get("creep")]
    starts += [seconds(event["at"]) for event in series["events"] if event["kind"] in RESETS]
    cuts = sorted({sum(time < start for time in times) for start in starts} | {0, len(times)})
    found = []
    for first, last in pairwise(cuts):
        values = [_number(one["value"]) for one in series["points"][first:last] if known(one["value"])]
        found.append(Segment(first, last, median(values) if values else None))
    return found


def spark_nights(board: Sequence[Series]) -> int:
    """Return how many nights the sparklines of a board have room for: those of its longest series, if they are few."""
    return min(SPARK_NIGHTS, max((len(one["points"]) for one in board), default=SPARK_NIGHTS))


def sparkline(series: Series, nights: int = SPARK_NIGHTS) -> str:
    """Return the path of the last nights, in SPARK_WIDTH and SPARK_HEIGHT; nights are evenly spaced."""
    points = series["points"][-nights:]
    finite = [_number(one["value"]) for one in points if known(one["value"])]
    if not finite:
        return ""
    low, high = _ends(finite)
    if high <= low:
        low, high = low - 1.0, high + 1.0
    step = SPARK_WIDTH / max(nights - 1, 1)
    begin = nights - len(points)

    def place(number: int) -> Spot:
        return round((begin + number) * step), 2 + _up(_number(points[number]["value"]), low, high, SPARK_HEIGHT - 4)

    there = runs([float(number) for number in range(len(points))], [known(one["value"]) for one in points])
    return path([place(number) for number in run] for run in there)


def chart(series: Series, until: str = "") -> Chart | None:
    """Return the chart of all nights; None without a known value.

    Args:
        until: Last night of all series: where this one has none, the chart goes on without it.
    """
    points = series["points"]
    finite = [_number(one["value"]) for one in points if known(one["value"])]
    if not finite:
        return None
    times = [seconds(point["at"]) for point in points]
    first, last = times[0], max(times[-1], seconds(until) if until else times[-1])
    if last <= first:
        first, last = first - _DAY_S, last + _DAY_S
    scale = _scale(series, finite)
    low, high = scale.low, scale.high

    def place(time: float, value: float) -> tuple[int, int]:
        return round(WIDTH * (time - first) / (last - first)), _up(value, low, high, HEIGHT)

    there = [known(one["value"]) for one in points]
    values = [_number(one["value"]) for one in points]
    at = [place(time, value) for time, value in zip(times, values, strict=True)]
    nights = [number for number, good in enumerate(there) if good]
    inside = [number for number in nights if low <= values[number] <= high]
    poor = {number for number in nights if points[number]["doubt"]}
    return Chart(
        band=_band(series, times, place),
        line=path([at[number] for number in run] for run in runs(times, there)),
        dots=_dots(at[number] for number in inside if number not in poor),
        poor=_dots(at[number] for number in inside if number in poor),
        beyond=_dots(at[number] for number in nights if number not in inside),
        levels=_levels(series, times, place),
        across=tuple(_dates(first, last)),
        up=tuple(Label(round(100 * (high - value) / (high - low), 2), text) for value, text in scale.marks.items()),
        first_s=first,
        last_s=last,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _scale(series: Series, values: Sequence[float]) -> Scale:
    """Return the axis of values with its round marks."""
    low, high = _ends(values)
    room = high - low
    ends = [_number(point[end]) for point in series["points"] for end in ("low", "high")]
    scale = near([low, high, *(end for end in ends if low - room <= end <= high + room)], MOST_MARKS)
    bottom = min(scale.low, low)
    factor, unit = axis_unit(series, scale.high)
    marks = round_marks(bottom / factor, scale.high / factor)
    return Scale(bottom, scale.high, marks={mark * factor: f"{mark:.10g}{unit}" for mark in marks})


def round_marks(low: float, high: float, most: int = MOST_MARKS) -> list[float]:
    """Return at most so many round values between two ends."""
    rough = (high - low) / most
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * one for one in (*_STEPS, 20.0) if (high - low) / (size * one) <= most)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the greatest value, without spikes of one night that would flatten all others."""
    calm = [median(values[max(0, number - 1) : number + 2]) for number in range(1, len(values) - 1)]
    calm += [values[0], values[-1]]
    low, high = min(calm), max(calm)
    reach = _FAR * (high - low) or math.inf
    kept = [value for value in values if low - reach <= value <= high + reach]
    return min(kept), max(kept)


def _up(value: float, low: float, high: float, height: int) -> int:
    """Return the place of a value from the top; one beyond an end is drawn at it."""
    return round(height * (1 - min(1.0, max(0.0, (value - low) / (high - low)))))


def runs(times: Sequence[float], present: Sequence[bool]) -> list[list[int]]:
    """Return the indices of nights without a gap between them: a gap is a night that is missing or has no value."""
    gaps = [after - before for before, after in pairwise(times)]
    longest = 1.9 * max(median(gaps) if gaps else 0.0, 1.0)
    found: list[list[int]] = []
    for number, there in enumerate(present):
        if there:
            goes_on = bool(found) and found[-1][-1] == number - 1 and gaps[number - 1] <= longest
            found[-1].append(number) if goes_on else found.append([number])
    return found


def path(pieces: Iterable[Sequence[Spot]]) -> str:
    """Return a line through each piece, in relative steps; a piece of one place is a dot."""
    parts: list[str] = []
    for (x, y), *rest in pieces:
        parts.append(f"M{x} {y}" + ("" if rest else "h0"))
        before = (x, y)
        for spot in rest:
            parts.append(_step(spot[0] - before[0], spot[1] - before[1]))
            before = spot
    return "".join(parts)


def _step(across: int, down: int) -> str:
    if not down:
        return f"h{across}"
    return f"l{across}{down}" if down < 0 else f"l{across} {down}"


def _dots(spots: Iterable[Spot]) -> str:
    """Return lines of no length, which round ends make dots."""
    parts: list[str] = []
    before = (0, 0)
    for spot in spots:
        across, down = spot[0] - before[0], spot[1] - before[1]
        parts.append(f"m{across}{'' if down < 0 else ' '}{down}h0")
        before = spot
    return "".join(parts)


def _band(series: Series, times: Sequence[float], place: Place) -> str:
    """Return the area between the ends of the intervals, a piece for each run of nights that have both."""
    there = [known(one["low"]) and known(one["high"]) and known(one["value"]) for one in series["points"]]
    return "".join(_area(series, times, nights, place) for nights in runs(times, there))


def _area(series: Series, times: Sequence[float], nights: Sequence[int], place: Place) -> str:
    highs = [place(times[one], _number(series["points"][one]["high"])) for one in nights]
    lows = [place(times[one], _number(series["points"][one]["low"])) for one in nights]
    if len(nights) == 1:
        (x, top), (_, bottom) = highs[0], lows[0]
        return f"M{x - 3} {top}h6V{bottom}h-6z"
    return path([[*highs, *reversed(lows)]]) + "z"


def _levels(series: Series, times: Sequence[float], place: Place) -> str:
    parts = []
    for one in segments(series):
        if one.level is not None:
            (x, y), (end, _) = place(times[one.first], one.level), place(times[one.last - 1], one.level)
            parts.append(f"M{x} {y}H{end}")
    return "".join(parts)


def _dates(first: float, last: float) -> list[Label]:
    """Return the marks of the time axis: days, weeks or months."""
    begin, end = (datetime.fromtimestamp(one, UTC) for one in (first, last))
    days = (last - first) / _DAY_S
    if days > 70:
        every = 1 if days < 220 else 2 if days < 430 else max(3, round(days / 180))
        months = range(begin.year * 12 + begin.month, end.year * 12 + end.month, every)
        dates = [datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in months]
        names = [f"{date:%b}" if date.month > every else f"{date:%b %Y}" for date in dates]
    else:
        step = next((one for one in (1, 2, 7, 14) if days / one <= 6), 14)
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        dates = [midnight + timedelta(days=step * number) for number in range(1 + int(days // step))]
        names = [f"{date.day} {date:%b}" for date in dates]
    found = [(100 * (date.timestamp() - first) / (last - first), name) for date, name in zip(dates, names, strict=True)]
    return [Label(round(at, 2), name) for at, name in found if 0 <= at <= 97]
