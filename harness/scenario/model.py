"""The scenario file as frozen models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from harness.scenario.base import FreeText, Integer, Name, NotBuilt, StrictModel, TextOrItems, as_name, listed
from harness.scenario.engines import EngineBlock, ModelEntry
from harness.scenario.limits import LimitText, Slo
from harness.scenario.loads import LoadItem
from harness.scenario.metrics_urls import MetricsPages
from harness.scenario.quality import Quality
from harness.scenario.workload import TrafficClass, Workload
from harness.units import PositiveSeconds

DEFAULT_SEED = 20_240_517


def _model_from_text(value: Any) -> Any:
    return [{"name": item} if isinstance(item, str) else item for item in listed(value)]


def _checked_name(value: str) -> str:
    usable = as_name(value)
    if value and value != usable:
        raise ValueError(f"may hold letters, digits, `.`, `_` and `-` only; write `{usable or 'my-run'}`")
    return value


class Telemetry(StrictModel):
    """What is read beside the requests."""

    interval_s: PositiveSeconds = Field(
        default=0.1,
        alias="interval",
        description="Time between two readings of what moves fast; the rest is read once a second.",
        examples=["500ms"],
    )
    gpus: tuple[Annotated[Integer, Field(ge=0)], ...] | None = Field(
        default=None,
        description="The GPUs to read, as the driver counts them; `[]`: none. Where absent, those of the engine's "
        "`devices`, or all.",
        examples=[[0, 1]],
    )
    metrics_urls: MetricsPages | None = Field(
        default=None,
        description="Pages for Prometheus to read beside every engine.",
        examples=[["http://gpu-host:9400/metrics"]],
    )


class Budget(StrictModel):
    """What a run may use; a plan that exceeds it is refused beforehand."""

    requests: Annotated[Integer, Field(ge=1)] | None = Field(
        default=None, description="Requests in all.", examples=[10000]
    )
    tokens: Annotated[Integer, Field(ge=1)] | None = Field(
        default=None, description="Prompt and output tokens.", examples=[1000000]
    )
    time_s: PositiveSeconds | None = Field(default=None, alias="time", description="Time in all.", examples=["1h"])
    usd: NotBuilt = Field(default=None, description="Money.")


class Scenario(StrictModel):
    """A whole scenario, `extends`, `--set` and defaults applied."""

    version: Literal[1] = Field(default=1, description="Version of this grammar.")
    extends: str | None = Field(
        default=None, description="Another file that this one is merged over.", examples=["base.yaml"]
    )
    name: Annotated[str, AfterValidator(_checked_name)] = Field(
        default="", description="Name of the run; the file's where absent. Letters, digits, `.`, `_` and `-`."
    )
    description: str = Field(default="", description="What the scenario is for.")
    labels: dict[str, FreeText] = Field(default={}, description="Free `key: value` pairs that index history.")
    instance: str | None = Field(default=None, description="Name of the machine under test in the price catalogue.")
    model: Annotated[
        tuple[ModelEntry, ...],
        BeforeValidator(_model_from_text),
        TextOrItems(),
    ] = Field(
        default=(), description="The model or models; also gives the tokenizer for `http` engines.", examples=["tiny"]
    )
    engines: tuple[EngineBlock, ...] = Field(
        min_length=1, description="The engines to measure.", examples=["[{engine: llama-server}]"]
    )
    workload: Workload = Field(default=Workload(), description="What is asked.")
    classes: dict[Name, TrafficClass] = Field(default={}, description="Name to class, for `kind: mixed`.")
    load: tuple[LoadItem, ...] = Field(
        min_length=1, description="How it is asked; each is a trial.", examples=["[{kind: single_user, requests: 20}]"]
    )
    slo: Slo = Field(default=Slo(), description="What one request must hold to be good.")
    limits: tuple[LimitText, ...] = Field(
        default=(), description="What the run must hold.", examples=[["ttft_ms p95 <= 500", "error_rate <= 0.01"]]
    )
    decide: Literal["all", "any"] = Field(
        default="all", description="`any`: one cell that holds under all its loads is enough; others are ranked out."
    )
    repetitions: Annotated[Integer, Field(ge=1)] = Field(default=1, description="How often the whole matrix is run.")
    order: Literal["interleaved", "blocks"] = Field(
        default="interleaved",
        description="`interleaved`: the whole matrix again and again, forwards, backwards and in further orders drawn "
        "from the seed, so that drift hits all alike; `blocks`: cell by cell.",
    )
    patience_s: PositiveSeconds = Field(
        default=60.0,
        alias="patience",
        description="A cell's process that gives no sign of life for so long, once it measures, is taken for hung.",
        examples=["2m"],
    )
    restart: Literal["per_cell", "per_trial"] = Field(
        default="per_cell", description="When an engine is started afresh."
    )
    quality: Quality | None = Field(default=None, description="How much is lost against a reference.")
    telemetry: Telemetry = Field(default=Telemetry(), description="How often readings are taken.")
    compare: NotBuilt = Field(default=None, description="Defaults of `harness compare`.")
    history: NotBuilt = Field(default=None, description="Defaults of `harness history` and `harness regress`.")
    plan: NotBuilt = Field(default=None, description="Defaults of `harness plan`.")
    budget: Budget = Field(default=Budget(), description="What a run may use.")
    seed: Annotated[Integer, Field(ge=0)] = Field(
        default=DEFAULT_SEED, description="Fixes every draw; the default is a constant."
    )

    _source: Path = PrivateAttr(default=Path("scenario.yaml"))

    @property
    def source(self) -> Path:
        """The file it was read from."""
        return self._source

    @property
    def title(self) -> str:
        """Its name, or the file's."""
        return self.name or self._source.stem

    def variables_not_set(self) -> list[str]:
        """The environment variables whose values its requests need, and that this process does not have."""
        needed = dict.fromkeys(name for block in self.engines for name in block.variables())
        return [name for name in needed if name not in os.environ]

    def resolved(self) -> dict[str, Any]:
        """Everything that decides the run, as JSON-able data that is itself a scenario; without any secret's value."""
        return self.model_dump(mode="json", by_alias=True)
