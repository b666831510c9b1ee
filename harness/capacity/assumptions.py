"""Assumptions of a plan: each is a key of the demand file and an option of the command, with its meaning."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field

from harness.capacity.prices import Pricing, Share, ShareOfHour
from harness.scenario.base import Count, Integer, Positive, StrictModel
from harness.units import Seconds, enumerated, format_duration


class Survives(StrEnum):
    """Loss of replicas at which the plan still holds its requirements."""

    NOTHING = "nothing"
    REPLICA = "replica"
    ZONE = "zone"


class Scaling(StrEnum):
    """How the number of replicas follows the demand."""

    FIXED = "fixed"
    AUTO = "auto"
    HOURS = "hours"


E = TypeVar("E", bound=StrEnum)


def _word_of(known: type[E]) -> BeforeValidator:
    """Return a validator of one of some words."""

    def checked(value: Any) -> E:
        try:
            return known(value)
        except ValueError:
            words = [one.value for one in known]
            shown = enumerated([f"`{word}`" for word in words], "or")
            raise ValueError(f"must be {shown}, found {value!r}") from None

    return BeforeValidator(checked)


AtLeastOne = Annotated[Positive, Field(ge=1)]
WholeShare = Annotated[Share, Field(gt=0, le=1)]
ShareBelowOne = Annotated[Share, Field(gt=0, lt=1)]
ApiPrice = Annotated[tuple[Positive, Positive], BeforeValidator(lambda value: _two_prices(value))]


def _two_prices(value: Any) -> Any:
    """Return USD per million input and output tokens of a text such as `0.50/1.50`."""
    if not isinstance(value, str):
        return value
    try:
        found = [float(part) for part in value.split("/")]
    except ValueError:
        found = []
    if len(found) != 2 or min(found) <= 0:
        raise ValueError(f"{value!r} is no price; write USD per million input and output tokens: `0.50/1.50`")
    return tuple(found)


class Assumptions(StrictModel):
    """Assumptions of a plan."""

    growth: Share = Field(default=0.0, description="growth of the demand until the plan ends")
    forecast_error: Share = Field(default=0.0, description="standard deviation of the forecast of the peak")
    headroom: WholeShare = Field(default=0.8, description="part of a replica's rate that is planned with")
    imbalance: AtLeastOne = Field(default=1.1, description="rate of the busiest replica / mean rate of all")
    survive: Annotated[Survives, _word_of(Survives)] = Field(
        default=Survives.REPLICA, description="loss at which the requirements still hold"
    )
    zones: Annotated[Integer, Field(ge=2)] = Field(default=3, description="zones that replicas are spread over")
    scaling: Annotated[Scaling, _word_of(Scaling)] = Field(
        default=Scaling.FIXED, description="how the number of replicas follows the demand"
    )
    hours: str | None = Field(default=None, description="working hours of `scaling: hours`")
    start_up_s: Seconds | None = Field(
        default=None, alias="start_up", description="time to get and boot a machine, before its engine starts"
    )
    min_dwell_s: Seconds = Field(default=600.0, alias="min_dwell", description="least time that a replica is kept")
    pricing: Annotated[Pricing, _word_of(Pricing)] = Field(
        default=Pricing.ON_DEMAND, description="how an hour is paid for"
    )
    interruptions_per_hour: ShareOfHour | None = Field(
        default=None, description="chance that a spot machine is interrupted within an hour"
    )
    spot_risk: ShareBelowOne = Field(default=0.001, description="accepted chance that too many spot machines are gone")
    pools: Count = Field(default=2, description="pools that spot machines come from; one may vanish as a whole")
    attainment: ShareBelowOne = Field(default=0.95, description="share of requests that must meet the `slo`")
    chance: ShareBelowOne = Field(default=0.95, description="chance that is asked for that the plan holds")
    prompt_tokens: Positive | None = Field(default=None, description="mean prompt of the demand")
    output_tokens: Positive | None = Field(default=None, description="mean reply of the demand")
    api_price: ApiPrice | None = Field(default=None, description="USD per million input and output tokens of an API")
    seed: Annotated[Integer, Field(ge=0)] = Field(default=1, description="seed of the draws")

    @classmethod
    def check_keys(cls, given: Any) -> list[str]:
        hours, scaling = given.get("hours"), given.get("scaling")
        problems = super().check_keys(given)
        if scaling == Scaling.HOURS and hours is None:
            problems.append("`scaling: hours` needs `hours`, such as `hours: mon-fri 09:00-18:00 Europe/Berlin`")
        if hours is not None and scaling != Scaling.HOURS:
            problems.append("`hours` needs `scaling: hours`; add it, or leave `hours` out")
        return problems


KEYS = tuple(field.alias or name for name, field in Assumptions.model_fields.items())


def listed(found: Assumptions, given: frozenset[str]) -> list[dict[str, Any]]:
    """Return each assumption as {key, value, meaning, given}; `given`: keys that the user set."""
    rows = []
    for name, field in Assumptions.model_fields.items():
        key, value = field.alias or name, getattr(found, name)
        if value is None:
            continue
        rows.append({"key": key, "value": _text(name, value), "meaning": field.description, "given": key in given})
    return rows


def _text(name: str, value: Any) -> str:
    if name in _SHARES:
        return f"{100 * value:.6g}%"
    if name.endswith("_s"):
        return format_duration(value)
    if isinstance(value, tuple):
        return "/".join(f"{part:g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


_SHARES = ("growth", "forecast_error", "headroom", "interruptions_per_hour", "spot_risk", "attainment", "chance")
