"""Deterministic engine: continuous batching with set speeds and faults on demand; the null system under test.

Replies are fake, but their times are exact: every chunk has an absolute deadline in whole nanoseconds, computed when
its request gets a slot. The engine waits only with the loop's timers, so it runs in real and in virtual time. Up to
`max_batch` requests run side by side without slowing each other down; the others queue in order.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from engines.base import (
    Chunk,
    ChunkKind,
    EngineError,
    EngineInfo,
    EngineSpec,
    LevelUnsupported,
    Request,
    Speed,
    StartFailed,
    Usage,
)
from engines.options import Positive, read_options

if TYPE_CHECKING:
    from engines.models.tokenizer import Tokenizer

LEVELS = ("fp32", "f16", "fp16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0")
CHARACTERS_PER_TOKEN = 4
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000
_WORD = " token"
_LOOK_EVERY_S = 0.01
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class SimulatedOptions:
    """Speeds and faults.

    Attributes:
        ttft_ms: From the slot to the first token. `prefill_tokens_per_s` adds the time of the prompt.
        tpot_ms: From token to token. `tokens_per_chunk` of them arrive together.
        first_request_extra_ms: Added to `ttft_ms` of the first request.
        max_batch: Slots. None is no limit.
        natural_tokens: Length of a reply without exact length. None is the maximum.
        load_s: Startup time.
        memory_bytes: Allocated from start to stop.
        level_speed: Level -> factor on all speeds.
        service: "exponential" multiplies the times of a request by one draw of mean 1, seeded by `seed`.
        stall: {at_s, for_s}: all work stops for `for_s`, starting `at_s` after the first request.
        error_every: Every n-th reply is an error.
        hang_after_requests: Later replies never come.
        hold: {after_requests, until}: later replies wait until the file `until` exists.
        crash_after_requests: The next request aborts the process.
        fail_start: start() fails with this sentence.
    """

    ttft_ms: NotNegative = 50.0
    tpot_ms: NotNegative = 10.0
    prefill_tokens_per_s: Annotated[float, Field(gt=0)] | None = None
    first_request_extra_ms: NotNegative = 0.0
    tokens_per_chunk: Positive = 1
    max_batch: Positive | None = None
    natural_tokens: Positive | None = None
    load_s: NotNegative = 0.0
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    level_speed: Mapping[str, Any] = field(default_factory=dict)
    service: Literal["fixed", "exponential"] = "fixed"
    seed: int = 0
    stall: Mapping[str, Any] | None = None
    error_every: Positive | None = None
    hang_after_requests: int | None = None
    hold: Mapping[str, Any] | None = None
    crash_after_requests: int | None = None
    fail_start: str | None = None

    def __post_init__(self) -> None:
        if self.stall is not None and not (set(self.stall) == {"at_s", "for_s"} and _numbers(self.stall.values())):
            raise ValueError(f"stall is written {{at_s: 30, for_s: 1}}, not {dict(self.stall)!r}")
        if self.hold is not None and set(self.hold) != {"after_requests", "until"}:
            raise ValueError(f"hold is written {{after_requests: 5, until: go-on}}, not {dict(self.hold)!r}")
        if not _numbers(self.level_speed.values()) or not all(one > 0 for one in self.level_speed.values()):
            raise ValueError(f"level_speed has factors above 0, not {dict(self.level_speed)!r}")


class SimulatedEngine:
    """Engine `simulated`; implements `engines.base.InProcessEngine`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._options = read_options(SimulatedOptions, spec.options, "simulated")
        if spec.level is not None and spec.level not in self.levels() and spec.level not in self._options.level_speed:
            raise LevelUnsupported(f"engine 'simulated' has no level {spec.level!r}; it has {', '.join(LEVELS)}")
        self._speed = float(self._options.level_speed.get(spec.level, 1.0)) if spec.level else 1.0
        self._random = random.Random(self._options.seed)
        self._tokenizer: Tokenizer | None = None
        self._running = False
        self._memory: bytearray | None = None
        self._busy = 0
        self._queue: deque[asyncio.Future[int]] = deque()
        self._hung: list[asyncio.Future[int]] = []
        self._received = 0
        self._first_arrival_ns = 0

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """Return the usual names. Levels differ by `level_speed` only."""
        return LEVELS

    def prepare(self) -> Sequence[Path]:
        """Load the model's tokenizer, so that prompts have the scheduled number of tokens. Raises ModelError."""
        if self._spec.model is not None:
            from engines.models.source import resolve
            from engines.models.tokenizer import tokenizer

            self._tokenizer = tokenizer(resolve(self._spec.model))
        return ()

    async def start(self) -> EngineInfo:
        """Wait `load_s` and allocate `memory_bytes`. Raises StartFailed if `fail_start` is set."""
        if self._options.load_s:
            await asyncio.sleep(self._options.load_s)
        if self._options.fail_start is not None:
            raise StartFailed(self._options.fail_start)
        if self._options.memory_bytes:
            self._memory = bytearray(self._options.memory_bytes)
            self._memory[::4096] = b"\1" * len(range(0, len(self._memory), 4096))  # only touched pages take memory
        self._running = True
        model = self._spec.model.name if self._spec.model else None
        return EngineInfo("simulated", "1", model, level=self._spec.level, options=asdict(self._options))

    def speed(self) -> Speed:
        """Return the set speed, for the estimate of a run's time."""
        options, factor = self._options, 1 / self._speed
        prompt_token_s = 1 / options.prefill_tokens_per_s if options.prefill_tokens_per_s else 0.0
        first_s, token_s = options.ttft_ms / 1e3, options.tpot_ms / 1e3
        return Speed(options.load_s, first_s * factor, prompt_token_s * factor, token_s * factor, options.max_batch)

    async def stop(self) -> None:
        """Release everything. Replies in progress end with EngineError."""
        self._running = False
        self._memory = None
        for one in (*self._queue, *self._hung):
            if not one.done():
                one.set_exception(EngineError("the simulated engine was stopped"))
        self._queue.clear()
        self._hung.clear()

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield the reply, every chunk at its deadline, then the finish reason and the counts."""
        if not self._running:
            raise EngineError("the simulated engine is not running; call start() first")
        options = self._options
        if self._received == 0:
            self._first_arrival_ns = _now_ns()
        self._received = number = self._received + 1
        factor = (self._random.expovariate(1.0) if options.service == "exponential" else 1.0) / self._speed
        if options.crash_after_requests is not None and number > options.crash_after_requests:
            os.abort()
        start_ns = await self._slot()
        end_ns: int | None = None
        try:
            await self._maybe_hang(number)
            start_ns = await self._wait_for_hold(number, start_ns)
            if options.error_every and number % options.error_every == 0:
                yield Chunk(ChunkKind.ERROR, "the option error_every requests an error")
                return
            prompt_tokens, tokens = self._prompt_tokens(request), request.max_tokens
            if options.natural_tokens is not None and not request.exact:
                tokens = min(options.natural_tokens, tokens)
            pieces = self._pieces(request, tokens)
            for index, (work_ns, borne) in enumerate(pieces, start=1):
                deadline_ns = self._deadline(start_ns, self._scaled(work_ns, number, factor, prompt_tokens))
                await self._until(deadline_ns)
                if index == len(pieces):
                    # The slot is free from the deadline on, even if the reader fetches the last chunk later.
                    end_ns = deadline_ns
                    self._release(end_ns)
                yield Chunk(ChunkKind.CONTENT, _WORD * borne, tokens=borne)
        finally:
            if end_ns is None:
                self._release(_now_ns())
        yield Chunk(ChunkKind.FINISH, finish_reason="length" if tokens == request.max_tokens else "stop")
        yield Chunk(ChunkKind.USAGE, usage=Usage(prompt_tokens=prompt_tokens, output_tokens=tokens))

    async def _maybe_hang(self, number: int) -> None:
        limit = self._options.hang_after_requests
        if limit is not None and number > limit:
            self._hung.append(asyncio.get_running_loop().create_future())
            await self._hung[-1]

    async def _wait_for_hold(self, number: int, start_ns: int) -> int:
        """Wait for the file of `hold`. Return the start of the reply."""
        hold = self._options.hold
        if hold is None or number <= hold["after_requests"]:
            return start_ns
        while self._running and not Path(hold["until"]).exists():
            await asyncio.sleep(_LOOK_EVERY_S)
        return max(start_ns, _now_ns())

    def _prompt_tokens(self, request: Request) -> int:
        """Count the tokens of the conversation: token ids, the model's tokens, or a quarter of the characters."""
        prompt = request.transcript
        if isinstance(prompt, tuple):
            return len(prompt)
        return -(-len(prompt) // CHARACTERS_PER_TOKEN) if self._tokenizer is None else self._tokenizer.count(prompt)

    def _pieces(self, request: Request, tokens: int) -> list[tuple[float, int]]:
        """Return the chunks: time since the first token in ns, and number of tokens."""
        each = self._options.tokens_per_chunk
        gap_ns = self._options.tpot_ms * _NS_PER_MS
        chunks = [(start * gap_ns, min(each, tokens - start)) for start in range(0, tokens, each)]
        return chunks if request.stream or not chunks else [(chunks[-1][0], tokens)]

    def _scaled(self, work_ns: float, number: int, factor: float, prompt_tokens: int) -> int:
        ttft_ns = self._options.ttft_ms * _NS_PER_MS
        if self._options.prefill_tokens_per_s is not None:
            ttft_ns += prompt_tokens / self._options.prefill_tokens_per_s * _NS_PER_S
        if number == 1:
            ttft_ns += self._options.first_request_extra_ms * _NS_PER_MS
        return round((ttft_ns + work_ns) * factor)

    def _deadline(self, start_ns: int, work_ns: int) -> int:
        """Return the end of work that begins at start_ns. Work that would end during a stall waits."""
        if self._options.stall is None:
            return start_ns + work_ns
        stall_ns = self._first_arrival_ns + round(float(self._options.stall["at_s"]) * _NS_PER_S)
        resume_ns = stall_ns + round(float(self._options.stall["for_s"]) * _NS_PER_S)
        begin_ns = resume_ns if stall_ns <= start_ns < resume_ns else start_ns
        crosses = begin_ns < stall_ns <= begin_ns + work_ns
        return begin_ns + work_ns + (resume_ns - stall_ns if crosses else 0)

    async def _slot(self) -> int:
        """Wait for a slot. Return the start of its use in ns."""
        if self._options.max_batch is None or self._busy < self._options.max_batch:
            self._busy += 1
            return _now_ns()
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(turn.result())
            raise

    def _release(self, at_ns: int) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(at_ns)
                return
        self._busy -= 1

    async def _until(self, deadline_ns: int) -> None:
        loop = asyncio.get_running_loop()
        while deadline_ns > _now_ns():
            reached: asyncio.Future[None] = loop.create_future()
            timer = loop.call_at(deadline_ns / _NS_PER_S, _wake, reached)
            try:
                await reached
            finally:
                timer.cancel()
        if not self._running:
            raise EngineError("the simulated engine was stopped")


def _numbers(values: Iterable[object]) -> bool:
    return all(isinstance(one, (int, float)) for one in values)


def _wake(reached: asyncio.Future[None]) -> None:
    if not reached.done():
        reached.set_result(None)


def _now_ns() -> int:
    return round(asyncio.get_running_loop().time() * _NS_PER_S)
