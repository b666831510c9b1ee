"""Kinds of load: request rates and users of a trial, with the properties that schedule and estimates need."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, model_validator

from harness.records import Loop
from harness.scenario.base import AlsoAccepts, Count, Number, Positive
from harness.scenario.lengths import NO_THINK_TIME, EmpiricalLength, Length, ThinkTime, Turns
from harness.scenario.loads.base import (
    COUNTS,
    LENGTHS,
    MAX_CONCURRENCY,
    ONE_TURN,
    BaseLoad,
    CommonLoad,
    MaxConcurrency,
)
from harness.scenario.loads.rates import (
    ARRIVALS,
    CV,
    RATE_WORDS,
    Arrivals,
    Bursts,
    Cv,
    Pieces,
    Ramp,
    Rate,
    RateShape,
    Spike,
    Step,
)
from harness.scenario.loads.saturate import Saturate
from harness.scenario.workload import PromptSource, Workload
from harness.units import NOTHING, PositiveSeconds, Range

if TYPE_CHECKING:
    from harness.scenario.files.traces import Trace as Rows

# Keys that accept a list; each value is a separate trial.
LIST_VALUED = ("rate", "users", "burst_rate", "cv", "max_concurrency", *LENGTHS)
RATE = "Requests per second, whatever the server does (open loop). A list gives one trial per value."
USERS = "Users who each wait for the reply before they send again (closed loop). A list gives one trial per value."
PROMPT = "Length of the prompts, in place of the workload's. A list gives one trial per value."
OUTPUT = (
    "Length of the replies, in place of the workload's, and as `exact` unless it says so. A list gives one trial per "
    "value."
)
THINK = "Time that a user waits between a reply and the next request: a time, or a distribution of times."
# Words that mean a key of `kind: sustained`.
KEYS_OF_SUSTAINED = {"concurrency": "users", "users": "users"} | dict.fromkeys(("rate", *RATE_WORDS), "rate")
Users = Annotated[Count, AlsoAccepts(COUNTS)]
Lengths = Annotated[Length, AlsoAccepts({"type": "array", "items": {"type": ["integer", "object"]}, "minItems": 1})]


def _by_lengths(load: BaseLoad) -> str:
    """Return the part of a name for the lengths that a load sets itself."""
    own = load.own_lengths.items()
    return "".join(f"-{name.removesuffix('_tokens')}-{length.expected_tokens:.0f}" for name, length in own)


def _further(cv: float | None, cap: int | None) -> str:
    """Return the part of a name for what a rate has beside it."""
    return ("" if cv is None else f"-cv-{cv:g}") + ("" if cap is None else f"-cap-{cap}")


class SingleUser(BaseLoad):
    """A single user who sends, waits for the whole reply, thinks, and sends again: the speed without queueing."""

    mistaken_keys: ClassVar[Mapping[str, str]] = {
        word: f"unknown key; write `kind: sustained` with `{key}: {{value}}`" for word, key in KEYS_OF_SUSTAINED.items()
    } | {"max_concurrency": "goes with a `rate`; a single user has one request in flight"}

    kind: Literal["single_user"]
    prompt_tokens: Lengths | None = Field(default=None, description=PROMPT, examples=[512])
    output_tokens: Lengths | None = Field(default=None, description=OUTPUT, examples=[64])
    think_time: ThinkTime = Field(default=NO_THINK_TIME, description=THINK, examples=["2s"])

    @property
    def user_count(self) -> int:
        return 1

    @property
    def distinction(self) -> str:
        return _by_lengths(self)

    def think_times(self, workload: Workload) -> tuple[ThinkTime | None, ThinkTime | None]:
        return self.think_time, None if workload.turns is None else workload.think_time


class OpenOrClosed(BaseLoad):
    """Base of `sustained` and `mixed`: a rate, or a number of users."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"), ("rate", "users"))
    mistaken_keys: ClassVar[Mapping[str, str]] = {
        "concurrency": "unknown key; write `users: {value}`, or `max_concurrency: {value}` beside a `rate`",
        **RATE_WORDS,
    }

    rate: Rate | None = Field(default=None, description=RATE, examples=[2])
    users: Users | None = Field(default=None, description=USERS, examples=[8])
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])
    max_concurrency: MaxConcurrency | None = Field(default=None, description=MAX_CONCURRENCY, examples=[16])
    ramp: Ramp | None = Field(default=None, description="With `rate`: begin or end with another rate.")
    think_time: ThinkTime = Field(default=NO_THINK_TIME, description=THINK, examples=["2s"])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        problems = super().check_keys(given)
        users, rate = "users" in given, "rate" in given
        if users and not rate and "arrivals" in given:
            problems.append("`arrivals` goes with `rate`; `users` send after their last reply")
        if users and not rate and "max_concurrency" in given:
            problems.append("`max_concurrency` goes with `rate`; `users` have one request each in flight")
        if users and not rate and "ramp" in given:
            problems.append("`ramp` goes with `rate`; the number of `users` is constant")
        if rate and not users and "think_time" in given:
            problems.append("`think_time` goes with `users`; a `rate` does not wait for replies")
        return problems

    @model_validator(mode="after")
    def _ramp_fits(self) -> Self:
        if self.ramp is None or self.rate is None:
            return self
        if self.duration_s is not None and self.ramp.over_s > self.duration_s:
            raise ValueError("`ramp.over` is longer than `duration`; shorten it, so that the ramp reaches its end")
        if self.warmup_s > 0 and self.ramp.ends(self.rate)[0] == 0:
            raise ValueError("a `warmup` before a ramp from 0 sends nothing; write `ramp.from`, or leave `warmup` out")
        return self

    def irrelevant_keys(self) -> frozenset[str]:
        return frozenset({"arrivals"} if self.rate is None else {"think_time"})

    @property
    def user_count(self) -> int | None:
        return self.users

    @property
    def mean_rate(self) -> float:
        return self.rate or 0.0

    @property
    def shape(self) -> RateShape | None:
        return None if self.ramp is None or self.rate is None else self.ramp.pieces(self.rate)

    @property
    def distinction(self) -> str:
        return f"-users-{self.users}" if self.rate is None else f"-rate-{self.rate:g}{_further(self.cv, self.cap)}"

    def think_times(self, workload: Workload) -> tuple[ThinkTime | None, ThinkTime | None]:
        return self.think_time, None if self.turns_of(workload) is None else workload.think_time


class Sustained(OpenOrClosed):
    """A constant load."""

    kind: Literal["sustained"]
    prompt_tokens: Lengths | None = Field(default=None, description=PROMPT, examples=[512])
    output_tokens: Lengths | None = Field(default=None, description=OUTPUT, examples=[64])

    @property
    def distinction(self) -> str:
        return super().distinction + _by_lengths(self)


class Mixed(OpenOrClosed):
    """A constant load of requests from the scenario's `classes`, by their weights."""

    mixes_classes: ClassVar[bool] = True

    kind: Literal["mixed"]


class Burst(BaseLoad):
    """A base rate with bursts (`burst_rate`, `burst_for`, `every`), or with one `spike`.

    A spike without a base rate is the whole trial: it takes neither `duration` nor `requests`.
    """

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("burst_rate", "spike"),)
    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"),)
    mistaken_keys: ClassVar[Mapping[str, str]] = RATE_WORDS
    changes_by_plan: ClassVar[bool] = True

    kind: Literal["burst"]
    rate: Rate | None = Field(default=None, description="Requests per second between bursts (open loop).", examples=[1])
    burst_rate: Rate | None = Field(default=None, description="Requests per second during a burst.", examples=[8])
    burst_for_s: PositiveSeconds | None = Field(
        default=None, alias="burst_for", description="Length of each burst.", examples=["5s"]
    )
    every_s: PositiveSeconds | None = Field(
        default=None, alias="every", description="Time from the start of a burst to the next start.", examples=["20s"]
    )
    spike: Spike | None = Field(default=None, description="Instead of bursts: many requests at once.")
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])
    max_concurrency: MaxConcurrency | None = Field(default=None, description=MAX_CONCURRENCY, examples=[16])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        problems = super().check_keys(given)
        bounded = "duration" in given or "requests" in given
        if "spike" in given:
            extra = [f"`{key}`" for key in ("burst_for", "every") if key in given]
            problems += [f"{' and '.join(extra)} cannot be given with `spike`"] if extra else []
            if "rate" in given and "duration" not in given:
                problems.append("a `spike` over a `rate` needs `duration`")
            if "rate" not in given and (bounded or "warmup" in given):
                why = "a `spike` without a `rate` is the whole trial; add `rate`, or remove duration and warmup"
                problems.append(why)
        elif "burst_rate" in given:
            missing = [f"`{key}`" for key in ("rate", "burst_for", "every") if key not in given]
            problems += [f"bursts also need {' and '.join(missing)}"] if missing else []
            problems += [] if bounded else ["needs `duration` or `requests`"]
        return problems

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.burst_for_s is not None and self.every_s is not None and self.burst_for_s >= self.every_s:
            raise ValueError("`burst_for` must be shorter than `every`")
        if self.spike is None or self.duration_s is None:
            return self
        end_s = self.spike.at_s + self.spike.within_s
        if self.spike.at_s >= self.duration_s or end_s > self.duration_s:
            why = f"the spike ends {end_s:g} s into the measurement, at or after its end"
            raise ValueError(f"{why}; lengthen `duration`, or shorten `spike.at` or `spike.within`")
        return self

    def irrelevant_keys(self) -> frozenset[str]:
        return frozenset({"warmup"} if self.rate is None else ())

    @property
    def mean_rate(self) -> float:
        """Requests per second, averaged over whole periods; with a spike, the base rate."""
        base = self.rate or 0.0
        if self.burst_rate is None or self.burst_for_s is None or self.every_s is None:
            return base
        share = self.burst_for_s / self.every_s
        return base * (1 - share) + self.burst_rate * share

    @property
    def shape(self) -> RateShape | None:
        if self.rate is None or self.burst_rate is None or self.burst_for_s is None or self.every_s is None:
            return None
        return Bursts(self.rate, self.burst_rate, self.burst_for_s, self.every_s)

    @property
    def distinction(self) -> str:
        return "-spike" if self.burst_rate is None else f"-{self.burst_rate:g}{_further(self.cv, self.cap)}"

    @property
    def burst_spans(self) -> dict[str, float | None]:
        if self.spike is not None:
            return {"first_s": self.warmup_s + self.spike.at_s, "length_s": self.spike.within_s, "every_s": None}
        assert self.burst_for_s is not None
        assert self.every_s is not None
        first_s = self.warmup_s + (self.every_s - self.burst_for_s) / 2
        return {"first_s": first_s, "length_s": self.burst_for_s, "every_s": self.every_s}

    def expected_requests(self, workload: Workload = ONE_TURN) -> Range:
        if self.spike is None:
            return super().expected_requests(workload)
        return Range.exactly(self.spike.requests + self.mean_rate * (self.warmup_s + (self.duration_s or 0.0)))

    def further_requests(self, workload: Workload = ONE_TURN) -> Range:
        return NOTHING if self.rate is None else super().further_requests(workload)

    def expected_time_s(self, workload: Workload = ONE_TURN) -> Range:
        if self.spike is None:
            return super().expected_time_s(workload)
        ends_s = max(self.duration_s or 0.0, self.spike.at_s + self.spike.within_s)
        return self._until_answered(self.warmup_s + ends_s)


class Steps(CommonLoad):
    """A sequence of rates; the measurement lasts as long as all `steps` together.

    The warm-up has the rate of the first step. After the last step, the load goes on at its rate until the measured
    requests have ended.
    """

    changes_by_plan: ClassVar[bool] = True
    mistaken_keys: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("duration", "requests"), "is given by the steps; leave it out"
    )

    kind: Literal["steps"]
    steps: tuple[Step, ...] = Field(
        min_length=1, description="The rates and their durations.", examples=["[{rate: 2, for: 30s}]"]
    )
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])
    max_concurrency: MaxConcurrency | None = Field(default=None, description=MAX_CONCURRENCY, examples=[16])

    @property
    def measured_s(self) -> float:
        return math.fsum(step.for_s for step in self.steps)

    @property
    def mean_rate(self) -> float:
        return math.fsum(step.rate * step.for_s for step in self.steps) / self.measured_s

    @property
    def shape(self) -> RateShape:
        rates = tuple(step.rate for step in self.steps)
        return Pieces(tuple(step.for_s for step in self.steps), rates, rates)


class Trace(CommonLoad):
    """Recorded traffic: a whole file of times and lengths is replayed.

    The warm-up is the first part of the trace. `prompt_tokens` and `output_tokens` of the workload have no effect.
    """

    changes_by_plan: ClassVar[bool] = True
    mistaken_keys: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("duration", "requests", "rate"), "is given by the trace; leave it out, or use `time_scale` and `sample`"
    )

    kind: Literal["trace"]
    file: Path = Field(
        description="CSV, JSON Lines or JSON with `due_s, prompt_tokens, output_tokens` (seconds from the start), "
        "`TIMESTAMP, ContextTokens, GeneratedTokens` (clock times, as the public Azure trace), `Timestamp, Request "
        "tokens, Response tokens` (seconds, as BurstGPT), or `timestamp, input_length, output_length` (milliseconds, "
        "as the public Mooncake trace). docs/load.md has all columns.",
        examples=["trace.csv"],
    )
    time_scale: Positive = Field(
        default=1.0, description="Factor for every gap: 2 halves the rate, 0.5 doubles it.", examples=[2]
    )
    sample: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Share of the requests that is sent. Each is drawn independently, so that bursts remain bursts.",
        examples=[0.1],
    )
    max_concurrency: MaxConcurrency | None = Field(default=None, description=MAX_CONCURRENCY, examples=[16])
    block_tokens: Count = Field(default=512, description="Tokens of a block that `hash_ids` name.", examples=[64])
    exact: bool = Field(
        default=True,
        strict=True,
        description="Generate exactly the recorded number of tokens, if the engine can; otherwise at most that many.",
    )

    def expected_requests(self, workload: Workload = ONE_TURN) -> Range:
        return Range.exactly(self.sample * len(self._rows().prompt_tokens))

    def further_requests(self, workload: Workload = ONE_TURN) -> Range:
        return NOTHING

    def expected_time_s(self, workload: Workload = ONE_TURN) -> Range:
        rows = self._rows()
        until = self._until_answered(self.time_scale * int(rows.due_ns[-1]) / 1e9)
        return until if rows.turns is None else Range(until.low, None)

    def recorded_tokens(self) -> float:
        return self.sample * self._rows().total_tokens()

    def _rows(self) -> Rows:
        from harness.scenario.files.traces import read_trace  # numpy is heavy, and `harness list` does not need it

        return read_trace(self.file)


class Sessions(CommonLoad):
    """Conversations that begin at a rate, whatever the server does. Each later turn follows the reply before it.

    The loop is partly open: a slow server delays later turns, but not the start of new conversations.
    """

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "sessions"),)
    mistaken_keys: ClassVar[Mapping[str, str]] = {
        "requests": "unknown key; write `sessions`, the number of conversations, or `duration`",
        "users": "unknown key; for conversations of users write `kind: sustained` and `turns` in the workload",
        **RATE_WORDS,
    }

    kind: Literal["sessions"]
    rate: Rate = Field(description="Conversations begun per second. A list gives one trial per value.", examples=[0.5])
    duration_s: PositiveSeconds | None = Field(
        default=None, alias="duration", description="Time to measure, after the warm-up.", examples=["60s"]
    )
    sessions: Count | None = Field(
        default=None, description="Number of conversations to measure, instead of a duration.", examples=[50]
    )
    turns: Turns | None = Field(
        default=None,
        description="Turns of a conversation: a number, or a distribution of lengths. Default: the workload's `turns`, "
        "or as many as each conversation of the prompt file has. With such a file, at most that many.",
        examples=[4],
    )
    think_time: ThinkTime | None = Field(
        default=None,
        description="Time that a user waits between a reply and the next turn: a time, or a distribution of times. "
        "Default: `think_time` of the workload, or none.",
        examples=["5s"],
    )
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])
    max_concurrency: MaxConcurrency | None = Field(default=None, description=MAX_CONCURRENCY, examples=[16])

    @property
    def measured_s(self) -> float | None:
        return self.duration_s

    @property
    def measured_count(self) -> int | None:
        return self.sessions

    @property
    def loop(self) -> Loop:
        return Loop.PARTLY_OPEN

    @property
    def mean_rate(self) -> float:
        return self.rate

    @property
    def distinction(self) -> str:
        return f"-rate-{self.rate:g}{_further(self.cv, self.cap)}"

    def turns_of(self, workload: Workload) -> Length | None:
        return self.turns or workload.turns or _turns_in(workload.prompts)

    def think_times(self, workload: Workload) -> tuple[ThinkTime | None, ThinkTime | None]:
        return self.think_time or workload.think_time, None

    def expected_requests(self, workload: Workload = ONE_TURN) -> Range:
        """Return the range from the first turns alone to all turns of all conversations."""
        turns = self._mean_turns(workload)
        if self.sessions is not None:
            return Range.exactly(self.sessions * turns + self.rate * self.warmup_s * turns)
        begun = self.rate * (self.warmup_s + (self.duration_s or 0.0))
        return Range(begun, begun * turns)

    def further_requests(self, workload: Workload = ONE_TURN) -> Range:
        return super().further_requests(workload).times(self._mean_turns(workload))

    def expected_time_s(self, workload: Workload = ONE_TURN) -> Range:
        if self.sessions is None:
            return super().expected_time_s(workload)
        # Replies of a given number of conversations may take any time.
        think_s = (self._mean_turns(workload) - 1) * self.mean_think_s(workload)
        return Range(self.warmup_s + (self.sessions - 1) / self.rate + think_s, None)


def _turns_in(prompts: PromptSource | None) -> Length | None:
    """Return the distribution of the turns of the conversations in a file; None if it has none."""
    if prompts is None or (isinstance(prompts, Path) and not prompts.is_file()):
        return None
    from harness.scenario.files.prompts import summary  # numpy is heavy, and `harness list` does not need it

    counts = sorted(summary(prompts).turns.items())
    if not counts:
        return None
    values, weights = tuple(turns for turns, _ in counts), tuple(float(lines) for _, lines in counts)
    return EmpiricalLength(dist="empirical", values=values, weights=weights)


def load_names(loads: Sequence[Load]) -> list[str]:
    """Return a unique name for each load: its own, or its kind with its distinction from others of that kind."""
    kinds = [load.kind for load in loads]
    wanted = [load.name or load.kind + (load.distinction if kinds.count(load.kind) > 1 else "") for load in loads]
    names: list[str] = []
    for name in wanted:
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names.append(next(one for one in candidates if one not in names))
    return names


Load = SingleUser | Sustained | Burst | Mixed | Steps | Trace | Sessions | Saturate
LoadItem = Annotated[Load, Field(discriminator="kind")]
KINDS: dict[str, type[CommonLoad]] = {
    get_args(load.model_fields["kind"].annotation)[0]: load for load in get_args(Load)
}
