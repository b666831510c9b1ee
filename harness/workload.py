"""The schedule of a trial: every request with its due time, class, lengths and words, fixed before the first is sent.

A plan of a million requests is some arrays of numbers; texts are made when a request is about to be sent, always the
same for the same row. Rows without end (closed loops limited by duration) are computed block by block, so that they too
are the same in every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from engines.base import Request
from harness.errors import Problem, ScenarioError
from harness.loads import Load
from harness.loads import Trace as Recorded
from harness.prefixes import PrefixedPrompts
from harness.prompts import FilePrompts, Prompts, Tokenizer, WordPrompts
from harness.records import Loop, Phase
from harness.scenario import TrafficClass, Workload
from harness.timing import PHASES, Timing, Window, plan_timing, trace_timing
from harness.traces import Trace, read_trace
from harness.traffic import Stream, Traffic

GENERATOR_VERSION = 1
LEAST_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` parts of a plan: rows of an open loop by their number, of a closed one by their user."""

    index: int
    of: int


WHOLE = Shard(0, 1)


@dataclass(frozen=True, slots=True)
class Row:
    """One planned request.

    phase: None in closed loops where only the due time can tell.   user: closed loops only.
    after: closed: the same user's previous request, None for a user's first.   think_ns: the wait after `after`.
    due_ns: offset from T0; closed: 0 for a user's first request, None for the others.
    prompt_tokens: None for prompts from a file that cannot be counted.   output_tokens: the most, or exactly so many.
    """

    request: int
    class_name: str
    session: int | None
    turn: int
    user: int | None
    phase: str | None
    after: int | None
    think_ns: int
    due_ns: int | None
    prompt_tokens: int | None
    output_tokens: int


class Schedule:
    """All requests of a trial. Immutable; row(i) and request(i) depend on nothing but the plan and i.

    loop: open or closed.   users: of a closed loop, 0 in an open one.
    count: rows in the plan; None: a closed loop whose rows have no end, for its length depends on the replies.
    measured: closed loops limited by requests: how many are measured, after as many in the warm-up as fall due there.
    window: where requests are measured.   continues: load goes on as cooldown until the measured requests have ended.
    due_ns, phases: of an open loop, one element a row, due times in order; phases index into PHASES.
    plan_hash: SHA-256 of everything that determines the requests and their times.
    In a closed loop request i belongs to user i % users and follows request i - users.
    """

    def __init__(self, timing: Timing, traffic: Traffic) -> None:
        self.loop = timing.loop
        self.count = timing.count
        self.users = timing.users
        self.window = timing.window
        self.continues = timing.continues
        self.measured = timing.measured
        self.due_ns = timing.due_ns
        self.phases = timing.phases
        self._traffic = traffic.materialised(timing.count)
        self.plan_hash = _plan_hash(timing, self._traffic)
        whole_plan_measured = timing.loop is Loop.CLOSED and timing.count is not None and timing.window.start_ns == 0
        self._closed_phase = Phase.MEASURE if whole_plan_measured else None

    def row(self, i: int) -> Row:
        """What is planned for request i; IndexError outside the plan."""
        self._check(i)
        asked = self._traffic.asked(i)
        stream = self._traffic.streams[asked.stream]
        prompt_tokens = None if asked.prompt_tokens == 0 else asked.prompt_tokens
        if self.due_ns is not None:
            due_ns, phase = int(self.due_ns[i]), self._open_phase(i)
            return Row(i, stream.name, None, 0, None, phase, None, 0, due_ns, prompt_tokens, asked.output_tokens)
        first = i < self.users
        return Row(
            request=i,
            class_name=stream.name,
            session=None,
            turn=0,
            user=i % self.users,
            phase=self._closed_phase,
            after=None if first else i - self.users,
            think_ns=0 if first else asked.think_ns,
            due_ns=0 if first else None,
            prompt_tokens=prompt_tokens,
            output_tokens=asked.output_tokens,
        )

    def request(self, i: int) -> Request:
        """What request i asks of the engine; IndexError outside the plan."""
        self._check(i)
        asked = self._traffic.asked(i)
        stream = self._traffic.streams[asked.stream]
        return Request(
            prompt=stream.prompts.prompt(asked.origin, asked.prompt_tokens),
            max_tokens=asked.output_tokens,
            exact=stream.exact,
            sampling=stream.sampling,
            stream=stream.stream,
        )

    @property
    def prompt_sources(self) -> dict[str, str]:
        """How prompts got their length, per class: `tokenizer` (exact), `estimated` (4 characters a token), `file`."""
        return {stream.name: stream.prompts.source for stream in self._traffic.streams}

    def _open_phase(self, i: int) -> str | None:
        return None if self.phases is None else PHASES[self.phases[i]]

    def _check(self, i: int) -> None:
        if i < 0 or (self.count is not None and i >= self.count):
            raise IndexError(f"the plan has {self.count} requests, there is no request {i}")


def build(
    load: Load,
    workload: Workload,
    seed: int,
    *,
    classes: Mapping[str, TrafficClass] | None = None,
    tokenizer: Tokenizer | None = None,
    timeout_s: float | None = None,
) -> Schedule:
    """The schedule of one expanded load (`harness.loads`) over a workload, or over `classes` where the load is mixed.

    tokenizer: the served model's; without it prompt lengths are estimated.   timeout_s: how long the load goes on after
    a window limited by duration (None: the load's own).
    Raises ScenarioError where a file of prompts or a trace cannot be used or a class is too rare to be dealt out.
    """
    parts = [("default", 1.0, workload)]
    if load.kind == "mixed" and classes:
        _check_shares(classes)
        parts = [(name, one.weight, workload.overridden_by(one.workload)) for name, one in classes.items()]
    words = WordPrompts(seed, tokenizer) if any(asked.prompts is None for _, _, asked in parts) else None
    streams = tuple(
        _stream(name, weight, asked, _prompts(asked, words, seed, tokenizer)) for name, weight, asked in parts
    )
    if isinstance(load, Recorded):
        trace = _selected(load, seed)
        streams = tuple(replace(stream, exact=load.exact) for stream in streams)
        return Schedule(trace_timing(load.warmup_s, trace.due_ns), Traffic(streams, seed, None, trace))
    traffic = Traffic(streams, seed, getattr(load, "think_time", None))
    return Schedule(plan_timing(load, seed, timeout_s), traffic)


def _selected(load: Recorded, seed: int) -> Trace:
    try:
        trace = read_trace(load.file).selected(load.time_scale, load.sample, seed)
    except ValueError as error:
        raise ScenarioError([Problem(str(error), key="load.sample", file=str(load.file))]) from error
    if trace.due_ns[-1] < load.warmup_s * 1e9:
        why = f"ends after {trace.due_ns[-1] / 1e9:g} s, so that a `warmup` of {load.warmup_s:g} s leaves nothing"
        raise ScenarioError([Problem(why, key="load.warmup", file=str(load.file))])
    return trace


def _check_shares(classes: Mapping[str, TrafficClass]) -> None:
    total = sum(one.weight for one in classes.values())
    rare = [name for name, one in classes.items() if one.weight / total < LEAST_SHARE]
    if rare:
        why = f"has less than {LEAST_SHARE:g} of the weight and would hardly occur; leave it out or raise its weight"
        raise ScenarioError([Problem(why, key=f"classes.{name}.weight") for name in rare])


def _prompts(workload: Workload, words: WordPrompts | None, seed: int, tokenizer: Tokenizer | None) -> Prompts:
    if workload.prompts is not None:
        return FilePrompts(workload.prompts, tokenizer)
    assert words is not None
    prefix = workload.prefix
    if prefix is None:
        return words
    return PrefixedPrompts(words, seed, share=prefix.share, tokens=prefix.tokens, groups=prefix.groups)


def _stream(name: str, weight: float, workload: Workload, prompts: Prompts) -> Stream:
    return Stream(
        name=name,
        weight=float(weight),
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        prompts=prompts,
        sampling=workload.sampling.as_options(),
        stream=workload.stream,
        exact=workload.output_tokens.exact,
        repeat=workload.repeat or 0.0,
    )


def _plan_hash(timing: Timing, traffic: Traffic) -> str:
    header = {
        "generator": GENERATOR_VERSION,
        "loop": timing.loop,
        "count": timing.count,
        "users": timing.users,
        "window_ns": [timing.window.start_ns, timing.window.end_ns],
        "continues": timing.continues,
        "measured": timing.measured,
        "traffic": traffic.description(),
    }
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for column in (timing.due_ns, timing.phases, *traffic.columns()):
        if column is not None:
            digest.update(np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


__all__ = ["GENERATOR_VERSION", "PHASES", "WHOLE", "Row", "Schedule", "Shard", "Window", "build"]
