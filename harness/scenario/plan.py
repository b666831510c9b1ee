"""The `plan` section of a scenario: the demand of `harness plan`, and its assumptions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from harness.scenario.base import Count, Integer, Number, Positive, StrictModel
from harness.units import SHARE_PATTERN, Seconds, enumerated, format_share, parse_share


class Pricing(StrEnum):
    """How an hour is paid for."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"
    OWNED = "owned"


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


def _as_number(value: Any) -> Any:
    """Return the number of a text such as "0.8" of a command line, which lacks its sign as in a file."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


E = TypeVar("E", bound=StrEnum)


def _word_of(known: type[E]) -> tuple[BeforeValidator, WithJsonSchema]:
    """Return a validator of one of some words, and the schema."""

    words = [one.value for one in known]

    def checked(value: Any) -> E:
        try:
            return known(value)
        except ValueError:
            shown = enumerated([f"`{word}`" for word in words], "or")
            raise ValueError(f"must be {shown}, found {value!r}") from None

    return BeforeValidator(checked), WithJsonSchema({"type": "string", "enum": words})


Share = Annotated[
    float,
    BeforeValidator(lambda value: parse_share(_as_number(value))),
    Field(ge=0),
    PlainSerializer(format_share, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": SHARE_PATTERN}),
]
ShareOfHour = Annotated[Share, Field(lt=1)]
AtLeastOne = Annotated[Number, Field(ge=1)]
WholeShare = Annotated[Share, Field(gt=0, le=1)]
ShareBelowOne = Annotated[Share, Field(gt=0, lt=1)]
ApiPrice = Annotated[
    tuple[Positive, Positive],
    BeforeValidator(lambda value: _two_prices(value)),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+ */ *[0-9.]+$"}),
]


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

    growth: Share = Field(default=0.0, description="Growth of the demand until the plan ends.")
    forecast_error: Share = Field(default=0.0, description="Standard deviation of the forecast of the peak.")
    headroom: WholeShare = Field(default=0.8, description="Part of a replica's rate that is planned with.")
    imbalance: AtLeastOne = Field(default=1.1, description="Rate of the busiest replica / mean rate of all.")
    survive: Annotated[Survives, *_word_of(Survives)] = Field(
        default=Survives.REPLICA, description="Loss at which the requirements still hold."
    )
    zones: Annotated[Integer, Field(ge=2)] = Field(default=3, description="Zones that replicas are spread over.")
    scaling: Annotated[Scaling, *_word_of(Scaling)] = Field(
        default=Scaling.FIXED, description="How the number of replicas follows the demand."
    )
    hours: str | None = Field(default=None, description="Working hours of `scaling: hours`.")
    start_up_s: Seconds | None = Field(
        default=None, alias="start_up", description="Time to get and boot a machine, before its engine starts."
    )
    min_dwell_s: Seconds = Field(default=600.0, alias="min_dwell", description="Least time that a replica is kept.")
    pricing: Annotated[Pricing, *_word_of(Pricing)] = Field(
        default=Pricing.ON_DEMAND, description="How an hour is paid for."
    )
    interruptions_per_hour: ShareOfHour | None = Field(
        default=None, description="Chance that a spot machine is interrupted within an hour."
    )
    spot_risk: ShareBelowOne = Field(default=0.001, description="Accepted chance that too many spot machines are gone.")
    pools: Count = Field(default=2, description="Pools that spot machines come from; one may vanish as a whole.")
    attainment: ShareBelowOne = Field(default=0.95, description="Share of requests that must meet the `slo`.")
    chance: ShareBelowOne = Field(default=0.95, description="Chance that is asked for that the plan holds.")
    prompt_tokens: Positive | None = Field(default=None, description="Mean prompt of the demand.")
    output_tokens: Positive | None = Field(default=None, description="Mean reply of the demand.")
    api_price: ApiPrice | None = Field(
        default=None, description="USD per million input and output tokens of an API.", examples=["0.50/1.50"]
    )
    seed: Annotated[Integer, Field(ge=0)] = Field(default=1, description="Seed of the draws.")

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


def _rate_or_file(value: Any) -> Any:
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
        return value
    raise ValueError(f"must be requests per second above 0, or a file, found {value!r}")


class Plan(Assumptions):
    """Demand and assumptions of `harness plan` for runs of this scenario; its options and a demand file go before."""

    demand: Annotated[Positive | str, BeforeValidator(_rate_or_file)] | None = Field(
        default=None,
        description="Requests per second, or a .csv, .parquet or .yaml file of the demand.",
        examples=[12],
    )
    prices: str | None = Field(
        default=None, description="YAML file with prices of machines, added to the shipped ones.", examples=["own.yaml"]
    )

    def irrelevant_keys(self) -> frozenset[str]:
        """Return the keys that are not set: what is stored is what the user assumed."""
        return frozenset(field.alias or name for name, field in type(self).model_fields.items()) - frozenset(
            type(self).model_fields[name].alias or name for name in self.model_fields_set
        )
