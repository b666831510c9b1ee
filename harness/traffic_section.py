"""The `workload` and `classes` sections of a scenario: what is asked in each request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_serializer

from harness.lengths import FixedLength, Length
from harness.loads import Slo
from harness.strict_model import AlsoAccepts, Integer, NotBuilt, Number, StrictModel, listed

Share = Annotated[Number, Field(gt=0, le=1)]
TextOrTexts = Annotated[tuple[str, ...], BeforeValidator(listed), AlsoAccepts({"type": "string"})]


class Sampling(StrictModel):
    """How tokens are drawn; what is left out is the engine's default."""

    temperature: Annotated[Number, Field(ge=0)] | None = Field(default=None, description="0 is greedy.", examples=[0])
    top_p: Share | None = Field(default=None, description="Nucleus sampling.", examples=[0.95])
    top_k: Annotated[Integer, Field(ge=0)] | None = Field(
        default=None, description="Only the k likeliest tokens.", examples=[40]
    )
    seed: Integer | None = Field(default=None, description="The engine's random seed.", examples=[1])
    stop: TextOrTexts | None = Field(default=None, description="Texts at which generation ends.", examples=[["\n\n"]])

    def as_options(self) -> dict[str, Any]:
        """The keys that are given, for `engines.base.Request.sampling`."""
        given = {name: value for name, value in self if value is not None}
        return given | ({"stop": list(self.stop)} if self.stop is not None else {})


class Workload(StrictModel):
    """What is asked in each request."""

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("prompts", "prompt_tokens"),)

    prompt_tokens: Length = Field(default=FixedLength(value=128), description="Length of the prompt.", examples=[128])
    output_tokens: Length = Field(default=FixedLength(value=128), description="Length of the reply.", examples=[64])
    prompts: Path | None = Field(
        default=None,
        description='A file of prompts instead, one `{"prompt": "..."}` a line.',
        examples=["prompts.jsonl"],
    )
    prefix: NotBuilt = Field(default=None, description="A shared beginning of prompts.")
    repeat: NotBuilt = Field(default=None, description="Share of prompts that occurred before.")
    turns: NotBuilt = Field(default=None, description="Turns of a conversation.")
    think_time: NotBuilt = Field(default=None, description="Time between turns.")
    sampling: Sampling = Field(default=Sampling(), description="How tokens are drawn.")
    cancel: NotBuilt = Field(default=None, description="Share of requests that are given up.")
    stream: bool = Field(
        default=True,
        strict=True,
        description="Ask for the reply piece by piece; otherwise there is no time to first token.",
    )

    def irrelevant_keys(self) -> frozenset[str]:
        """Prompts of a file have their lengths already."""
        return frozenset({"prompt_tokens"} if self.prompts is not None else ())

    def overridden_by(self, other: Workload | None) -> Workload:
        """This workload, the keys that `other` gives replaced by its own."""
        if other is None:
            return self
        given = {name: getattr(other, name) for name in other.model_fields_set}
        if "prompt_tokens" in given:
            given.setdefault("prompts", None)
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
    priority: NotBuilt = Field(default=None, description="Which class goes first.")

    @field_serializer("workload")
    def _only_given(self, workload: Workload | None) -> dict[str, Any] | None:
        # A default written out would replace what the scenario's workload says.
        return None if workload is None else workload.model_dump(mode="json", by_alias=True, exclude_unset=True)
