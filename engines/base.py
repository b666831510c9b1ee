"""The seam between the harness and whatever generates tokens.

An engine starts, stops, and does exactly one of two things: it yields chunks itself (`InProcessEngine.generate`), or it
says where a server listens (`ServedEngine.endpoint`) and the harness' own client measures. Engines hold no clocks: they
yield, and the harness stamps. One engine object lives for one cell of the matrix and is used from one asyncio loop.

Request headers that a scenario gives.

How much memory an engine will need, told before it is started.

Teacher-forced log-probabilities: what an engine that can be asked about quality gives.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EngineError(Exception):
    """An engine cannot be made, started or used. The message is one sentence for the user: what, and what to do.

    EngineError
    |- LevelUnsupported   the engine has no such quantization level: the cell is skipped with the reason
    |- ModelError         the model cannot be found, read, converted or fetched
    |- StartFailed        the engine or its server did not come up (the port is taken, it exited, it never got ready)
    """


class LevelUnsupported(EngineError):
    """The engine lacks the level that was asked for."""


class ModelError(EngineError):
    """The model cannot be had."""


class StartFailed(EngineError):
    """The engine did not come up."""


NO_USAGE_REPORTS = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1"}
"""What every process that an engine launches has in its environment: measuring is nobody else's business."""


def device_environment(devices: tuple[str, ...]) -> dict[str, str]:
    """The variables that show an engine's process only the devices it may use."""
    if not devices:
        return {}
    return {"CUDA_VISIBLE_DEVICES": "" if devices == ("cpu",) else ",".join(devices)}


class ChunkKind(StrEnum):
    """What one piece of a reply carries. Only CONTENT, REASONING and TOOL bear tokens; without text only where the
    server says how many. UNREADABLE: something that says nothing to us, passed over where the reply goes on behind it.
    """

    ROLE = "role"
    EMPTY = "empty"
    REASONING = "reasoning"
    CONTENT = "content"
    TOOL = "tool"
    USAGE = "usage"
    FINISH = "finish"
    ERROR = "error"
    COMMENT = "comment"
    UNREADABLE = "unreadable"

    __hash__ = str.__hash__  # that of Enum is written in Python; a kind is looked up for every token


TOKEN_BEARING = frozenset({ChunkKind.REASONING, ChunkKind.CONTENT, ChunkKind.TOOL})


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the engine states them; None where it is silent."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a reply.

    kind: what it carries.   text: its payload ("" where it has none; the sentence of an ERROR and an UNREADABLE; of a
    USAGE what in it cannot be a count).
    tokens: how many tokens it bears, None when the engine does not say.
    finish_reason: set on the piece that says why generation ended ("stop", "length", ...).
    usage: set on the piece that carries the counts.   cached: the whole reply came from a result cache.
    backend: which engine answered, where a platform in front of several says so.
    reported: the server's own figures about the request, under `metrics.py`'s names without "reported_", such as
    {"total_ms": 812.0, "memory_peak_bytes": 5e8}.
    """

    kind: ChunkKind
    text: str = ""
    tokens: int | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cached: bool | None = None
    backend: str | None = None
    reported: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said in an earlier turn of a conversation: the user's prompt, and the reply that really came."""

    prompt: str
    reply: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate.

    prompt: text, or token ids.   max_tokens: the most tokens to generate.
    exact: generate exactly that many (do not stop at the end-of-sequence token), where the engine can.
    sampling: temperature, top_p, top_k, seed, stop, under these names. What is absent is 0 (greedy) or off in the
    engines that we start, whatever their own defaults are, and left to a server that we only talk to.
    stream: ask for the reply piece by piece.   history: the earlier turns of the conversation, oldest first.
    priority: sooner or later than other requests, as the engine reads it; None: it is not told.
    """

    prompt: str | tuple[int, ...]
    max_tokens: int
    exact: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = True
    history: tuple[Turn, ...] = ()
    priority: int | None = None

    @property
    def transcript(self) -> str | tuple[int, ...]:
        """The prompt with the conversation before it, for engines that take one text: each reply right behind its
        prompt, as the engine generated it, so that a prefix cache knows it again, and an empty line before the next
        prompt. Without a history the prompt itself.

        Raises ValueError where text would have to be joined to token ids.
        """
        if not self.history:
            return self.prompt
        if not isinstance(self.prompt, str):
            raise ValueError("a conversation cannot go on with token ids: write its prompts as text")
        return "".join([f"{turn.prompt}{turn.reply}\n\n" for turn in self.history]) + self.prompt


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model as the scenario names it: hub id, folder, GGUF file or built-in name.

    lora: an adapter to put over it: a folder in PEFT's layout, a hub id, or a GGUF file.
    """

    name: str
    revision: str | None = None
    lora: str | None = None


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything that is needed to make one engine.

    options: the engine's own options, defaults not filled in. For `http` also dialect, url, command, ready, stop,
    served_model. python: the interpreter of the environment that the engine is installed in; None: our own.
    devices: the accelerators it may use, as the driver counts them ("0", "1"), or ("cpu",); (): its own choice.
    log_path: where the engine's process writes its output (None: inherit).
    """

    engine: str
    model: ModelReference | None = None
    level: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    python: str | None = None
    devices: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_key: str | None = field(default=None, repr=False)
    log_path: Path | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What really runs, as loaded; None where it cannot be known.

    level: the quantization level of the weights in use.   weight_bytes: size of the weights file(s).
    pids: processes that belong to the engine, beside the one that called start().
    options: the options in force, defaults filled in (no secrets).
    device: where the weights are, such as "cpu" or "cuda:0".   parameters: how many weights the model has.
    kv_bytes_per_token: what one token of context takes in the KV cache, as configured.
    memory: bytes by what they are for ("weights", "kv_cache", "runtime"), as the engine itself says, where it does.
    metrics_urls: pages for Prometheus on which it may tell of itself while it works; whether one is there is found out.
    slots: how many requests it generates at a time; further ones wait in it.
    imatrix: whether the weights were quantized with an importance matrix; None: not known, or not quantized so far.
    unused_instructions: sets of instructions of the processor that its build does not use.
    """

    name: str
    version: str | None = None
    model: str | None = None
    model_hash: str | None = None
    level: str | None = None
    weight_bytes: int | None = None
    context_tokens: int | None = None
    pids: Sequence[int] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    parameters: int | None = None
    kv_bytes_per_token: float | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    metrics_urls: tuple[str, ...] = ()
    slots: int | None = None
    imatrix: bool | None = None
    unused_instructions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to talk to a served engine.

    url: base of the API, such as "http://127.0.0.1:8080" (the dialect adds the path).
    dialect: a name in `engines.dialects`.   model: the name to put in requests.
    headers: extra request headers; may hold secrets, never stored.   others: further servers of the same model, over
    which requests are spread.   tls: files, under `ca`, `cert`, `key`.   proxy: an address, or "none"; absent: as the
    environment says.   request: what is put into the body of each request, beside what the dialect sets.
    unsaid: what is put there where the request does not say it.   exact: what asks for an exact length, in place of the
    dialect's own words; {}: those.
    """

    url: str
    dialect: str
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    others: Sequence[str] = ()
    tls: Mapping[str, str] = field(default_factory=dict)
    proxy: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    exact: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """What every engine has.

    It may also have: `devices(level)`, a class method, where a level can run ("cpu", "cuda"); `memory_needed()` of
    `engines.base`; `import_library()`, what the first start in a process imports; `score()` of `engines.base`;
    `async tokenize(text)`, the ids the loaded model's tokenizer gives; `async beginning()`, those it puts in front.
    Modules of adapters import without the library they adapt; what the library is stands in `engines.LIBRARIES`.
    """

    def __init__(self, spec: EngineSpec) -> None: ...

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """The quantization levels it can load; () where it has no say (a server that runs elsewhere)."""
        ...

    def prepare(self) -> Sequence[Path]:
        """Build or fetch what start() needs, and name the weight files that start() will read.

        Blocking, may take minutes, idempotent; called before the load time is measured. Raises EngineError.
        """
        ...

    async def start(self) -> EngineInfo:
        """Load the model; returns when the first request can be taken. Raises EngineError."""
        ...

    async def stop(self) -> None:
        """Release all memory and end every process that start() made. Idempotent; also called after a failed start."""
        ...


@runtime_checkable
class InProcessEngine(Engine, Protocol):
    """An engine that generates in the trial's own process."""

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield the reply as it is produced. Closing the iterator cancels the request in the engine."""
        ...


@runtime_checkable
class ServedEngine(Engine, Protocol):
    """An engine behind a socket."""

    def endpoint(self) -> Endpoint:
        """Where it listens, once started."""
        ...

    def alive(self) -> str | None:
        """Why its process ended, in one sentence; None while it runs or where that cannot be known."""
        ...


@runtime_checkable
class CachesPrompts(Protocol):
    """An engine that can be told to drop what it has cached of earlier prompts."""

    async def reset_cache(self) -> bool | None:
        """Drop it, with nothing in flight; whether it did, None where this server has no way."""
        ...


async def collect(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    """All chunks of a reply; for tests and notebooks."""
    return [chunk async for chunk in chunks]


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIGNS = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset({"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"})


def check_header(name: str, value: str = "") -> None:
    """Raises ValueError, one sentence without the value, for a header that cannot be sent or is not the user's."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header; write letters, digits and `-`")
    if name.lower() in _OURS:
        raise ValueError(f"the header {name} is set by the harness; leave it out")
    if not _SIGNS.fullmatch(value):
        raise ValueError(f"the value of the header {name} holds a line break or a sign that no header can carry")


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What an engine will need at its peak.

    device: where: "cpu" is the host's memory, "cuda" that of its GPUs together.
    parts: bytes by what they are for ("weights", "kv_cache", "runtime"); the need is their sum.
    """

    device: Literal["cpu", "cuda"]
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


@runtime_checkable
class EstimatingEngine(Protocol):
    """An engine that can say what it will need."""

    def memory_needed(self) -> MemoryEstimate | None:
        """An estimate from below, after prepare() and before start(); None where nothing is known.

        From below: a cell is skipped because of it, which must not happen to one that would have fitted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Scores:
    """The model's distributions over one sequence of tokens, each given all true tokens before it.

    first: the first scored position; row i is about the token at position first + i.
    logprobs: natural logarithms, [rows, vocabulary], column v about token v; or, where the engine gives only the
        likeliest, [rows, k] in falling order (NaN where it gave fewer).
    tokens: [rows, k], the tokens that the columns are about; None where `logprobs` is the whole vocabulary.
    true_logprobs: [rows], of the tokens that really stand there; NaN where the engine does not tell.
    """

    first: int
    logprobs: NDArray[np.float32]
    tokens: NDArray[np.int32] | None
    true_logprobs: NDArray[np.float32]


@runtime_checkable
class ScoringEngine(Protocol):
    """An engine, in process or served, that can say how likely it finds a text."""

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """The distributions of tokens[first:], first >= 1; nothing is sampled. For a started engine.

        Raises EngineError if the sequence is longer than the context, or if the engine does not tell.
        """
        ...


PROBE = "a"


def put_before(served: Sequence[int], plain: Sequence[int]) -> list[int]:
    """The ids in front of a text's own. served: with what the engine adds to a text that it is sent.

    Raises EngineError where the text's own are not among them.
    """
    for start in range(len(served) - len(plain) + 1):
        if list(served[start : start + len(plain)]) == list(plain):
            return list(served[:start])
    raise EngineError(f"{PROBE!r} becomes other tokens where special ones are added: {list(served)}, not {list(plain)}")


async def beginning_of(tokenize: Callable[..., Awaitable[list[int]]]) -> list[int]:
    """Return the ids that an engine puts in front of a text that it is sent, by its own tokenizer; [] for none."""
    return put_before(await tokenize(PROBE, special=True), await tokenize(PROBE, special=False))


def check_first(first: int, count: int) -> None:
    """Raises EngineError unless `first` is a position that has tokens before it, and is one of `count`."""
    if not 1 <= first < count:
        raise EngineError(f"scores start at a position from 1 to {count - 1}, not {first}")
