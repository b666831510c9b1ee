"""Settings of a store: what may stand in `history.yaml`, and when nights are missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ScenarioError
from harness.history.store.settings import SETTINGS, Schedule, Settings, read_settings

WHOLE = """
schedule: {every: 24h, grace: 6h, days: [mon, tue, wed, thu, fri]}
controls:
  - pinned
  - {engine: simulated}
release: tag
fail_on: [ttft p95 +10%, error_rate +0.5pp]
metrics: [ttft p95, goodput_rps]
"""
MONDAY = datetime(2026, 11, 30, 2, 30, tzinfo=UTC)


def settings(folder: Path, text: str) -> Settings:
    """The settings of a text."""
    (folder / SETTINGS).write_text(text)
    return read_settings(folder)


def test_without_a_file_or_in_an_empty_one_the_defaults_hold(tmp_path: Path) -> None:
    """No schedule, so no night is missing; no controls."""
    assert read_settings(tmp_path) == settings(tmp_path, "# nothing yet\n")
    assert read_settings(tmp_path) == Settings.model_validate({})
    assert (read_settings(tmp_path).release, read_settings(tmp_path).selection) == ("release", frozenset())


def test_a_whole_file(tmp_path: Path) -> None:
    """Short forms stand for long ones; numbers are those of the registry."""
    found = settings(tmp_path, WHOLE)
    assert found.schedule is not None
    assert (found.schedule.every_s, found.schedule.grace_s) == (86_400, 21_600)
    assert [one.variant for one in found.controls] == ["pinned", None]
    assert found.selection == {("ttft_ms", "p95"), ("goodput_rps", "value")}
    assert found.fail_on == ["ttft p95 +10%", "error_rate +0.5pp"]
    assert found.metrics == ["ttft_ms p95", "goodput_rps"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("shedule: {every: 24h}", "history.yaml:1:1: shedule: unknown key; did you mean `schedule`?"),
        ("release: a\nschedule: {evry: 24h}", "history.yaml:2:12: schedule.evry: unknown key; did you mean `every`?"),
        ("schedule: {}", "history.yaml:1:1: schedule: needs `every` or `at`"),
        ("schedule: {every: 24h, at: '02:00'}", "exclude each other; keep one"),
        ("schedule: {every: 24}", "schedule.every: 24 has no unit"),
        ("schedule: {every: 0s}", "schedule.every"),
        ("schedule: {at: '25:00'}", "'25:00' is no time of day; write it in UTC, such as '02:30'"),
        ("schedule: {cron: '0 2 * * *'}", "write `at: '02:30'` with `days: [mon, tue]`, or `every: 24h`"),
        ("schedule: {every: 24h, days: [monday]}", "schedule.days"),
        ("controls: [{}]", "needs a key, such as `variant: pinned`"),
        ("controls: [{varient: a}]", "unknown key; did you mean `variant`?"),
        ("fail_on: [ttft p95]", "is no margin"),
        ("metrics: [ttft]", "`ttft_ms` needs a statistic; write for example `ttft_ms p95`"),
        ("metrics: [tfft p95]", "unknown metric `tfft`"),
        ("metrics: [goodput_rps p95]", "`goodput_rps` has a single value; leave out `p95`"),
        ("metrics: [ttft p0x]", "unknown statistic `p0x`"),
        ("- a", "must be a mapping at the top, such as `schedule: {every: 24h}`"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_mistake_has_its_place_and_its_fix(tmp_path: Path, text: str, sentence: str) -> None:
    """As in a scenario."""
    with pytest.raises(ScenarioError) as error:
        settings(tmp_path, text)
    assert sentence in str(error.value)
    assert f"{SETTINGS}:" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "hours", "missing"),
    [
        ({"every": "24h", "grace": "6h"}, 29.9, 0),
        ({"every": "24h", "grace": "6h"}, 30, 1),
        ({"every": "24h"}, 36, 1),
        ({"every": "24h"}, 24 * 7 + 12, 7),
        ({"every": "24h", "days": ["mon", "tue", "wed", "thu", "fri"]}, 24 * 7 + 12, 5),
        ({"at": "02:30", "grace": "2h"}, 25.9, 0),
        ({"at": "02:30", "grace": "2h"}, 26, 1),
        ({"at": ["14:30", "02:30"], "grace": "1h"}, 25, 2),
        ({"at": "02:35", "grace": "1h"}, 2, 0),  # this run began five minutes early
        ({"at": "02:30", "days": "mon", "grace": "1h"}, 24 * 6, 0),
        ({"at": "02:30", "days": "mon", "grace": "1h"}, 24 * 7 + 1, 1),
    ],
)
def test_nights_that_were_due_are_missing_after_the_grace(keys: dict[str, object], hours: float, missing: int) -> None:
    """Counted from the last night, a Monday at half past two."""
    found = Schedule.model_validate(keys).missing(MONDAY, MONDAY + timedelta(hours=hours))
    assert len(found) == missing
    assert found == sorted(found)


@given(st.floats(0, 4000), st.sampled_from([{"every": "24h"}, {"every": "36h"}, {"at": ["02:30", "20:00"]}]))
def test_missing_nights_only_become_more(hours: float, keys: dict[str, object]) -> None:
    """As time goes by, and never begin before the last night."""
    schedule = Schedule.model_validate(keys)
    now, later = (MONDAY + timedelta(hours=one) for one in (hours, hours + 30))
    first, second = schedule.missing(MONDAY, now), schedule.missing(MONDAY, later)
    assert second[: len(first)] == first
    assert all(MONDAY < one <= later for one in second)
    assert schedule.missing(later, MONDAY) == []
