"""The load of people who come when they like and then talk for a while: conversations that begin at a rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from harness.lengths import ThinkTime, Turns
from harness.load_parts import ARRIVALS, CV, Arrivals, CommonLoad, Count, Cv, Rate, cv_problems
from harness.quantities import PositiveSeconds


class Sessions(CommonLoad):
    """Conversations that begin at a rate, whatever the server does; within each, a turn follows the reply before it.

    Partly open: a slow server delays the later turns of the conversations it has, but not the arrival of new ones.
    """

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "sessions"),)

    kind: Literal["sessions"]
    rate: Rate = Field(
        description="Conversations that begin per second. A list makes one trial of each.", examples=[0.5]
    )
    duration_s: PositiveSeconds | None = Field(
        default=None, alias="duration", description="How long to measure, after the warm-up.", examples=["60s"]
    )
    sessions: Count | None = Field(
        default=None, description="How many conversations to measure, instead of a duration.", examples=[50]
    )
    turns: Turns | None = Field(
        default=None,
        description="Turns of a conversation: a number, or a distribution as of lengths. Absent: the workload's.",
        examples=[4],
    )
    think_time: ThinkTime | None = Field(
        default=None,
        description="What a user waits between a reply and the next turn: a time, or a distribution of times. Absent: "
        "that of the workload, or none.",
        examples=["5s"],
    )
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """`cv` belongs to gamma arrivals."""
        return [*super().check_keys(given), *cv_problems(given)]

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """What other loads are limited by, and this one is not."""
        if key == "requests":
            return "is not known here; write `sessions`, the number of conversations, or `duration`"
        if key == "users":
            return "is not known here; `turns` in the workload make users of `kind: sustained` hold conversations"
        return super().unknown_key(key)

    @property
    def requests(self) -> None:
        """The number of requests follows from the turns."""
        return None
