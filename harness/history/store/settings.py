"""Settings of a store: the file `history.yaml` in its folder. It may be missing; a key that is unknown is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator

from harness.errors import Problem, ScenarioError
from harness.metrics import METRICS, SCALAR, Direction, find
from harness.scenario.base import Name, StrictModel, items_by, listed, near
from harness.scenario.checks import in_order, problems_of
from harness.scenario.limits import checked_statistic
from harness.scenario.margins import parse_margin
from harness.scenario.yaml_tree import parse
from harness.units import parse_duration_s

SETTINGS = "history.yaml"
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EARLY = timedelta(minutes=10)
"""A run may begin so much before its time: clocks differ."""
_DAY_S = 86_400.0
_MOST_TOLD = 1000


def _time(text: object) -> object:
    try:
        found = time.fromisoformat(str(text))
    except ValueError:
        raise ValueError(f"{text!r} is no time of day; write it in UTC, such as '02:30'") from None
    return f"{found:%H:%M}"


def _number(text: str) -> str:
    """Return a number as `metric statistic`. Raises ValueError if it is none that can get better or worse."""
    name, *rest = text.split() or [""]
    metric = find(name) or find(f"{name}_ms")
    if metric is None:
        raise ValueError(f"unknown metric `{name}`; {near(name, METRICS)}")
    if metric.direction is Direction.NONE or metric.per_time:
        raise ValueError(f"`{metric.name}` is neither better nor worse; leave it out")
    if not metric.takes_statistics:
        if rest:
            raise ValueError(f"`{metric.name}` has a single value; leave out `{' '.join(rest)}`")
        return metric.name
    if not rest:
        raise ValueError(f"`{metric.name}` needs a statistic; write for example `{metric.name} p95`")
    return f"{metric.name} {checked_statistic(metric.name, ' '.join(rest), '')}"


def _margin(text: str) -> str:
    return parse_margin(text).text


Duration = Annotated[float, BeforeValidator(parse_duration_s), Field(gt=0)]
TimeOfDay = Annotated[str, BeforeValidator(_time)]


class Schedule(StrictModel):
    """When nights are due. All times are UTC."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("every", "at"),)
    mistaken_keys: ClassVar[Mapping[str, str]] = {
        "cron": "unknown key; write `at: '02:30'` with `days: [mon, tue]`, or `every: 24h`",
    }

    every: Duration | None = Field(None, examples=["24h"], description="Time from the begin of a night to the next.")
    at: Annotated[list[TimeOfDay], BeforeValidator(listed)] | None = Field(
        None, min_length=1, examples=["02:30"], description="Times of day, in UTC."
    )
    days: Annotated[list[Day], BeforeValidator(listed)] = Field(
        list(DAYS), min_length=1, description="Days of the week."
    )
    grace: Duration | None = Field(None, examples=["6h"], description="A night is missing so long after it was due.")

    @property
    def every_s(self) -> float:
        """Usual time between two nights, in seconds."""
        return self.every if self.every is not None else _DAY_S / len(self.at or [""])

    @property
    def grace_s(self) -> float:
        """Time after which a night that is due is missing, in seconds: half of the time between two by default."""
        return self.grace if self.grace is not None else self.every_s / 2

    def missing(self, last: datetime, now: datetime) -> list[datetime]:
        """Return when nights were due after the last one that are missing now, oldest first; at most a thousand."""
        until = now - timedelta(seconds=self.grace_s)
        found = self._every_so_often(last, until) if self.at is None else self._at_times(last, until)
        return found[:_MOST_TOLD]

    def _every_so_often(self, last: datetime, until: datetime) -> list[datetime]:
        steps = min(int((until - last).total_seconds() // self.every_s), 10 * _MOST_TOLD)
        due = [last + timedelta(seconds=step * self.every_s) for step in range(1, steps + 1)]
        return [one for one in due if self._is_a_day(one)]

    def _at_times(self, last: datetime, until: datetime) -> list[datetime]:
        days = min(max(0, (until.date() - last.date()).days), 10 * _MOST_TOLD)
        midnight = datetime.combine(last.astimezone(UTC).date(), time(), UTC)
        due = [
            datetime.combine((midnight + timedelta(days=day)).date(), time.fromisoformat(text), UTC)
            for day in range(days + 1)
            for text in sorted(self.at or [])
        ]
        return [one for one in due if last + EARLY < one <= until and self._is_a_day(one)]

    def _is_a_day(self, moment: datetime) -> bool:
        return DAYS[moment.astimezone(UTC).weekday()] in self.days


class Control(StrictModel):
    """Series that never change, so that only the machine moves them: those that fit all keys."""

    scenario: Name | None = None
    load: Name | None = None
    model: Name | None = None
    engine: Name | None = None
    level: Name | None = None
    variant: Name | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @classmethod
    def check_keys(cls, given: Mapping[str, object]) -> list[str]:
        """Refuse a control that fits all series."""
        return [] if given else ["needs a key, such as `variant: pinned`"]

    def fits(self, facts: Mapping[str, str]) -> bool:
        """Return whether it is about a series with these facts."""
        return all(facts.get(name) == value for name, value in self.model_dump(exclude_none=True).items())


class Settings(StrictModel):
    """Settings of a store."""

    schedule: Schedule | None = Field(None, description="When nights are due; without it none is missing.")
    controls: Annotated[list[Control], items_by("variant")] = Field(
        [], description="Series that never change. If they move, the machine did."
    )
    release: Name = Field("release", description="Key of the label that names a release.")
    fail_on: Annotated[list[Annotated[str, AfterValidator(_margin)]], BeforeValidator(listed)] = Field(
        [], examples=[["ttft p95 +10%"]], description="Numbers whose regression fails `harness regress`."
    )
    metrics: Annotated[list[Annotated[str, AfterValidator(_number)]], BeforeValidator(listed)] | None = Field(
        None, min_length=1, examples=[["ttft p95", "goodput_rps"]], description="Numbers that are kept as series."
    )

    @property
    def selection(self) -> frozenset[tuple[str, str]]:
        """Metrics and statistics that are kept; empty for the usual ones."""
        named = (text.partition(" ") for text in self.metrics or ())
        return frozenset((metric, statistic or SCALAR) for metric, _, statistic in named)


def read_settings(folder: Path) -> Settings:
    """Return the settings of a store; the defaults without a file. Raises ScenarioError that lists every mistake."""
    path = folder / SETTINGS
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Settings.model_validate({})
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ScenarioError([Problem(f"cannot be read: {why}", file=str(path))]) from None
    if not any(line.split("#")[0].strip() for line in text.splitlines()):
        return Settings.model_validate({})
    tree, problems = parse(text, str(path), folder)
    if tree is None or problems:
        raise ScenarioError(in_order(problems))
    if not isinstance(tree.value, dict):
        raise ScenarioError([tree.place.problem("must be a mapping at the top, such as `schedule: {every: 24h}`")])
    try:
        return Settings.model_validate(tree.plain())
    except ValidationError as error:
        raise ScenarioError(in_order(problems_of(error, tree))) from None
