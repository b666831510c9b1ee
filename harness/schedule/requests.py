"""Schedule of a trial: every request with its due time, class, lengths and text, fixed before the first is sent.

A schedule consists of a few arrays. The text of a row is made shortly before it is sent, always the same. Rows without
end (closed loops limited by duration) are computed in blocks, identical in every run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import Message, Request, Turn
from harness.errors import Problem, ScenarioError
from harness.records import Loop, Phase
from harness.scenario.files.prompts import FilePrompts, Tokenizer
from harness.scenario.files.traces import Trace, read_trace
from harness.scenario.lengths import Length
from harness.scenario.loads.kinds import Load
from harness.scenario.loads.kinds import Trace as Recorded
from harness.scenario.loads.saturate import Saturate
from harness.scenario.workload import TrafficClass, Workload
from harness.schedule.chains import Chains, FileTurns, RecordedTurns, Sessions, TurnCounts, Users
from harness.schedule.images import GeneratedImages
from harness.schedule.prompts import PrefixedPrompts, Prompts, WordPrompts
from harness.schedule.recorded import RecordedPrompts, counted
from harness.schedule.timing import PHASES, Timing, Window, growing_timing, plan_timing, trace_timing
from harness.schedule.traffic import NEVER, Content, Stream, Traffic

GENERATOR_VERSION = 1
LEAST_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Shard:
    """Part of a schedule: every `of`-th chain (user, conversation or single row)."""

    index: int
    of: int


WHOLE = Shard(0, 1)


@dataclass(frozen=True, slots=True)
class Row:
    """Scheduled request.

    Attributes:
        session: Number of its conversation, from 0; None without conversations.
        turn: Turn in the conversation, from 0.
        user: User of a closed loop.
        phase: None if it depends on the actual due time: in closed loops and for later turns.
        after: Request that it waits for; None if it does not wait.
        think_ns: Wait after the end of `after`.
        due_ns: Offset from T0; None if it waits. In a closed loop, 0 for a user's first request.
        prompt_tokens: Tokens of the new prompt alone; None for a file's prompt that cannot be counted, and with images.
        output_tokens: Upper bound, or exact number.
        cancel_ns: Time from sending to cancelling; None: not cancelled.
        repeats: Earlier request with the same text; None if the text is its own.
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
    """All requests of a trial. Immutable unless it `grows`; row(i) and request(i) depend only on the schedule and i.

    Attributes:
        loop: Open, closed or partly open.
        users: Users of a closed loop, else 0.
        count: Number of rows; None in a closed loop, whose length depends on the replies.
        measured: Measured requests (partly open: conversations); None if time or a file limits the load.
        window: Measurement window.
        continues: True if load goes on as cooldown until the measured requests have ended.
        starts: Rows that do not wait, in rising order; all others follow one of them (`follower`).
        due_ns: Due times of the starts in order; None in closed loops.
        phases: Phases of the starts as indices into PHASES; None in closed loops.
        grows: True if rows are added while it runs (`growing`).
        plan_hash: SHA-256 of everything that determines the requests and their times.
        count_tokens: Token count of a text by the model's tokenizer; None if that is unknown.
    """

    def __init__(
        self, timing: Timing, traffic: Traffic, chains: Chains, count_tokens: Callable[[str], int] | None = None
    ) -> None:
        self.count_tokens = count_tokens
        self.loop, self.users, self.measured = timing.loop, timing.users, timing.measured
        self.window, self.continues = timing.window, timing.continues
        self.due_ns, self.phases, self.grows = timing.due_ns, timing.phases, timing.grows
        self.count, self.starts = chains.count, chains.starts
        self._chains = chains
        self._traffic = traffic.materialised(chains.count)
        prompts = traffic.streams[0].prompts
        self._talks = prompts if isinstance(prompts, FilePrompts) and prompts.in_sessions else None
        self._first_hash = self.plan_hash = _plan_hash(timing, self._traffic, chains)

    @property
    def to_be_done(self) -> int | None:
        """Number of warm-up and measured requests, after which the trial ends; None if unknown in advance."""
        if self.loop is Loop.CLOSED:
            return self.measured if self.window.start_ns == 0 else None
        if self.measured is None:
            return None if self.continues else self.count
        assert self.phases is not None
        done = int(np.count_nonzero(self.phases != PHASES.index(Phase.COOLDOWN)))
        return int(self.starts[done]) if done < len(self.starts) else self.count

    def replace_rows(self, due_ns: NDArray[np.int64], phases: NDArray[np.int8], window: Window) -> None:
        """Set due times and phases of a schedule that grows. Rows that have been taken must stay as they are."""
        assert self.grows
        self.due_ns, self.phases, self.window, self.count = due_ns, phases, window, len(due_ns)
        self.starts = range(self.count)
        digest = hashlib.sha256(self._first_hash.encode())
        digest.update(due_ns.astype("<i8").tobytes() + phases.tobytes())
        self.plan_hash = digest.hexdigest()

    def classes_of(self, rows: int) -> NDArray[np.int64]:
        """Return the place of the class of each of the first `rows`, as `classes` of the scenario are ordered."""
        return self._traffic.streams_of(rows).astype(np.int64)

    def row(self, i: int) -> Row:
        """Return the row of request i; raise IndexError outside the schedule."""
        self._check(i)
        content, place = self._content(i), self._chains.place(i)
        waits = place.after is not None
        due_ns, phase = (None, None) if waits else self._beginning(place.chain)
        return Row(
            request=i,
            class_name=self._traffic.streams[content.stream].name,
            session=place.session,
            turn=place.turn,
            user=place.user,
            phase=phase,
            after=place.after,
            think_ns=0 if not waits else content.turn_think_ns if place.turn else content.think_ns,
            due_ns=due_ns,
            prompt_tokens=self._prompt_tokens(content),
            output_tokens=content.output_tokens,
            cancel_ns=None if content.cancel_ns == NEVER else content.cancel_ns,
            repeats=None if content.origin == i else content.origin,
        )

    def follower(self, i: int) -> int | None:
        """Return the request that falls due after the end of request i and the think time."""
        return self._chains.follower(i)

    def wait_ns(self, i: int) -> int:
        """Return the wait of request i after the end of the request before it: `row(i).think_ns`, but faster."""
        return self._traffic.think_ns(i, later_turn=self._chains.is_later_turn(i))

    def is_later_turn(self, i: int) -> bool:
        """Return True if request i continues a conversation, so that its text depends on a reply."""
        return self._chains.is_later_turn(i)

    def turn_in_round(self, i: int) -> int:
        """Return a number that selects the server (modulo their count), equal for all turns of a conversation."""
        return self._chains.turn_in_round(i)

    def loop_of(self, row: Row) -> Loop:
        """Return open for a row with a scheduled time, and closed for a row that waits for another."""
        if self.loop is not Loop.PARTLY_OPEN:
            return self.loop
        return Loop.OPEN if row.after is None else Loop.CLOSED

    def request(self, i: int, history: tuple[Turn, ...] = ()) -> Request:
        """Return request i for the engine, with the history of its conversation; raise IndexError as `row`."""
        self._check(i)
        content = self._content(i)
        stream = self._traffic.streams[content.stream]
        before, prompt = self._text(i, content, stream)
        images = stream.images
        return Request(
            prompt=prompt,
            max_tokens=content.output_tokens,
            exact=stream.exact,
            sampling=stream.sampling,
            stream=stream.stream,
            before=before,
            history=history,
            images=() if images is None else images.of(self._prompt_number(i, content)),
            priority=stream.priority,
            class_name=stream.name,
        )

    def _prompt_tokens(self, content: Content) -> int | None:
        """Return the length of a prompt; None if it is unknown, as of one with images."""
        return None if self._traffic.streams[content.stream].images is not None else content.prompt_tokens or None

    def _prompt_number(self, i: int, content: Content) -> int:
        """Return a number that requests with the same images share: repeats, and turns of a conversation."""
        session = self._chains.place(i).session
        return content.origin if session is None else session

    def _text(self, i: int, content: Content, stream: Stream) -> tuple[tuple[Message, ...], str | tuple[int, ...]]:
        """Return the messages before the conversation of request i, and its prompt."""
        prompts = stream.prompts
        if self._talks is not None:
            place = self._chains.place(i)
            assert place.session is not None
            return self._talks.turn(place.session, place.turn)
        if isinstance(prompts, FilePrompts):
            number = self._traffic.number_in_class(content.origin)
            return prompts.before(number), prompts.prompt(number, content.prompt_tokens)
        if stream.later_prompts is not None and self.is_later_turn(i):
            prompts = stream.later_prompts
        return (), prompts.prompt(content.origin, content.prompt_tokens)

    def _content(self, i: int) -> Content:
        """Return the content of row i; a line of a file may state the length of the replies in its conversation."""
        content = self._traffic.content(i)
        if self._talks is None:
            return content
        session = self._chains.place(i).session
        stated = int(self._talks.output_tokens[self._talks.lines(np.array([session]))[0]])
        return content._replace(output_tokens=stated) if stated else content

    @property
    def prompt_sources(self) -> dict[str, str]:
        """Source of the prompt lengths per class: `tokenizer` (exact), `estimated` (4 characters per token), `file`."""
        return {stream.name: stream.prompts.source for stream in self._traffic.streams}

    @property
    def prompt_files(self) -> dict[str, dict[str, int]]:
        """Number of `lines` and `offset` of the first line used, per class with prompts from a file."""
        return {
            stream.name: {"lines": len(stream.prompts), "offset": stream.prompts.offset}
            for stream in self._traffic.streams
            if isinstance(stream.prompts, FilePrompts)
        }

    def file_lines(self, requests: int) -> Iterator[tuple[str, str, NDArray[np.int64]]]:
        """Yield name, fingerprint and used lines of each class with prompts from a file.

        The lines are those of the first `requests` rows in order; with several classes, their number is approximate.
        """
        for place, stream in enumerate(self._traffic.streams):
            if isinstance(stream.prompts, FilePrompts):
                rows = self._traffic.rows_of_class(place, requests)
                numbers = np.arange(rows if self._talks is None else self._conversations_in(rows))
                yield stream.name, stream.prompts.fingerprint, stream.prompts.lines(numbers)

    def _conversations_in(self, rows: int) -> int:
        """Return the number of conversations that the first rows belong to, approximately in a closed loop."""
        sessions = [self._chains.place(i).session for i in range(max(0, rows - max(1, self.users)), rows)]
        return max((session + 1 for session in sessions if session is not None), default=0)

    @property
    def shares_prompts(self) -> bool:
        """True if prompts may begin alike: in conversations, repeats, common prefixes and files."""
        streams = self._traffic.streams
        return (
            self._chains.turns is not None
            or self.loop is Loop.PARTLY_OPEN
            or any(
                stream.repeat or isinstance(stream.prompts, FilePrompts | PrefixedPrompts | RecordedPrompts)
                for stream in streams
            )
        )

    @property
    def pinned_outputs(self) -> list[str]:
        """Names of the classes that request an exact reply length."""
        return [stream.name for stream in self._traffic.streams if stream.exact]

    @property
    def sampling(self) -> dict[str, dict[str, Any]]:
        """Sampling options per class."""
        return {stream.name: dict(stream.sampling) for stream in self._traffic.streams}

    def _beginning(self, chain: int) -> tuple[int, str | None]:
        """Return due time and phase of a chain's first row."""
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
    """Return the schedule of a load without lists, over a workload or, for a mixed load, over `classes`.

    Args:
        tokenizer: Tokenizer of the model; without it, prompt lengths are estimated.
        timeout_s: Time for which the load goes on after a window limited by duration; None: the load's timeout.
        salt: Salt of generated prompts, see `WordPrompts`.

    Raises:
        ScenarioError: A prompt file or trace cannot be used, or a class is too rare.
    """
    parts = classes if load.mixes_classes and classes else {"default": TrafficClass()}
    _check_shares(parts)
    own = {name: workload.overridden_by(one.workload) for name, one in parts.items()}
    words = WordPrompts(seed, tokenizer, salt) if any(one.prompts is None for one in own.values()) else None
    turns = load.turns_of(workload)
    streams = tuple(
        _stream(
            name,
            one,
            own[name],
            _prompts(own[name], words, seed, tokenizer, sessions=turns is not None),
            _images(own[name], seed, salt),
        )
        for name, one in parts.items()
    )
    count = None if tokenizer is None else tokenizer.count
    if isinstance(load, Recorded):
        return _recorded(load, streams, seed, tokenizer)
    if isinstance(load, Saturate):
        for one in own.values():
            _check_single(one)
        return Schedule(growing_timing(), Traffic(streams, seed), Chains(None), count)
    timing = plan_timing(load, seed, timeout_s)
    if turns is None and load.loop is Loop.PARTLY_OPEN:
        raise ScenarioError([Problem("`kind: sessions` needs `turns`, such as `turns: 3`", key="load.turns")])
    chains = _chains(timing, None if turns is None else _turn_counts(load, workload, turns, streams[0].prompts, seed))
    think_time, between_turns = load.think_times(workload)
    return Schedule(timing, Traffic(streams, seed, think_time, None, between_turns), chains, count)


def _check_single(workload: Workload) -> None:
    """Raise ScenarioError for what a search cannot send: its rate is that of single, whole requests."""
    for key, value in (("turns", workload.turns), ("cancel", workload.cancel)):
        if value is not None:
            why = f"`kind: saturate` sends single, whole requests; leave `{key}` out"
            raise ScenarioError([Problem(why, key=f"workload.{key}")])


def _turn_counts(load: Load, workload: Workload, turns: Length, prompts: Prompts, seed: int) -> TurnCounts | FileTurns:
    drawn = TurnCounts(turns, seed)
    if not isinstance(prompts, FilePrompts) or not prompts.in_sessions:
        return drawn
    given = getattr(load, "turns", None) or workload.turns
    return FileTurns(prompts, turns, None if given is None else drawn)


def _chains(timing: Timing, turns: TurnCounts | FileTurns | None) -> Chains:
    if timing.loop is Loop.CLOSED:
        return Users(timing.users, timing.count, turns)
    assert timing.count is not None
    return Chains(timing.count) if turns is None else Sessions(timing.count, turns)


def _recorded(load: Recorded, streams: tuple[Stream, ...], seed: int, tokenizer: Tokenizer | None) -> Schedule:
    """Return the schedule of a trace; recorded sessions are conversations."""
    trace = _selected(load, seed)
    if trace.texts is not None or trace.blocks is not None:
        (only,) = streams
        if not isinstance(only.prompts, WordPrompts):
            why = "cannot be combined with a trace that has texts or `hash_ids`; leave it out"
            raise ScenarioError([Problem(why, key="workload.prefix")])
        streams = (replace(only, prompts=RecordedPrompts(only.prompts, trace, load.block_tokens)),)
        if trace.texts is not None:
            trace = replace(trace, prompt_tokens=counted(trace, tokenizer))
    traffic = Traffic(tuple(replace(stream, exact=load.exact) for stream in streams), seed, None, trace)
    count = len(trace.due_ns)
    chains = Chains(count) if trace.turns is None else Sessions(count, RecordedTurns(trace.turns))
    timing = trace_timing(load.warmup_s, trace.due_ns, sessions=trace.turns is not None)
    return Schedule(timing, traffic, chains, None if tokenizer is None else tokenizer.count)


def _selected(load: Recorded, seed: int) -> Trace:
    try:
        trace = read_trace(load.file).selected(load.time_scale, load.sample, seed)
    except ValueError as error:
        raise ScenarioError([Problem(str(error), key="load.sample", file=str(load.file))]) from error
    if trace.due_ns[-1] < load.warmup_s * 1e9:
        why = f"is {load.warmup_s:g} s, longer than the trace ({trace.due_ns[-1] / 1e9:g} s); shorten it"
        raise ScenarioError([Problem(why, key="load.warmup", file=str(load.file))])
    return trace


def _check_shares(classes: Mapping[str, TrafficClass]) -> None:
    total = sum(one.weight for one in classes.values())
    rare = [name for name, one in classes.items() if one.weight / total < LEAST_SHARE]
    if rare:
        why = f"is less than {LEAST_SHARE:g} of the total weight; raise it, or remove the class"
        raise ScenarioError([Problem(why, key=f"classes.{name}.weight") for name in rare])


def _prompts(
    workload: Workload, words: WordPrompts | None, seed: int, tokenizer: Tokenizer | None, *, sessions: bool
) -> Prompts:
    if workload.prompts is not None:
        return FilePrompts(workload.prompts, tokenizer, seed, sessions=sessions)
    assert words is not None
    prefix = workload.prefix
    if prefix is None:
        return words
    return PrefixedPrompts(words, seed, share=prefix.share, tokens=prefix.tokens, groups=prefix.groups)


def _images(workload: Workload, seed: int, salt: int) -> GeneratedImages | None:
    return None if workload.images is None else GeneratedImages(workload.images, seed, salt)


def _stream(
    name: str, one: TrafficClass, workload: Workload, prompts: Prompts, images: GeneratedImages | None
) -> Stream:
    return Stream(
        name=name,
        weight=float(one.weight),
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        prompts=prompts,
        sampling=workload.sampling.as_options(),
        stream=workload.stream,
        exact=workload.output_tokens.exact,
        repeat=workload.repeat or 0.0,
        later_prompts=prompts.words if isinstance(prompts, PrefixedPrompts) else None,
        cancel=workload.cancel,
        priority=one.priority,
        images=images,
    )


def _plan_hash(timing: Timing, traffic: Traffic, chains: Chains) -> str:
    header = {name: getattr(timing, name) for name in ("loop", "count", "users", "continues", "measured")}
    header |= {"generator": GENERATOR_VERSION, "window_ns": [timing.window.start_ns, timing.window.end_ns]}
    header["traffic"] = traffic.description()
    if chains.turns is not None:
        header["turns"] = chains.turns.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(header, sort_keys=True, separators=(",", ":")).encode())
    for column in (timing.due_ns, timing.phases, *traffic.columns()):
        if column is not None:
            digest.update(np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
