"""The `workload` and `classes` sections of a scenario: the content of the requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_serializer, model_validator

from harness.scenario.base import AlsoAccepts, Count, Integer, Name, NotNegative, Number, Positive, StrictModel, listed
from harness.scenario.files.hub import HubPrompts
from harness.scenario.images import Images
from harness.scenario.lengths import FixedLength, Length, ThinkTime, Turns
from harness.scenario.limits import Slo
from harness.scenario.wire import Headers, RequestKeys

Share = Annotated[Number, Field(gt=0, le=1)]
TextOrTexts = Annotated[tuple[str, ...], BeforeValidator(listed), AlsoAccepts({"type": "string"})]
SERVER = "server"


def _checked_temperature(value: Any) -> Any:
    if value == SERVER or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf):
        return value
    raise ValueError(f"must be a number of at least 0, or `{SERVER}` for the server's default, found {value!r}")


Temperature = Annotated[Literal["server"] | NotNegative, BeforeValidator(_checked_temperature)]


PromptSource = Annotated[
    Annotated[Path, Tag("path")] | Annotated[HubPrompts, Tag("dataset")],
    Discriminator(lambda value: "dataset" if isinstance(value, Mapping | HubPrompts) else "path"),
]


class Sampling(StrictModel):
    """Sampling of tokens: greedy by default.

    Absent keys are off in engines that the harness starts. With `engine: http`, the server decides them.
    """

    temperature: Temperature = Field(
        default=0.0,
        description="0 is greedy. If a server refuses 0, requests are sent without it, and the report notes this. "
        "`server`: the server's default, for `engine: http`.",
        examples=[0.7],
    )
    top_p: Share | None = Field(default=None, description="Nucleus sampling.", examples=[0.95])
    top_k: Annotated[Integer, Field(ge=0)] | None = Field(
        default=None, description="Number of likeliest tokens to draw from; 0: all.", examples=[40]
    )
    seed: Integer | None = Field(default=None, description="Random seed of the engine.", examples=[1])
    stop: TextOrTexts | None = Field(default=None, description="Texts that end the generation.", examples=[["\n\n"]])

    def as_options(self) -> dict[str, Any]:
        """Return the given keys, for `engines.base.Request.sampling`."""
        given = {name: value for name, value in self if value is not None and value != SERVER}
        return given | ({} if self.stop is None else {"stop": list(self.stop)})

    def left_to_the_server(self) -> Sampling:
        """Return the sampling for a server that refuses temperature 0: requests carry no temperature."""
        return self.model_copy(update={"temperature": SERVER}) if self.temperature == 0 else self


class Prefix(StrictModel):
    """Common beginning of prompts, such as a long system prompt. The rest of each prompt is unique.

    The prefix counts in the length of a prompt. A prompt that is too short begins with a part of the prefix.
    """

    share: Share = Field(default=1.0, description="Share of requests that begin with a prefix.", examples=[0.8])
    tokens: Count = Field(description="Length of the prefix in tokens.", examples=[500])
    groups: Count = Field(default=1, le=1000, description="Number of prefixes, all equally frequent.", examples=[4])


class Cancel(StrictModel):
    """Requests that are cancelled, as by users who close the page: the connection is closed during the reply.

    Cancelled requests are no errors and have no latency. Tokens that arrived before count. A reply that ends sooner
    is not cancelled.
    """

    share: Share = Field(description="Share of requests to cancel, each drawn independently.", examples=[0.1])
    after: ThinkTime = Field(description="Time from sending to cancelling, or a distribution.", examples=["2s"])


class Workload(StrictModel):
    """Content of the requests."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompts", "prompt_tokens"),
        ("prompts", "prefix"),
        ("turns", "repeat"),
    )
    mistaken_keys: ClassVar[Mapping[str, str]] = {
        "priority": "unknown key; write it in a class, as in `classes: {{chat: {{priority: 0}}}}`",
        "input_tokens": "unknown key; write `prompt_tokens: {value}`",
        "max_tokens": "unknown key; write `output_tokens: {value}`",
    }

    prompt_tokens: Length = Field(default=FixedLength(value=128), description="Length of the prompt.", examples=[128])
    output_tokens: Length = Field(default=FixedLength(value=128), description="Length of the reply.", examples=[64])
    prompts: PromptSource | None = Field(
        default=None,
        description='Instead of generated prompts: a JSON Lines, JSON or CSV file of them, such as `{"prompt": "..."}` '
        "a line, `messages` or ShareGPT's `conversations` (docs/load.md has all layouts), or a data set of the hub.",
        examples=["prompts.jsonl"],
    )
    prefix: Prefix | None = Field(
        default=None, description="Common beginning of many prompts, for prefix caches. Default: no two begin alike."
    )
    images: Images | None = Field(
        default=None, description="Generated images in each prompt, for dialects of chat. Default: text alone."
    )
    repeat: Share | None = Field(
        default=None, description="Share of requests that repeat an earlier one, for result caches.", examples=[0.3]
    )
    turns: Turns | None = Field(
        default=None,
        description="Turns of a conversation: a number, or a distribution of lengths. Each turn is a request with all "
        "earlier prompts and the actual replies; `prompt_tokens` is the new prompt alone. For `users`, `single_user` "
        "and `sessions`. With conversations from a file: at most that many of each.",
        examples=[3],
    )
    think_time: ThinkTime | None = Field(
        default=None,
        description="Time that a user waits between a reply and the next turn: a time, or a distribution of times. "
        "Default: `think_time` of the load.",
        examples=["5s"],
    )
    sampling: Sampling = Field(default=Sampling(), description="Sampling of the output tokens.")
    cancel: Cancel | None = Field(default=None, description="Requests that are cancelled before their reply ends.")
    stream: bool = Field(default=True, strict=True, description="Stream the reply; otherwise TTFT is unknown.")

    @model_validator(mode="after")
    def _prefix_fits(self) -> Self:
        # Classes and loads may set the length of prompts. A manifest contains the default without the scenario's.
        is_default = self.prompt_tokens == type(self).model_fields["prompt_tokens"].default
        if not is_default and (why := self.too_short_for_its_prefix()):
            raise ValueError(why)
        return self

    def too_short_for_its_prefix(self) -> str:
        """Return the sentence for prompts that their common beginning does not fit into; "" if it does."""
        length = self.prompt_tokens
        longest = length.value if isinstance(length, FixedLength) else length.max
        if self.prefix is None or longest is None or self.prefix.tokens < longest:
            return ""
        return f"`prefix.tokens` ({self.prefix.tokens}) must be less than `prompt_tokens` ({longest})"

    def irrelevant_keys(self) -> frozenset[str]:
        return frozenset({"prompt_tokens"} if self.prompts is not None else ())

    def left_to_the_server(self) -> Workload:
        """Return the workload for a server that refuses temperature 0."""
        return self.model_copy(update={"sampling": self.sampling.left_to_the_server()})

    def overridden_by(self, other: Workload | None) -> Workload:
        """Return this workload with the keys that `other` sets."""
        if other is None:
            return self
        given = {name: getattr(other, name) for name in other.model_fields_set}
        if "prompt_tokens" in given:
            given.setdefault("prompts", None)
        if given.get("prompts") is not None:
            given.setdefault("prefix", None)
        return self.model_copy(update=given)


class TrafficClass(StrictModel):
    """Class of requests in mixed traffic."""

    weight: Positive = Field(default=1.0, description="Share of the requests, relative to other classes.", examples=[3])
    workload: Workload | None = Field(default=None, description="Keys that replace those of the scenario's `workload`.")
    slo: Slo | None = Field(default=None, description="Keys that replace those of the scenario's `slo` for this class.")
    priority: Integer | None = Field(
        default=None,
        description="Priority of each request, for `engine: http` and servers that support it. vLLM with "
        "`--scheduling-policy priority` serves lower numbers first.",
        examples=[0],
    )
    served_model: Name | None = Field(
        default=None,
        description="Model name in the requests of this class, such as that of an adapter that the server has loaded.",
        examples=["adapter-a"],
    )
    headers: Headers | None = Field(default=None, description="Request headers of this class, beside the engine's.")
    request: RequestKeys | None = Field(
        default=None,
        description="Keys of the body of this class, beside those of the engine's `request`.",
        examples=[{"service_tier": "flex"}],
    )

    @field_serializer("workload")
    def _only_given(self, workload: Workload | None) -> dict[str, Any] | None:
        # A default in the output would override the scenario's workload.
        return None if workload is None else workload.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @property
    def on_the_wire(self) -> dict[str, Any]:
        """Model, headers and keys of the body that differ for this class; see `engines.base.Endpoint.classes`."""
        given = {"model": self.served_model, "headers": self.headers, "request": self.request}
        return {name: value for name, value in given.items() if value is not None}
