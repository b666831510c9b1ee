"""Demand as a user names it: a rate, a table of times and rates, or a YAML file with a profile and assumptions."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Field, ValidationError

from harness.capacity.demand import Demand, hours_of_days, of_hours, of_rate, of_trace
from harness.errors import ScenarioError, UsageError
from harness.prices.catalogue import Catalogue
from harness.prices.files import parse_file, wrong, wrong_at
from harness.prices.hours import DAYS, WorkingHours, zone_of
from harness.scenario.base import NotNegative, Positive, near
from harness.scenario.checks import in_order, problems_of
from harness.scenario.files.entries import entries
from harness.scenario.plan import KEYS, Assumptions
from harness.scenario.yaml_tree import Node, Place
from harness.units import enumerated

TIME, RATE, REQUESTS = "time", "requests_per_s", "requests"
_TABLES = (".csv", ".parquet", ".json", ".jsonl")
_COLUMNS = f"write the columns `{TIME}` and `{RATE}`, or `{TIME}` and `{REQUESTS}`"
_MONDAY_S = 4 * 86_400.0
"""Monday 1970-01-05 in UTC: rows in seconds count from it."""
_SINCE_1970_S, _MOST_S = 1e8, 1e11
_MOST_ROWS = 2_000_000


def _all_hours(rates: tuple[float, ...]) -> tuple[float, ...]:
    if len(rates) != 24:
        raise ValueError(f"must have 24 rates, one for each hour, found {len(rates)}")
    return rates


HourlyRates = Annotated[tuple[NotNegative, ...], AfterValidator(_all_hours)]


def _some_above_zero(rates: tuple[float, ...]) -> tuple[float, ...]:
    if not max(rates) > 0:
        raise ValueError("has no rate above 0; write the requests per second of each hour")
    return rates


def _checked_zone(name: str) -> str:
    zone_of(name)
    return name


class DemandFile(Assumptions):
    """YAML file of a demand: one of `rate`, `day`, `week` and `file`, and assumptions."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("rate", "day", "week", "file"),)

    rate: Positive | None = Field(default=None, examples=[12])
    day: Annotated[HourlyRates, AfterValidator(_some_above_zero)] | None = None
    week: dict[str, NotNegative | HourlyRates] | None = None
    file: str | None = Field(default=None, examples=["requests.csv"])
    time_zone: Annotated[str, AfterValidator(_checked_zone)] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a plan is asked for.

    Attributes:
        hours: Working hours; None unless replicas run in them alone.
        given: Keys of the assumptions that the user set.
    """

    demand: Demand
    assumed: Assumptions
    hours: WorkingHours | None
    given: frozenset[str]


def read_demand(
    text: str, options: Mapping[str, Any], catalogue: Catalogue, stated: Mapping[str, Any] = MappingProxyType({})
) -> Asked:
    """Return the demand, the assumptions of its plan, and the keys of those that the user set.

    Args:
        text: Rate or file.
        options: Assumptions of the command line by key; they go before those of a file.
        catalogue: Prices, which name working hours.
        stated: Assumptions of the scenario by key; those of a file go before them.

    Raises UsageError for a text that names neither, ScenarioError for a wrong file.
    """
    path, rate = Path(text), _as_rate(text)
    if rate is None and path.suffix.lower() in (".yaml", ".yml"):
        return _read_yaml(path, options, catalogue, stated)
    options = {**stated, **options}
    assumed = _checked(options)
    hours = None if assumed.hours is None else catalogue.hours(assumed.hours)
    if rate is not None:
        return Asked(of_rate(rate), assumed, hours, frozenset(options))
    if path.suffix.lower() in _TABLES:
        zone = (hours and hours.zone) or UTC
        return Asked(read_table(path, zone), assumed, hours, frozenset(options))
    raise UsageError(f"--demand {text}: write requests per second, such as 12, or name a .csv, .parquet or .yaml file")


def _as_rate(text: str) -> float | None:
    try:
        rate = float(text)
    except ValueError:
        return None
    if not math.isfinite(rate) or rate <= 0:
        raise UsageError(f"--demand {text}: write requests per second above 0, such as 12")
    return rate


def _checked(options: Mapping[str, Any]) -> Assumptions:
    """Return the assumptions of the command line. Raises UsageError, which names the option."""
    places = {key: Node(value, Place(f"--{key.replace('_', '-')} {value}")) for key, value in options.items()}
    try:
        return Assumptions.model_validate(dict(options))
    except ValidationError as error:
        first = problems_of(error, Node(dict(places), Place("")))[0]
        named = f"{first.file}: " if first.file else ""
        raise UsageError(f"{named}{first.message}") from None


def _read_yaml(path: Path, options: Mapping[str, Any], catalogue: Catalogue, defaults: Mapping[str, Any]) -> Asked:
    _checked({key: value for key, value in options.items() if key not in ("scaling", "hours")})
    tree, problems = parse_file(path, "rate: 12")
    stated = {**defaults, **tree.plain()}
    try:
        found = DemandFile.model_validate({**stated, **options})
    except ValidationError as error:
        raise ScenarioError(in_order([*problems, *problems_of(error, tree)])) from None
    if problems:
        raise ScenarioError(problems)
    hours = None if found.hours is None else catalogue.hours(found.hours)
    zone = _zone(found, hours, tree)
    assumed = Assumptions.model_construct(**{name: getattr(found, name) for name in Assumptions.model_fields})
    return Asked(_demand_of(found, path, zone, tree), assumed, hours, frozenset((*stated, *options)) & frozenset(KEYS))


def _zone(found: DemandFile, hours: WorkingHours | None, tree: Node) -> tzinfo:
    """Return the time zone of a demand, else that of the working hours. Raises ScenarioError if they differ."""
    own = None if found.time_zone is None else zone_of(found.time_zone)
    other = None if hours is None else hours.zone
    if own is not None and other is not None and str(own) != str(other):
        raise wrong_at(tree, "time_zone", f"is {own}, and the hours are in {other}; write one time zone")
    return own or other or UTC


def _demand_of(found: DemandFile, path: Path, zone: tzinfo, tree: Node) -> Demand:
    if found.rate is not None:
        return of_rate(found.rate)
    if found.file is not None:
        return read_table(path.parent / Path(found.file).expanduser(), zone)
    if found.day is not None:
        return of_hours(found.day, str(path))
    week = found.week or {}
    unknown, missing = sorted(set(week) - set(DAYS)), [day for day in DAYS if day not in week]
    if unknown:
        raise wrong_at(tree, f"week.{unknown[0]}", f"unknown day; {near(unknown[0], DAYS)}")
    if missing:
        raise wrong_at(
            tree, "week", f"lacks {enumerated(missing)}; write the requests per second of each, as `mon: 12`"
        )
    hourly = hours_of_days({day: week[day] for day in DAYS})
    if not max(hourly) > 0:
        raise wrong_at(tree, "week", "has no rate above 0; write the requests per second of each day")
    return of_hours(hourly, str(path))


def read_table(path: Path, zone: tzinfo) -> Demand:
    """Return the demand of a table of times and rates. Raises ScenarioError, which names the line.

    Times have a date, or are seconds from a Monday 00:00. Those without a zone are in `zone`.
    """
    times, values, counted = array("d"), array("d"), False
    try:
        for line, row in entries(path, _fault_of_header):
            if isinstance(row, str):
                raise wrong(path, row, line)
            if not times:
                if (fault := _fault_of_header([*row])) is not None:
                    raise wrong(path, fault, line)
                counted = RATE not in row
            at_s, value = _row(path, line, row, REQUESTS if counted else RATE, zone)
            if times and at_s <= times[-1]:
                raise wrong(path, f"`{TIME}` is not after the row before; sort the rows, one for each time", line)
            times.append(at_s)
            values.append(value)
            if len(times) > _MOST_ROWS:
                raise wrong(path, f"has more than {_MOST_ROWS:,} rows; write one for each 5 minutes", line)
    except OSError as error:
        raise wrong(path, f"cannot be read: {error.strerror or error}; name a file that can") from error
    return _of_rows(path, np.array(times), np.array(values), zone, counted=counted)


def _of_rows(path: Path, times: Any, values: Any, zone: tzinfo, *, counted: bool) -> Demand:
    if len(times) < 2:
        raise wrong(path, f"has {len(times)} rows; write at least two, a row for each stretch of time")
    step_s = float(np.median(np.diff(times)))
    if step_s > 86_400:
        raise wrong(path, "has less than one row a day; write one for each hour or less")
    if not values.max() > 0:
        raise wrong(path, "has no request; name a file with some")
    if not counted:
        return of_trace(times, values, step_s, zone, str(path))
    lengths_s = np.minimum(np.append(np.diff(times), step_s), step_s)  # what is longer is a gap
    return of_trace(times, values / lengths_s, step_s, zone, str(path), lengths_s)


def _fault_of_header(names: list[str]) -> str | None:
    if TIME not in names:
        return f"has no column `{TIME}`; {_COLUMNS}"
    if (RATE in names) == (REQUESTS in names):
        return f"needs either `{RATE}` or `{REQUESTS}`; {_COLUMNS}"
    return None


def _row(path: Path, line: int, row: Mapping[str, object], name: str, zone: tzinfo) -> tuple[float, float]:
    try:
        return _seconds(row.get(TIME), zone), _rate(name, row.get(name))
    except ValueError as error:
        raise wrong(path, str(error), line) from None


def _rate(name: str, value: object) -> float:
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or found < 0 or isinstance(value, bool):
        raise ValueError(f"`{name}` must be a number of at least 0, found {str(value)[:40]!r}")
    return found


def _seconds(value: object, zone: tzinfo) -> float:
    """Return seconds since 1970."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=zone)).timestamp()
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if _MOST_S < number < math.inf:
        raise ValueError(f"`{TIME}` {text[:40]} is no number of seconds; divide milliseconds by 1000")
    if math.isfinite(number) and number >= 0:
        return number if number >= _SINCE_1970_S else number + _monday(zone)
    try:
        return _seconds(datetime.fromisoformat(text), zone)
    except ValueError:
        example = "`2026-11-30T09:00:00Z`"
        raise ValueError(
            f"`{TIME}` must be a date and time such as {example}, or seconds, found {text[:40]!r}"
        ) from None


def _monday(zone: tzinfo) -> float:
    """Return the seconds since 1970 of the first Monday in a zone."""
    return datetime.fromtimestamp(_MONDAY_S, UTC).replace(tzinfo=zone).timestamp()
