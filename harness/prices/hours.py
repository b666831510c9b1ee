"""Working hours with a time zone: when replicas run, in local time, also in weeks with a clock change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK_H, MONTH_H = 168, 730
"""Hours of a week, and of the month that costs are stated for (8,760 hours a year / 12)."""
_EXAMPLE = "`mon-fri 09:00-18:00 Europe/Berlin`"
_SHAPE = re.compile(
    r"(?P<days>[a-z]{3}(?:[-,][a-z]{3})*)\s+(?P<begin>\d{1,2}(?::\d{2})?)\s*-\s*(?P<end>\d{1,2}(?::\d{2})?)"
    r"(?:\s+(?P<zone>\S+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class WorkingHours:
    """Days of a week, from one time of day to another.

    Attributes:
        days: Weekdays from 0 (Monday).
        begin, end: Local times; an end at or before the begin is on the next day.
        zone: Time zone; None: that of the demand.
        text: As written.
    """

    days: frozenset[int]
    begin: time
    end: time
    zone: tzinfo | None
    text: str

    def spans(self, first: date, last: date) -> Iterator[tuple[datetime, datetime]]:
        """Yield begin and end in UTC of each day from `first` to `last`, both included."""
        day = first
        while day <= last:
            if day.weekday() in self.days:
                end_day = day if self.end > self.begin else day + timedelta(days=1)
                zone = self.zone or UTC
                ends = datetime.combine(day, self.begin, zone), datetime.combine(end_day, self.end, zone)
                yield ends[0].astimezone(UTC), ends[1].astimezone(UTC)
            day += timedelta(days=1)

    def hours_of_week(self, monday: date) -> float:
        """Return the hours that begin in the week of a Monday, as a clock on the wall does not show them."""
        return (
            sum((end - begin).total_seconds() for begin, end in self.spans(monday, monday + timedelta(days=6))) / 3600
        )

    @property
    def usual_hours(self) -> float:
        """Hours of a week without a clock change."""
        begin, end = (one.hour + one.minute / 60 for one in (self.begin, self.end))
        return len(self.days) * (end - begin if end > begin else end - begin + 24)

    @property
    def share(self) -> float:
        """Share of a week without a clock change."""
        return self.usual_hours / WEEK_H

    def covers(self, minute: int) -> bool:
        """Return whether a minute of a week without a clock change, from Monday 00:00, is within the hours."""
        day, of_day = divmod(minute % (WEEK_H * 60), 24 * 60)
        begin, end = (one.hour * 60 + one.minute for one in (self.begin, self.end))
        if end > begin:
            return day in self.days and begin <= of_day < end
        return (day in self.days and of_day >= begin) or ((day - 1) % 7 in self.days and of_day < end)


def parse_hours(text: str) -> WorkingHours:
    """Return working hours from their text. Raises ValueError, with the fix."""
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} are no working hours; write days, times and a time zone, such as {_EXAMPLE}")
    begin, end = _time(match["begin"]), _time(match["end"])
    if begin == end and int(match["end"].partition(":")[0]) != 24:
        raise ValueError(f"{text!r} begins and ends at the same time; write two times, such as {_EXAMPLE}")
    zone = None if match["zone"] is None else zone_of(match["zone"])
    return WorkingHours(frozenset(_days(match["days"].lower())), begin, end, zone, " ".join(text.split()))


def zone_of(name: str) -> tzinfo:
    """Return a time zone. Raises ValueError for an unknown one."""
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"unknown time zone `{name}`; write one such as `Europe/Berlin` or `UTC`") from None


def _time(text: str) -> time:
    hour, _, minute = text.partition(":")
    if int(hour) == 24 and not int(minute or 0):
        return time(0)
    if int(hour) > 23 or int(minute or 0) > 59:
        raise ValueError(f"`{text}` is no time of day; write one such as `09:00`")
    return time(int(hour), int(minute or 0))


def _days(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, *rest = part.split("-")
        for name in (first, *rest):
            if name not in DAYS:
                raise ValueError(f"unknown day `{name}`; known are {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(rest[-1] if rest else first)
        yield from ((begin + step) % 7 for step in range((end - begin) % 7 + 1))
