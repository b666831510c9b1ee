"""The `workload` and `classes` sections of a scenario: what is asked in each request."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from harness.scenario.base import AlsoAccepts, Integer, Number, StrictModel, listed
from harness.scenario.lengths import FixedLength, Length, ThinkTime, Tokens, Turns
from harness.scenario.limits import Slo

Share = Annotated[Number, Field(gt=0, le=1)]
TextOrTexts = Annotated[tuple[str, ...], BeforeValidator(listed), AlsoAccepts({"type": "string"})]


SERVER = "server"


def _checked_temperature(value: Any) -> Any:
    if value == SERVER or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf):
        return value
    raise ValueError(f"must be a number from 0 up, or `{SERVER}` for the server's own, found {value!r}")


Temperature = Annotated[Literal["server"] | Annotated[Number, Field(ge=0)], BeforeValidator(_checked_temperature)]


class Sampling(StrictModel):
    """How tokens are drawn: greedily, unless a temperature is given. What is left out is off in the engines that we
    start, and left to the server with `engine: http`.
    """

    temperature: Temperature = Field(
        default=0.0,
        description="0 is greedy; a server that refuses it is asked without, and the report says so. `server` leaves "
        "it to the server, for `engine: http`.",
        examples=[0.7],
    )
    top_p: Share | None = Field(default=None, description="Nucleus sampling.", examples=[0.95])
    top_k: Annotated[Integer, Field(ge=0)] | None = Field(
        default=None, description="Only the k likeliest tokens; 0 is all.", examples=[40]
    )
    seed: Integer | None = Field(default=None, description="The engine's random seed.", examples=[1])
    stop: TextOrTexts | None = Field(default=None, description="Texts at which generation ends.", examples=[["\n\n"]])

    def as_options(self) -> dict[str, Any]:
        """The keys that are given, for `engines.base.Request.sampling`."""
        given = {name: value for name, value in self if value is not None and value != SERVER}
        return given | ({"stop": list(self.stop)} if self.stop is not None else {})

    def left_to_the_server(self) -> Sampling:
        """The same for a server that refuses temperature 0: nothing is said of a temperature in its place."""
        return self.model_copy(update={"temperature": SERVER}) if self.temperature == 0 else self


class Prefix(StrictModel):
    """A common beginning, as a long instruction is to all prompts of an application; the rest of a prompt is its own.

    The length of the prompts stays as it is asked for: a prompt that is too short begins with a part of the prefix.
    """

    share: Share = Field(default=1.0, description="Share of requests that begin with it.", examples=[0.8])
    tokens: Tokens = Field(description="Its length in tokens.", examples=[500])
    groups: Tokens = Field(
        default=1, le=1000, description="How many different ones there are, each as often as the others.", examples=[4]
    )


class Cancel(StrictModel):
    """Requests that the client gives up, as people do who close the page: the connection is closed, mid-reply.

    They are no errors and have no latency; the tokens that had arrived count. A reply that ends sooner is not given up.
    """

    share: Share = Field(description="Share of requests that are given up, each chosen by itself.", examples=[0.1])
    after: ThinkTime = Field(
        description="How long after it was sent: a time, or a distribution of times.", examples=["2s"]
    )


class Workload(StrictModel):
    """What is asked in each request."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompts", "prompt_tokens"),
        ("prompts", "prefix"),
        ("turns", "repeat"),
    )

    prompt_tokens: Length = Field(default=FixedLength(value=128), description="Length of the prompt.", examples=[128])
    output_tokens: Length = Field(default=FixedLength(value=128), description="Length of the reply.", examples=[64])
    prompts: Path | None = Field(
        default=None,
        description='A file of prompts instead, one `{"prompt": "..."}` a line.',
        examples=["prompts.jsonl"],
    )
    prefix: Prefix | None = Field(
        default=None,
        description="A beginning that many prompts share, for prefix caches; without it no two begin alike.",
    )
    repeat: Share | None = Field(
        default=None,
        description="Share of requests that repeat an earlier one, drawn at random, to the letter, for result caches.",
        examples=[0.3],
    )
    turns: Turns | None = Field(
        default=None,
        description="Turns of a conversation: a number, or a distribution as of lengths. Each turn is a request that "
        "carries the earlier prompts with the replies that really came; `prompt_tokens` is the new prompt alone. For "
        "`users`, `single_user` and `sessions`.",
        examples=[3],
    )
    think_time: ThinkTime | None = Field(
        default=None,
        description="What a user waits between a reply and the next turn: a time, or a distribution of times. Absent: "
        "the load's.",
        examples=["5s"],
    )
    sampling: Sampling = Field(default=Sampling(), description="How tokens are drawn.")
    cancel: Cancel | None = Field(default=None, description="Requests that the client gives up.")
    stream: bool = Field(
        default=True,
        strict=True,
        description="Ask for the reply piece by piece; otherwise there is no time to first token.",
    )

    @model_validator(mode="after")
    def _prefix_fits(self) -> Self:
        asked = self.prompt_tokens
        longest = asked.value if isinstance(asked, FixedLength) else asked.max
        # Classes may say how long prompts are; a manifest writes the default out, which nobody gave.
        if self.prefix is None or longest is None or asked == type(self).model_fields["prompt_tokens"].default:
            return self
        if self.prefix.tokens >= longest:
            raise ValueError(f"`prefix.tokens` ({self.prefix.tokens}) must be less than `prompt_tokens` ({longest})")
        return self

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """A priority is of a class, for alone it would mean nothing."""
        if key == "priority":
            return "is not known here; write it in a class, as in `classes: {chat: {priority: 0}}`"
        return super().unknown_key(key)

    def irrelevant_keys(self) -> frozenset[str]:
        """Prompts of a file have their lengths already."""
        return frozenset({"prompt_tokens"} if self.prompts is not None else ())

    def left_to_the_server(self) -> Workload:
        """The same for a server that refuses temperature 0."""
        return self.model_copy(update={"sampling": self.sampling.left_to_the_server()})

    def overridden_by(self, other: Workload | None) -> Workload:
        """This workload, the keys that `other` gives replaced by its own."""
        if other is None:
            return self
        given = {name: getattr(other, name) for name in other.model_fields_set}
        if "prompt_tokens" in given:
            given.setdefault("prompts", None)
        if given.get("prompts") is not None:
            given.setdefault("prefix", None)
        return self.model_copy(update=given)


class TrafficClass(StrictModel):
    """One kind of request in mixed traffic."""

    weight: Annotated[Number, Field(gt=0)] = Field(
        default=1.0, description="Its share, relative to the other classes.", examples=[3]
    )
    workload: Workload | None = Field(
        default=None, description="Keys given here replace the scenario's `workload` for this class."
    )
    slo: Slo | None = Field(default=None, description="Keys given here replace the scenario's `slo` for this class.")
    priority: Integer | None = Field(
        default=None,
        description="Sent along with each request, for servers that take one (`engine: http`): vLLM, started with "
        "`--scheduling-policy priority`, serves lower numbers first.",
        examples=[0],
    )

    @field_serializer("workload")
    def _only_given(self, workload: Workload | None) -> dict[str, Any] | None:
        # A default written out would replace what the scenario's workload says.
        return None if workload is None else workload.model_dump(mode="json", by_alias=True, exclude_unset=True)
