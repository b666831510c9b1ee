"""Numbers and texts as people read them: digits by the interval, texts of others without unsafe characters."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

UNKNOWN = "—"
THIN = "\u202f"
ROUGHLY = "~"
BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
PLAIN_DIGITS = 3
WIDE_SHARE, WIDE_POINTS = 0.5, 0.1  # of the value; of a share, in absolute terms
MOST_DECIMALS, LEAST_WRITTEN_OUT = 6, 1e-4


def amount(value: float, low: float = math.nan, high: float = math.nan, show: str = "number") -> str:
    """Return a number as text; show: "time" and "number" as is, "share" in per cent, "bytes" with a binary unit.

    At least three digits, more of a narrow interval. Times have three whatever their interval, and whole numbers all
    of theirs: so a larger one is never printed as the smaller.
    """
    if not math.isfinite(value):
        return UNKNOWN
    if show == "time":
        return _digits(value, math.nan, math.nan)
    if show == "share":
        return f"{_digits(value * 100, low * 100, high * 100)}{THIN}%"
    if show == "bytes":
        unit = min(int(math.log(abs(value), 1024)), len(BINARY) - 1) if abs(value) >= 1 else 0
        scale = 1024.0**unit
        return f"{_digits(value / scale, low / scale, high / scale)}{THIN}{BINARY[unit]}"
    return _digits(value, low, high)


def sampling(options: Mapping[str, object]) -> str:
    """Return sampling parameters with their values, in words."""
    values = (f"{name} {f'{value:g}' if isinstance(value, float) else value}" for name, value in options.items())
    return ", ".join(values) or "left to the server"


def estimate(row: dict[str, object] | None, show: str = "number") -> str:
    """Return the value of a row of the summary, with ROUGHLY behind it where it is not known well.

    See `wide`; a rate or a size without any interval is not marked. "> X" or "< X" only if there is no value: some
    observations are known by a bound.
    """
    if row is None:
        return UNKNOWN
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))  # type: ignore[arg-type]
    show = _show(row, show)
    if math.isfinite(value):
        statistic = str(row.get("statistic", ""))
        has_interval = statistic.startswith("p") or row["bound"] != "point" or math.isfinite(high - low)
        roughly = has_interval and statistic != "max" and wide(value, low, high, show, beyond(row))
        return amount(value, low, high, show) + (ROUGHLY if roughly else "")
    bound, sign = (high, "<") if row["bound"] == "upper" else (low, ">")
    return f"{sign}{THIN}{amount(bound, show=show)}" if math.isfinite(bound) else UNKNOWN


def wide(value: float, low: float, high: float, show: str = "number", beyond: float = math.inf) -> bool:
    """Return whether an interval is open or wider than half its value, that of a share wider than 0.1.

    So is one of a quantile with less than one observation beyond it.
    """
    return beyond < 1 - 1e-9 or not high - low <= (WIDE_POINTS if show == "share" else WIDE_SHARE * abs(value))


def beyond(row: Mapping[str, Any]) -> float:
    """Return how many observations lie beyond the quantile of a row of the summary; infinity if it is none."""
    statistic = str(row.get("statistic", ""))
    return row["n"] * (1 - float(statistic[1:]) / 100) if re.fullmatch(r"p[\d.]+", statistic) else math.inf


def interval(row: dict[str, object] | None, show: str = "number") -> str:
    """Return the 95 % interval of a value that has both ends, else ""."""
    if row is None or row["bound"] != "point":
        return ""
    return between(float(row["low"]), float(row["high"]), _show(row, show))  # type: ignore[arg-type]


def _show(row: dict[str, object], show: str) -> str:
    return "time" if row.get("unit") == "ms" else show


def between(low: float, high: float, show: str = "number") -> str:
    """Return an interval by its ends, "" if one is unknown or they are equal."""
    if math.isnan(low) or math.isnan(high) or low == high:
        return ""
    first = amount(low, low, high, show) if math.isfinite(low) else "−∞"
    last = amount(high, low, high, show) if math.isfinite(high) else "∞"
    return f"{first} to {last}"


def seconds(value: float | None) -> str:
    """Return a time within a trial."""
    return UNKNOWN if value is None else f"{value:.3g}{THIN}s" if value < 100 else f"{value:.0f}{THIN}s"


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, from an hour on with hours: "1:05", "1:01:05"."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def count(number: int, noun: str) -> str:
    """Return a number of things: "1 request", "2 requests"."""
    return f"{grouped(str(number))} {noun}{'' if number == 1 else 's'}"


def _digits(value: float, low: float, high: float) -> str:
    """Return a number with three digits, or to about a tenth of a narrow interval; 0 for zero only."""
    width = high - low
    known = math.isfinite(width) and width > max(1e-9, 1e-6 * abs(value))  # narrower is rounding noise
    if not known and not value:
        return "0"
    least = PLAIN_DIGITS - 1 - math.floor(math.log10(abs(value))) if value else 0
    decimals = max(least, -math.floor(math.log10(width / 10)) if known else 0, 0)
    if decimals > MOST_DECIMALS and 0 < abs(value) < LEAST_WRITTEN_OUT:
        return f"{value:.1e}"
    return grouped(f"{value:.{min(decimals, MOST_DECIMALS)}f}")


def digits(value: float, number: int) -> str:
    """Return a value with so many digits that count; a large one has no exponent."""
    return grouped(f"{float(f'{value:.{number}g}'):.10g}")


def grouped(digits: str) -> str:
    """Return digits in groups of thousands, from five digits on."""
    whole, dot, rest = digits.partition(".")
    sign, whole = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    if len(whole) < 5:
        return digits
    parts = [whole[max(0, end - 3) : end] for end in range(len(whole), 0, -3)]
    return sign + THIN.join(reversed(parts)) + dot + rest


def joined(parts: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)


def dotted(parts: Iterable[str]) -> str:
    """Return names separated by dots, without empty ones."""
    return " · ".join(part for part in parts if part)


def shortened(text: str, longest: int) -> str:
    """Return the beginning of a text that is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def shortened_inside(text: str, longest: int) -> str:
    """Return both ends of a text that is too long."""
    return text if len(text) <= longest else f"{text[: longest // 2]}…{text[-longest // 2 :]}"


# XML 1.0 cannot hold these, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def for_xml(text: str) -> str:
    """Return a text without characters that XML cannot hold."""
    return _FORBIDDEN.sub("\ufffd", text)


def for_terminal(text: str) -> str:
    """Return one line without escape sequences and without characters that turn the direction of text."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
