"""Scenario file as frozen models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from harness.scenario.base import (
    Count,
    FreeText,
    Integer,
    Name,
    Positive,
    StrictModel,
    TextOrItems,
    as_name,
    items_by,
    listed,
)
from harness.scenario.columns import GROUPS, ColumnName
from harness.scenario.compare import Compare
from harness.scenario.engines import EngineBlock, ModelEntry, known_spelling
from harness.scenario.limits import LimitText, Slo
from harness.scenario.loads.kinds import LoadItem
from harness.scenario.metrics_urls import MetricsPages
from harness.scenario.plan import Plan
from harness.scenario.quality import Quality
from harness.scenario.workload import TrafficClass, Workload
from harness.units import SHARE_PATTERN, PositiveSeconds, enumerated, format_share, parse_share

DEFAULT_SEED = 20_240_517
LOAD_MISSING = "needs `load`, such as `load: [{kind: single_user, requests: 20}]`, here or in every engine"
LEAST_TOLERANCE, LARGEST_TOLERANCE = 0.005, 0.5
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.005, 10.0  # a reading takes about 45 us of a core


def _checked_name(value: str) -> str:
    usable = as_name(value)
    if value and value != usable:
        raise ValueError(f"allows letters, digits, `.`, `_` and `-` only; write `{usable or 'my-run'}`")
    return value


def _bearable(interval_s: float) -> float:
    if interval_s < SHORTEST_INTERVAL_S:
        raise ValueError("must be at least 5ms; shorter intervals take more than 1 % of a core from the measurement")
    if interval_s > LONGEST_INTERVAL_S:
        raise ValueError("must be at most 10s; longer intervals miss the peaks of memory and load")
    return interval_s


def _checked_tolerance(value: object) -> float:
    share = parse_share(value)
    if not LEAST_TOLERANCE <= share <= LARGEST_TOLERANCE:
        raise ValueError(f"must be from {LEAST_TOLERANCE:.1%} to {LARGEST_TOLERANCE:.0%}, found {value}")
    return share


Tolerance = Annotated[
    float,
    BeforeValidator(_checked_tolerance),
    PlainSerializer(format_share, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": SHARE_PATTERN}),
]


class Telemetry(StrictModel):
    """Readings of the machine during a trial."""

    interval_s: Annotated[PositiveSeconds, AfterValidator(_bearable)] = Field(
        default=0.1,
        alias="interval",
        description="Time between two readings of fast gauges, 5ms to 10s. Slow gauges are read once a second.",
        examples=["500ms"],
    )
    gpus: tuple[Annotated[Integer, Field(ge=0)], ...] | None = Field(
        default=None,
        description="GPUs to read, by the driver's numbers; `[]`: none. Default: those of the engine's `devices`, or "
        "all.",
        examples=[[0, 1]],
    )
    metrics_urls: MetricsPages | None = Field(
        default=None, description="Prometheus pages beside every engine.", examples=[["http://gpu-host:9400/metrics"]]
    )


class Budget(StrictModel):
    """Budget of a run. A scenario that needs more is refused before it starts."""

    requests: Count | None = Field(default=None, description="Number of requests.", examples=[10000])
    tokens: Count | None = Field(default=None, description="Number of prompt and output tokens.", examples=[1000000])
    time_s: PositiveSeconds | None = Field(default=None, alias="time", description="Total time.", examples=["1h"])
    usd: Positive | None = Field(
        default=None, description="Price of the time that `instance` is used for, in USD.", examples=[5]
    )


class Scenario(StrictModel):
    """Whole scenario after `extends`, `--set` and defaults."""

    mistaken_keys: ClassVar[Mapping[str, str]] = {
        "patience": "unknown key; write `stall_timeout: {value}`",
        "history": "unknown key; settings of a history stand in its folder, in `history.yaml`",
    }

    version: Literal[1] = Field(default=1, description="Version of this grammar.")
    extends: str | None = Field(default=None, description="Path of the scenario to override.", examples=["base.yaml"])
    name: Annotated[str, AfterValidator(_checked_name)] = Field(
        default="", description="Name of the run: letters, digits, `.`, `_` and `-`. Default: the file's name."
    )
    description: str = Field(default="", description="Purpose of the scenario.")
    labels: dict[str, FreeText] = Field(default={}, description="Free `key: value` pairs, stored with the run.")
    instance: Name | None = Field(
        default=None,
        description="Machine under test by its name in the price catalogue, for `harness plan`.",
        examples=["g5.xlarge"],
    )
    model: Annotated[tuple[ModelEntry, ...], items_by("name"), TextOrItems()] = Field(
        default=(), description="Model or list of models. For `http` engines it gives the tokenizer.", examples=["tiny"]
    )
    engines: tuple[EngineBlock, ...] = Field(
        min_length=1, description="Engines to measure.", examples=["[{engine: llama-server}]"]
    )
    workload: Workload = Field(default=Workload(), description="Requests: prompts, lengths and sampling.")
    classes: dict[Name, TrafficClass] = Field(
        default={}, description="Classes of requests by name, for `kind: mixed` and `kind: saturate`."
    )
    load: tuple[LoadItem, ...] = Field(
        default=(),
        min_length=1,
        description="Loads, one trial each. Required unless every engine has its own `load`.",
        examples=["[{kind: single_user, requests: 20}]"],
    )
    slo: Slo = Field(default=Slo(), description="Requirements that a good request meets.")
    limits: tuple[LimitText, ...] = Field(
        default=(), description="Requirements of the run.", examples=[["ttft_ms p95 <= 500", "error_rate <= 1%"]]
    )
    limits_confidence: Literal["95%"] | None = Field(
        default=None,
        description="`95%`: a limit holds or is violated only if the whole 95 % interval is on that side; else it "
        "cannot be told (exit code 6). Default: the value decides.",
        examples=["95%"],
    )
    tolerance: Tolerance | None = Field(
        default=None,
        description="Doubt a number that may be off by more than this share of it; p99 by twice as much, rates by "
        "three fifths, latencies by at least 1 ms. From 0.5% to 50%; default: 5%.",
        examples=["5%"],
    )
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=1), BeforeValidator(listed), TextOrItems()] | None = (
        Field(
            default=None,
            description=f"Columns of the results table: {enumerated([f'`{name}`' for name in GROUPS], 'or')}, or a "
            "metric with a statistic. Default: those that fit.",
            examples=[["ttft", "tpot_ms p99", "goodput"]],
        )
    )
    decide: Literal["all", "any"] = Field(
        default="all",
        description="`all`: every configuration must meet the limits. `any`: one configuration that meets them under "
        "all its loads is enough; the others are ranked as rejected.",
    )
    repetitions: Count = Field(
        default=1, description="Number of times that all configurations are run, each with a fresh start of the engine."
    )
    order: Literal["interleaved", "blocks"] = Field(
        default="interleaved",
        description="`interleaved`: all configurations once per repetition, in orders drawn from the seed, so that "
        "drift affects all alike. `blocks`: all repetitions of a configuration in a row.",
    )
    stall_timeout_s: PositiveSeconds = Field(
        default=60.0,
        alias="stall_timeout",
        description="Kill a benchmark process that is silent for this long during a measurement.",
        examples=["2m"],
    )
    restart: Literal["per_cell", "per_trial"] = Field(
        default="per_cell", description="Start an engine once for each configuration, or again for each trial."
    )
    quality: Quality | None = Field(default=None, description="Quality loss against a reference.")
    telemetry: Telemetry = Field(default=Telemetry(), description="Readings of the machine and of servers.")
    compare: Compare | None = Field(
        default=None, description="Baseline of a gate: `harness run` compares the other variant with it."
    )
    plan: Plan | None = Field(default=None, description="Demand and assumptions of `harness plan`.")
    budget: Budget = Field(default=Budget(), description="Upper bounds for the whole run.")
    seed: Annotated[Integer, Field(ge=0)] = Field(default=DEFAULT_SEED, description="Seed of every random draw.")

    _source: Path = PrivateAttr(default=Path("scenario.yaml"))

    @field_validator("quality")
    @classmethod
    def _known_reference(cls, quality: Quality | None, info: ValidationInfo) -> Quality | None:
        """Return the section with the engines' own spelling of the reference's level."""
        reference = None if quality is None else quality.reference
        if quality is None or reference is None or reference.quantization is None:
            return quality
        spellings = {known_spelling(reference.quantization, block.engine) for block in info.data.get("engines", ())}
        named = reference.model_copy(update={"quantization": max(spellings, default=reference.quantization)})
        return quality.model_copy(update={"reference": named})

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        blocks = given.get("engines")
        have = isinstance(blocks, list | tuple) and all(isinstance(one, Mapping) and one.get("load") for one in blocks)
        needs = [] if "load" in given or (blocks and have) else [LOAD_MISSING]
        return [*super().check_keys(given), *needs]

    @property
    def source(self) -> Path:
        return self._source

    @property
    def title(self) -> str:
        return self.name or self._source.stem

    def variables_not_set(self) -> list[str]:
        needed = dict.fromkeys(name for block in self.engines for name in block.variables())
        return [name for name in needed if not os.environ.get(name, "").strip()]

    def resolved(self) -> dict[str, Any]:
        """Return the scenario as JSON-able data, defaults included and values of secrets masked.

        It has no `load` where each engine has its own: an empty list is no valid scenario.
        """
        given = self.model_dump(mode="json", by_alias=True)
        return given if self.load else {key: value for key, value in given.items() if key != "load"}
