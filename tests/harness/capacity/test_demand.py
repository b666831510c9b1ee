"""Demand: what is read of a rate, a table and a file, the peak that is planned for, and a week with a clock change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.capacity.demand import PER_DAY, PER_HOUR, PER_WEEK, Demand, of_hours, of_rate, of_trace
from harness.capacity.demand_files import read_demand, read_table
from harness.errors import HarnessError, ScenarioError, UsageError
from harness.prices.catalogue import read_catalogue
from harness.prices.hours import parse_hours

BERLIN = ZoneInfo("Europe/Berlin")


def read(path: Path, **options: object) -> Demand:
    """The demand of a file."""
    return read_demand(str(path), options, read_catalogue()).demand


def written(folder: Path, name: str, text: str) -> Path:
    """A file."""
    path = folder / name
    path.write_text(text)
    return path


def test_a_rate_is_the_same_all_week() -> None:
    """Peak and mean are it."""
    found = read_demand("12.5", {}, read_catalogue()).demand
    assert (found.peak_rps, found.mean_rps, found.varies, len(found.week)) == (12.5, 12.5, False, PER_WEEK)


def test_the_peak_is_the_99th_percentile_of_the_buckets() -> None:
    """Of 1,000 buckets ten may ask for more; the busiest are planned as it."""
    rates = np.arange(1.0, 1001.0)
    found = of_trace(np.arange(1000) * 300.0, rates, 300.0, UTC, "t")
    assert found.peak_rps == 990.0
    assert found.planned.max() == 990.0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=400), st.sampled_from([30.0, 60.0, 300.0, 900.0, 3600.0]))
def test_buckets_hold_the_requests_of_the_table(rates: list[float], step_s: float) -> None:
    """Whatever the distance of its rows: the mean of full buckets is that of the rows."""
    per_bucket = max(1, round(300 / step_s))
    rates = rates[: len(rates) // per_bucket * per_bucket]
    if rates:
        found = of_trace(np.arange(len(rates)) * step_s, np.array(rates), step_s, UTC, "t")
        assert found.mean_rps == pytest.approx(np.mean(rates), abs=1e-9)
        assert found.buckets.max() <= max(rates) + 1e-9


def test_a_week_in_local_time_keeps_its_hours_over_a_clock_change(tmp_path: Path) -> None:
    """Nine in the morning is nine before and after it, with an hour less between."""
    begin = datetime(2026, 3, 23, tzinfo=BERLIN)
    times = [begin.astimezone(UTC) + timedelta(hours=hour) for hour in range(14 * 24)]
    rates = [10 if time.astimezone(BERLIN).hour == 9 else 1 for time in times]
    table = pd.DataFrame({"time": times, "requests_per_s": rates})
    table.to_parquet(tmp_path / "d.parquet")
    table.to_csv(tmp_path / "d.csv", index=False)
    for name in ("d.parquet", "d.csv"):
        week = read_table(tmp_path / name, BERLIN).week.reshape(7, 24, PER_HOUR)
        assert (week[:, 9] == 10).all()
        assert week.sum() == 7 * (10 + 23) * PER_HOUR
    utc = read_table(tmp_path / "d.csv", UTC).week.reshape(7, 24, PER_HOUR)
    assert (utc[0, [7, 8]] == 10).all()


def test_times_without_a_zone_are_local(tmp_path: Path) -> None:
    """In the time zone of the file, else in that of the working hours, else UTC."""
    rows = "".join(f"2026-06-0{1 + hour // 24}T{hour % 24:02}:00,{5 if hour == 9 else 1}\n" for hour in range(48))
    written(tmp_path, "d.csv", f"time,requests_per_s\n{rows}")
    for zone in ("UTC", "Europe/Berlin"):
        path = written(tmp_path, "d.yaml", f"{{file: d.csv, time_zone: {zone}}}")
        assert read(path).week[9 * PER_HOUR] == 5
    assert read(tmp_path / "d.csv", scaling="hours", hours="mon-fri 9-18 Asia/Tokyo").week[9 * PER_HOUR] == 5


def test_requests_in_each_row_become_a_rate(tmp_path: Path) -> None:
    """By the time until the next one."""
    found = read(written(tmp_path, "d.csv", "time,requests\n0,60\n60,120\n120,180\n"))
    assert found.buckets.tolist() == [2.0]
    assert found.notes == (
        "The file has 1 of the 2,016 buckets of a week: other days stand for the rest, else the peak.",
    )


def test_requests_of_a_row_arrive_until_the_next_one(tmp_path: Path) -> None:
    """One more row than usual changes no mean. A row before a gap is as long as usual."""
    rows = {0: 60, 60: 30, 61: 30, 120: 60, 180: 60, 240: 60, 1200: 60}
    text = "".join(f"{time},{requests}\n" for time, requests in rows.items())
    found = read(written(tmp_path, "d.csv", f"time,requests\n{text}"))
    assert found.buckets.tolist() == pytest.approx([1.0, 1.0])


def test_a_missing_time_is_unknown_and_not_zero(tmp_path: Path) -> None:
    """It is taken from other days, or from the peak, and the reader is told."""
    day = written(tmp_path, "d.csv", "time,requests_per_s\n" + "".join(f"{i * 3600},{1 + i}\n" for i in range(24)))
    found = read(day)
    assert found.week.reshape(7, PER_DAY).std(axis=0).max() == 0
    assert (found.peak_rps, found.week.min()) == (24.0, 1.0)
    assert any("3600 s apart" in note for note in found.notes)
    holes = of_trace(np.array([0.0, 300.0, 1500.0]), np.array([1.0, 1.0, 1.0]), 300.0, UTC, "t")
    assert "3 buckets of 5 minutes are missing from the file; they count as unknown." in holes.notes
    assert holes.week.min() == 1.0


def test_profiles_of_a_day_and_of_a_week(tmp_path: Path) -> None:
    """24 rates, or those of each day."""
    hourly = ", ".join(map(str, range(1, 25)))
    found = read(written(tmp_path, "d.yaml", f"day: [{hourly}]"))
    assert found.week.reshape(7, 24, PER_HOUR)[3, :, 0].tolist() == list(range(1, 25))
    days = ", ".join(f"{name}: 5" for name in ("mon", "tue", "wed", "thu", "fri", "sat"))
    found = read(written(tmp_path, "d.yaml", f"week: {{{days}, sun: [{hourly}]}}"))
    assert found.week[0] == 5
    assert found.week[-1] == 24


def test_only_the_demand_of_working_hours_is_served() -> None:
    """The share outside is told."""
    hours = parse_hours("mon-fri 09:00-18:00")
    found = of_hours([1.0] * 24, "d")
    assert found.outside(hours) == pytest.approx(1 - 45 / 168)
    assert found.within(hours).week.sum() == 45 * PER_HOUR
    assert found.within(hours).mean_rps == 1.0
    assert of_rate(2.0).within(hours).peak_rps == 2.0
    night = of_hours([1.0, *[0.0] * 23], "d")
    with pytest.raises(UsageError, match="no requests arrive then"):
        night.within(hours)


def test_the_mean_within_hours_is_that_of_the_requests() -> None:
    """Two weeks with other rates: the week has the larger ones, the mean counts both."""
    starts = np.arange(2 * PER_WEEK) * 300.0 + 4 * 86_400
    rates = np.where(np.arange(2 * PER_WEEK) < PER_WEEK, 1.0, 3.0)
    found = of_trace(starts, rates, 300.0, UTC, "d").within(parse_hours("mon-fri 09:00-18:00"))
    assert (found.mean_rps, found.peak_rps, found.planned.max()) == (2.0, 3.0, 3.0)


def test_assumptions_of_the_command_go_before_those_of_the_file(tmp_path: Path) -> None:
    """And both are told apart from the defaults."""
    path = written(tmp_path, "d.yaml", "{rate: 12, headroom: 70%, growth: 20%}")
    found = read_demand(str(path), {"headroom": "90%"}, read_catalogue())
    assert (found.assumed.headroom, found.assumed.growth, found.given) == (0.9, 0.2, {"headroom", "growth"})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.csv", "", "has 0 rows"),
        ("d.csv", "time,requests_per_s\n", "has 0 rows; write at least two"),
        ("d.csv", "t,r\n0,1\n", "d.csv:1: has no column `time`"),
        ("d.csv", "time,rate\n0,1\n", "d.csv:1: needs either `requests_per_s` or `requests`"),
        ("d.csv", "time,requests_per_s\n0,1\n0,2\n", "d.csv:3: `time` is not after the row before; sort the rows"),
        ("d.csv", "time,requests_per_s\n0,1\n300,-2\n", "d.csv:3: `requests_per_s` must be a number of at least 0"),
        ("d.csv", "time,requests_per_s\n0,1\n300,nan\n", "d.csv:3: `requests_per_s` must be a number of at least 0"),
        ("d.csv", "time,requests_per_s\n0,1\n300,\n", "d.csv:3: `requests_per_s` must be a number of at least 0"),
        ("d.csv", "time,requests_per_s\nsoon,1\n", "d.csv:2: `time` must be a date and time such as"),
        (
            "d.csv",
            "time,requests_per_s\n1764493200000,1\n1764493500000,1\n",
            "d.csv:2: `time` 1764493200000 is no number of seconds; divide milliseconds by 1000",
        ),
        ("d.csv", "time,requests_per_s\n0,0\n300,0\n", "has no request"),
        ("d.csv", "time,requests_per_s\n0,1\n604800,1\n", "has less than one row a day"),
        ("d.jsonl", "{]\n", "d.jsonl:1: is not JSON"),
        ("d.parquet", "no", "is not a Parquet file"),
        ("d.yaml", "", "is empty; write `rate: 12`"),
        ("d.yaml", "12", "must be a mapping, such as `rate: 12`"),
        ("d.yaml", "{rate: 12, file: d.csv}", "`rate` and `file` exclude each other"),
        ("d.yaml", "growth: 20%", "needs `rate`, `day`, `week` or `file`"),
        ("d.yaml", "rate: 0", "rate: must be more than 0, found 0"),
        ("d.yaml", "day: [1, 2]", "day: must have 24 rates, one for each hour, found 2"),
        ("d.yaml", f"day: {[0] * 24}", "day: has no rate above 0"),
        ("d.yaml", "week: {mon: 1}", "week: lacks tue, wed, thu, fri, sat and sun"),
        ("d.yaml", "week: {mon: 1, tus: 1}", "week.tus: unknown day; did you mean `tue`?"),
        ("d.yaml", "{rate: 12, headroom: 0.8}", "headroom: 0.8 has no unit; write `80%`"),
        ("d.yaml", "{rate: 12, headrom: 80%}", "headrom: unknown key; did you mean `headroom`?"),
        ("d.yaml", "{rate: 12, time_zone: Mars}", "time_zone: unknown time zone `Mars`"),
        ("d.yaml", "{rate: 12, survive: zones}", "survive: must be `nothing`, `replica` or `zone`, found 'zones'"),
        ("d.yaml", "{file: none.csv}", "none.csv: cannot be read: No such file"),
        ("d.yaml", "{rate: 1, scaling: hours}", "`scaling: hours` needs `hours`"),
        ("d.yaml", "{rate: 1, hours: weekdays}", "`hours` needs `scaling: hours`"),
        (
            "d.yaml",
            "{rate: 1, time_zone: UTC, scaling: hours, hours: mon 9-18 Asia/Tokyo}",
            "time_zone: is UTC, and the hours are in Asia/Tokyo; write one time zone",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path: Path, name: str, text: str, message: str) -> None:
    """With its line, and what to write instead."""
    with pytest.raises(ScenarioError) as found:
        read(written(tmp_path, name, text))
    assert message in str(found.value)
    assert len(found.value.problems) == 1


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("0", {}, "--demand 0: write requests per second above 0"),
        ("-1", {}, "--demand -1: write requests per second above 0"),
        ("nan", {}, "--demand nan: write requests per second above 0"),
        ("many", {}, "--demand many: write requests per second, such as 12, or name a .csv"),
        ("12", {"headroom": "0.8"}, "--headroom 0.8: 0.8 has no unit; write `80%`"),
        ("12", {"headroom": "120%"}, "--headroom 120%: must be at most 1"),
        ("12", {"min_dwell": "10"}, "--min-dwell 10: "),
        ("12", {"zones": 1}, "--zones 1: must be at least 2, found 1"),
        ("12", {"pricing": "spots"}, "--pricing spots: must be `on_demand`, `spot`, `reserved` or `owned`"),
        ("12", {"api_price": "3"}, "--api-price 3: '3' is no price"),
        ("12", {"scaling": "hours", "hours": "weekend"}, "--hours: 'weekend' are no working hours"),
        ("12", {"scaling": "hours"}, "`scaling: hours` needs `hours`"),
    ],
)
def test_a_wrong_command_is_refused_in_a_sentence(text: str, options: dict[str, object], message: str) -> None:
    """Which names the option."""
    with pytest.raises(HarnessError) as found:
        read_demand(text, options, read_catalogue())
    assert isinstance(found.value, UsageError)
    assert str(found.value).startswith(message)
