"""Retries: which failed requests of a load are sent again, how often and when."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from harness.scenario.base import Integer, StrictModel, listed
from harness.units import Seconds

CONNECT: Literal["connect"] = "connect"
Cause = int | Literal["connect"]


def _checked_cause(value: Any) -> Any:
    if value == CONNECT or (isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599):
        return value
    raise ValueError(f"must be an HTTP status from 400 to 599 or `{CONNECT}`, found {value!r}")


_CAUSE_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 400, "maximum": 599}, {"const": CONNECT}]}
Causes = Annotated[
    tuple[Annotated[Cause, BeforeValidator(_checked_cause), WithJsonSchema(_CAUSE_SCHEMA)], ...],
    BeforeValidator(listed),
    Field(min_length=1),
]


class Retries(StrictModel):
    """Failed requests are sent again, as many clients in use do. A reply that has begun is never asked for again.

    A request keeps its due time, and its latency holds all attempts and waits. The time-out is that of all together.
    """

    times: Annotated[Integer, Field(ge=0, le=100)] = Field(
        description="How often a request is sent again at most.", examples=[2]
    )
    on: Causes = Field(
        default=(429, 503, CONNECT),
        description="HTTP statuses after which it is, and `connect`: the connection failed before the reply began.",
        examples=[[429, 503]],
    )
    wait_s: Seconds = Field(
        default=0.5,
        alias="wait",
        description="Time before the first retry. It doubles with each further one. The server's `Retry-After` in "
        "seconds replaces it. A retry that would begin after the time-out is not made.",
        examples=["500ms"],
    )


def _from_number(value: Any) -> Any:
    return {"times": value} if isinstance(value, int) and not isinstance(value, bool) else value


RetriesOrTimes = Annotated[Retries, BeforeValidator(_from_number)]
