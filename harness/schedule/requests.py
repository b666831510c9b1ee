"""The schedule of a trial: every request with its due time, class, lengths and words, fixed before the first is sent.

A plan of a million requests is some arrays of numbers; texts are made when a request is about to be sent, always the
same for the same row. Rows without end (closed loops limited by duration) are computed block by block, so that they too
are the same in every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Request, Turn
from harness.errors import Problem, ScenarioError
from harness.records import Loop, Phase
from harness.scenario.loads import Load
from harness.scenario.loads import Trace as Recorded
from harness.scenario.prompt_files import FilePrompts, Tokenizer
from harness.scenario.traces import Trace, read_trace
from harness.scenario.workload import TrafficClass, Workload
from harness.schedule.chains import Chains, Sessions, Singles, TurnCounts, Users
from harness.schedule.prompts import PrefixedPrompts, Prompts, WordPrompts
from harness.schedule.timing import PHASES, Timing, plan_timing, trace_timing
from harness.schedule.traffic import NEVER, Stream, Traffic

GENERATOR_VERSION = 1
LEAST_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` parts of a plan: every `of`-th of its chains, that is of its users, conversations or single rows."""

    index: int
    of: int


WHOLE = Shard(0, 1)


@dataclass(frozen=True, slots=True)
class Row:
    """One planned request.

    session, turn: the conversation and the turn in it, from 0; None, 0 outside conversations.   user: closed loops.
    phase: None where only the due time can tell: in closed loops and for the later turns of conversations.
    after: the request it waits for, None for those that wait for nobody.   think_ns: the wait after `after`.
    due_ns: offset from T0, None where it waits; closed: 0 for a user's first request.
    prompt_tokens: of the new prompt alone; None for prompts from a file that cannot be counted.
    output_tokens: the most, or exactly so many.   cancel_ns: given up so long after it was sent; None: not.
    repeats: the earlier request whose words it has; None: it has its own.
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
    cancel_ns: int | None = None
    repeats: int | None = None


class Schedule:
    """All requests of a trial. Immutable; row(i) and request(i) depend on nothing but the plan and i.

    loop: open, closed or partly open.   users: of a closed loop, else 0.
    count: rows in the plan; None: a closed loop, whose rows have no end, for its length depends on the replies.
    measured: limited by so many requests (partly open: conversations) after the warm-up; None: by time, or a file.
    window: where requests are measured.   continues: load goes on as cooldown until the measured requests have ended.
    starts: the rows that wait for nobody, rising; all others follow one of them (`follower`).
    due_ns, phases: of the starts, parallel to them, due times in order, phases index into PHASES; None in closed loops.
    plan_hash: SHA-256 of everything that determines the requests and their times.
    count_tokens: of a text, by the served model's tokenizer; None where that is not known.
    """

    def __init__(
        self, timing: Timing, traffic: Traffic, chains: Chains, count_tokens: Callable[[str], int] | None = None
    ) -> None:
        self.count_tokens = count_tokens
        self.loop = timing.loop
        self.count = chains.count
        self.users = timing.users
        self.window = timing.window
        self.continues = timing.continues
        self.measured = timing.measured
        self.due_ns = timing.due_ns
        self.phases = timing.phases
        self.starts = chains.starts
        self._chains = chains
        self._traffic = traffic.materialised(chains.count)
        self.plan_hash = _plan_hash(timing, self._traffic, chains)

    @property
    def to_be_done(self) -> int | None:
        """The requests that a trial is over with, where their number is known before: those of the warm-up and the
        measured ones.
        """
        if self.loop is Loop.CLOSED:
            return self.measured if self.window.start_ns == 0 else None
        if self.measured is None:
            return None if self.continues else self.count
        assert self.phases is not None
        done = int(np.count_nonzero(self.phases != PHASES.index(Phase.COOLDOWN)))
        return int(self.starts[done]) if done < len(self.starts) else self.count

    def row(self, i: int) -> Row:
        """What is planned for request i; IndexError outside the plan."""
        self._check(i)
        asked, place = self._traffic.asked(i), self._chains.place(i)
        waits = place.after is not None
        due_ns, phase = (None, None) if waits else self._beginning(place.chain)
        return Row(
            request=i,
            class_name=self._traffic.streams[asked.stream].name,
            session=place.session,
            turn=place.turn,
            user=place.user,
            phase=phase,
            after=place.after,
            think_ns=0 if not waits else asked.turn_think_ns if place.turn else asked.think_ns,
            due_ns=due_ns,
            prompt_tokens=None if asked.prompt_tokens == 0 else asked.prompt_tokens,
            output_tokens=asked.output_tokens,
            cancel_ns=None if asked.cancel_ns == NEVER else asked.cancel_ns,
            repeats=None if asked.origin == i else asked.origin,
        )

    def follower(self, i: int) -> int | None:
        """The request that waits for request i, to fall due when that has ended and the think time is over."""
        return self._chains.follower(i)

    def wait_ns(self, i: int) -> int:
        """How long request i falls due after the one before it has ended: `row(i).think_ns`, for less."""
        return self._traffic.think_ns(i, later_turn=self._chains.is_later_turn(i))

    def is_later_turn(self, i: int) -> bool:
        """Whether request i goes on with a conversation, so that it cannot be written before the reply it answers."""
        return self._chains.is_later_turn(i)

    def turn_in_round(self, i: int) -> int:
        """Whose turn it is among several servers, modulo their number: the same for all of a conversation."""
        return self._chains.turn_in_round(i)

    def loop_of(self, row: Row) -> Loop:
        """Whether this row is sent at a planned time (open) or when another has ended (closed)."""
        if self.loop is not Loop.PARTLY_OPEN:
            return self.loop
        return Loop.OPEN if row.after is None else Loop.CLOSED

    def request(self, i: int, history: tuple[Turn, ...] = ()) -> Request:
        """What request i asks of the engine, after what was said before; IndexError outside the plan."""
        self._check(i)
        asked = self._traffic.asked(i)
        stream = self._traffic.streams[asked.stream]
        prompts = stream.prompts
        if stream.later_prompts is not None and self.is_later_turn(i):
            prompts = stream.later_prompts
        number = self._traffic.number_in_class(asked.origin) if isinstance(prompts, FilePrompts) else asked.origin
        return Request(
            prompt=prompts.prompt(number, asked.prompt_tokens),
            max_tokens=asked.output_tokens,
            exact=stream.exact,
            sampling=stream.sampling,
            stream=stream.stream,
            history=history,
            priority=stream.priority,
        )

    @property
    def prompt_sources(self) -> dict[str, str]:
        """How prompts got their length, per class: `tokenizer` (exact), `estimated` (4 characters a token), `file`."""
        return {stream.name: stream.prompts.source for stream in self._traffic.streams}

    @property
    def prompt_files(self) -> dict[str, dict[str, int]]:
        """Of classes whose prompts come from a file: how many `lines` it has, and the `offset` of the first used."""
        files = {stream.name: stream.prompts for stream in self._traffic.streams}
        return {
            name: {"lines": len(prompts), "offset": prompts.offset}
            for name, prompts in files.items()
            if isinstance(prompts, FilePrompts)
        }

    def file_lines(self, requests: int) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
        """Of classes whose prompts come from a file: name, the file's fingerprint, and the lines that they use among
        the first so many requests of the plan, in order; where classes are mixed, give or take a hand of them.
        """
        for place, stream in enumerate(self._traffic.streams):
            if isinstance(stream.prompts, FilePrompts):
                numbers = np.arange(self._traffic.rows_of_class(place, requests))
                yield stream.name, stream.prompts.fingerprint, stream.prompts.lines(numbers)

    @property
    def shares_prompts(self) -> bool:
        """Whether requests have beginnings in common by plan: of files nobody knows."""
        streams = self._traffic.streams
        return self._chains.turns is not None or any(
            stream.repeat or isinstance(stream.prompts, FilePrompts | PrefixedPrompts) for stream in streams
        )

    @property
    def pinned_outputs(self) -> list[str]:
        """Classes whose replies shall be exactly as long as planned."""
        return [stream.name for stream in self._traffic.streams if stream.exact]

    @property
    def sampling(self) -> dict[str, dict[str, Any]]:
        """How tokens are asked to be drawn, per class."""
        return {stream.name: dict(stream.sampling) for stream in self._traffic.streams}

    def _beginning(self, chain: int) -> tuple[int, str | None]:
        """Due time and phase of a chain's first row."""
        if self.due_ns is None:
            return 0, None
        return int(self.due_ns[chain]), None if self.phases is None else PHASES[self.phases[chain]]

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
    salt: int = 0,
) -> Schedule:
    """The schedule of one expanded load (`harness.scenario.loads`) over a workload, or over `classes` where the load is
    mixed.

    tokenizer: the served model's; without it prompt lengths are estimated.   timeout_s: how long the load goes on after
    a window limited by duration (None: the load's own).   salt: of the prompts that are made up, see `WordPrompts`.
    Raises ScenarioError where a file of prompts or a trace cannot be used or a class is too rare to be dealt out.
    """
    parts: list[tuple[str, float, Workload, int | None]] = [("default", 1.0, workload, None)]
    if load.mixes_classes and classes:
        _check_shares(classes)
        parts = [
            (name, one.weight, workload.overridden_by(one.workload), one.priority) for name, one in classes.items()
        ]
    words = WordPrompts(seed, tokenizer, salt) if any(asked.prompts is None for _, _, asked, _ in parts) else None
    count = None if tokenizer is None else tokenizer.count
    streams = tuple(
        _stream(name, weight, asked, _prompts(asked, words, seed, tokenizer), priority)
        for name, weight, asked, priority in parts
    )
    if isinstance(load, Recorded):
        trace = _selected(load, seed)
        streams = tuple(replace(stream, exact=load.exact) for stream in streams)
        timing = trace_timing(load.warmup_s, trace.due_ns)
        return Schedule(timing, Traffic(streams, seed, None, trace), Singles(len(trace.due_ns)), count)
    timing = plan_timing(load, seed, timeout_s)
    turns = load.turns_of(workload)
    if turns is None and load.loop is Loop.PARTLY_OPEN:
        raise ScenarioError([Problem("`kind: sessions` needs `turns`, such as `turns: 3`", key="load.turns")])
    chains = _chains(timing, None if turns is None else TurnCounts(turns, seed))
    think_time, between_turns = load.think_times(workload)
    return Schedule(timing, Traffic(streams, seed, think_time, None, between_turns), chains, count)


def _chains(timing: Timing, turns: TurnCounts | None) -> Chains:
    if timing.loop is Loop.CLOSED:
        return Users(timing.users, timing.count, turns)
    assert timing.count is not None
    return Singles(timing.count) if turns is None else Sessions(timing.count, turns)


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
        return FilePrompts(workload.prompts, tokenizer, seed)
    assert words is not None
    prefix = workload.prefix
    if prefix is None:
        return words
    return PrefixedPrompts(words, seed, share=prefix.share, tokens=prefix.tokens, groups=prefix.groups)


def _stream(name: str, weight: float, workload: Workload, prompts: Prompts, priority: int | None) -> Stream:
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
        later_prompts=prompts.words if isinstance(prompts, PrefixedPrompts) else None,
        cancel=workload.cancel,
        priority=priority,
    )


def _plan_hash(timing: Timing, traffic: Traffic, chains: Chains) -> str:
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
    if chains.turns is not None:
        header["turns"] = chains.turns.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for column in (timing.due_ns, timing.phases, *traffic.columns()):
        if column is not None:
            digest.update(np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
