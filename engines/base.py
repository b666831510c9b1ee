"""Interface between the harness and an engine.

An engine starts, stops, and either yields chunks itself (`InProcessEngine.generate`) or states where a server listens
(`ServedEngine.endpoint`). Engines have no clocks: they yield, and the harness stamps. An engine object serves one
configuration and is used from one asyncio loop.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EngineError(Exception):
    """An engine cannot be made, started or used. The message is for the user and states the problem and the fix."""


class LevelUnsupported(EngineError):
    """The engine lacks the requested quantization level: the cell is skipped with the reason."""


class UnknownOption(EngineError):
    """The engine has no option of this name.

    Attributes:
        known: Names of its options.
    """

    def __init__(self, message: str, name: str, known: tuple[str, ...]) -> None:
        super().__init__(message)
        self.name, self.known = name, known


class ModelError(EngineError):
    """The model cannot be found, read, converted or fetched."""


class StartFailed(EngineError):
    """The engine or its server did not start (port in use, process exited, never ready)."""


NO_USAGE_REPORTS = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1"}
"""Environment of every process that an engine launches: no usage reports to third parties."""


def device_environment(devices: tuple[str, ...]) -> dict[str, str]:
    """Return the variables that limit a process to these devices."""
    return {"CUDA_VISIBLE_DEVICES": "" if devices == ("cpu",) else ",".join(devices)} if devices else {}


class ChunkKind(StrEnum):
    """Content of a chunk.

    Only CONTENT, REASONING and TOOL bear tokens. Without text they do so only if the server states a number.
    UNREADABLE has no known meaning, and is ignored if the reply continues after it.
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

    __hash__ = str.__hash__  # Enum's is Python code, and a kind is looked up for every token


TOKEN_BEARING = frozenset({ChunkKind.REASONING, ChunkKind.CONTENT, ChunkKind.TOOL})


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts that the engine states; None where it states none."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a reply.

    Attributes:
        text: Payload. For ERROR and UNREADABLE a sentence, for USAGE the values that cannot be counts.
        tokens: Number of tokens, None if the engine does not state it.
        finish_reason: Reason for the end of generation ("stop", "length", ...), on the last part only.
        usage: Token counts of the reply, on one part only.
        cached: True if the reply came from a result cache.
        backend: Engine that answered, if a platform in front of several states it.
        reported: The server's own figures about the request, under the names of `metrics.py` without "reported_", such
            as {"total_ms": 812.0, "memory_peak_bytes": 5e8}.
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
    """Earlier turn of a conversation: the user's prompt and the actual reply."""

    prompt: str
    reply: str


@dataclass(frozen=True, slots=True)
class Message:
    """Message that a file states. `role` is "system", "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """Generation request.

    Attributes:
        prompt: Text or token ids.
        max_tokens: Maximum number of tokens to generate.
        exact: Generate exactly `max_tokens`, ignoring the end-of-sequence token, if the engine can.
        sampling: temperature, top_p, top_k, seed, stop. An absent setting is 0 (greedy) or off in the engines that we
            start, whatever their defaults are. An external server keeps its own default.
        stream: Request the reply part by part.
        before: Messages before the conversation, as a file states them: a system message, recorded turns.
        history: Earlier turns of the conversation, oldest first, after `before`.
        images: PNG images in base64, before the text of the user's first message.
        priority: Priority relative to other requests, as the engine defines it. None sends none.
        class_name: Class of traffic; "" for none.
    """

    prompt: str | tuple[int, ...]
    max_tokens: int
    exact: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = True
    before: tuple[Message, ...] = ()
    history: tuple[Turn, ...] = ()
    images: tuple[str, ...] = ()
    priority: int | None = None
    class_name: str = ""

    @property
    def transcript(self) -> str | tuple[int, ...]:
        """Conversation and prompt as one text, for engines that take one text.

        Each reply follows its prompt directly, as the engine generated it, so that a prefix cache matches. An empty
        line separates it from the next prompt, and the messages of `before` from what follows.

        Raises ValueError if there is a history and the prompt is token ids.
        """
        if not self.history and not self.before:
            return self.prompt
        if not isinstance(self.prompt, str):
            raise ValueError("a conversation cannot continue with token ids: write its prompts as text")
        parts = [f"{message.text}\n\n" for message in self.before]
        parts += [f"{turn.prompt}{turn.reply}\n\n" for turn in self.history]
        return "".join(parts) + self.prompt


@dataclass(frozen=True, slots=True)
class ModelReference:
    """Model as the scenario names it: hub id, folder, GGUF file or built-in name.

    Attributes:
        lora: Adapter to apply: a folder in PEFT's layout, a hub id, or a GGUF file.
    """

    name: str
    revision: str | None = None
    lora: str | None = None


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Specification of one engine.

    Attributes:
        options: The engine's own options, without defaults. For `http` also dialect, url, command, ready, stop and
            served_model.
        python: Interpreter of the environment that has the engine. None is our own.
        devices: Accelerators to use, as the driver numbers them ("0", "1"), or ("cpu",). () is the engine's choice.
        labels: Labels of the run, which a command may name.
        log_path: Output file of the engine's process. None inherits ours.
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
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Facts about the loaded engine; None where unknown.

    Attributes:
        level: Quantization level of the weights in use.
        weight_bytes: Size of the weight files.
        pids: Processes of the engine, without the one that called start().
        options: Options in force, with defaults, without secrets.
        device: Place of the weights, such as "cpu" or "cuda:0".
        parameters: Number of weights.
        kv_bytes_per_token: Size of one token of context in the KV cache, as configured.
        memory: Bytes by purpose ("weights", "kv_cache", "runtime"), as the engine reports them.
        metrics_urls: Possible Prometheus pages of the engine. They need not exist.
        slots: Requests generated at the same time. Further ones wait in the engine.
        imatrix: True if the weights were quantized with an importance matrix. None if unknown or not quantized.
        unused_instructions: Instruction sets of the processor that the build does not use.
        notes: What the reader should know about the start, in sentences.
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
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Speed:
    """Expected speed of an engine.

    Attributes:
        start_s: From launching it until it is ready.
        first_s: From a slot to the first token, without the prompt.
        prompt_token_s: Added for each token of the prompt.
        token_s: From token to token.
        slots: Requests side by side without slowing each other down; None: any number.
    """

    start_s: float
    first_s: float
    prompt_token_s: float
    token_s: float
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and wire format of a served engine.

    Attributes:
        url: Base of the API, such as "http://127.0.0.1:8080". The dialect adds the path.
        dialect: Name in `engines.dialects`.
        model: Name to put in requests.
        headers: Extra request headers. They may hold secrets and are never stored.
        others: Further servers of the same model. Requests are spread over all.
        tls: Files under `ca`, `cert`, `key`; `verify` False trusts any server.
        proxy: Address, or "none". None follows the environment.
        request: Extra fields for the body of each request; null leaves one of the dialect's own out.
        rename: Names of the body's fields, if the server's differ.
        unsaid: Fields for settings that the request leaves out.
        exact: Fields that request an exact length. {} uses those of the dialect.
        classes: Differences by class of traffic: its `model`, further `headers` and fields of `request`.
    """

    url: str
    dialect: str
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    others: Sequence[str] = ()
    tls: Mapping[str, Any] = field(default_factory=dict)
    proxy: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    unsaid: Mapping[str, Any] = field(default_factory=dict)
    exact: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of_class(self, name: str) -> Endpoint:
        """Return the endpoint for the requests of a class."""
        own = self.classes.get(name, {})
        headers, request = {**self.headers, **own.get("headers", {})}, {**self.request, **own.get("request", {})}
        return replace(self, model=own.get("model", self.model), headers=headers, request=request, classes={})


class Engine(Protocol):
    """Interface of every engine.

    Optional members:
        devices(level): Class method, places where a level can run ("cpu", "cuda").
        memory_needed(): See `EstimatingEngine`.
        import_library(): Import what the first start in a process imports.
        score(): See `ScoringEngine`.
        async tokenize(text): Return the ids of the loaded model's tokenizer, without special tokens.
        async beginning(): Return the ids that the tokenizer puts in front of a text, such as the beginning-of-sequence
            token; [] for none.

    The module of an adapter imports without the library it adapts; `engines.LIBRARIES` names that library.
    """

    def __init__(self, spec: EngineSpec) -> None: ...

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """Return the quantization levels that can be loaded; () if an external server decides."""

    def prepare(self) -> Sequence[Path]:
        """Build or fetch what start() needs, and return the weight files that start() will read.

        Blocking and idempotent; may take minutes. Called before the startup time is measured. Raises EngineError.
        """

    async def start(self) -> EngineInfo:
        """Load the model and return when the engine is ready for a request. Raises EngineError."""

    async def stop(self) -> None:
        """Release all memory and end every process that start() made. Idempotent; also called after a failed start."""


@runtime_checkable
class InProcessEngine(Engine, Protocol):
    """Engine that generates in the trial's own process."""

    def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield the reply as it is produced. Closing the iterator cancels the request in the engine."""


@runtime_checkable
class ServedEngine(Engine, Protocol):
    """Engine behind a socket."""

    def endpoint(self) -> Endpoint:
        """Return the address of the started server."""

    def alive(self) -> str | None:
        """Return why the process ended, in one sentence; None while it runs or if that is unknown."""


@runtime_checkable
class CachesPrompts(Protocol):
    """Engine whose cache of earlier prompts can be cleared."""

    async def reset_cache(self) -> bool | None:
        """Clear the cache while no request is in flight. Return True on success, None if the server cannot do so."""


async def collect(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    """Return all chunks of a reply; for tests and notebooks."""
    return [chunk async for chunk in chunks]


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIGNS = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset({"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"})


def check_header(name: str, value: str = "") -> None:
    """Raise ValueError for a header that cannot be sent or that the harness sets. The message omits the value."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid header name; use letters, digits and `-`")
    if name.lower() in _OURS:
        raise ValueError(f"the header {name} is set by the harness; leave it out")
    if not _SIGNS.fullmatch(value):
        raise ValueError(f"the value of the header {name} contains a line break or another invalid character")


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Peak memory of an engine.

    Attributes:
        device: "cpu" is host memory, "cuda" that of all its GPUs.
        parts: Bytes by purpose ("weights", "kv_cache", "runtime").
    """

    device: Literal["cpu", "cuda"]
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.parts.values())


@runtime_checkable
class EstimatingEngine(Protocol):
    """Engine that can estimate its memory."""

    def memory_needed(self) -> MemoryEstimate | None:
        """Return a lower bound, after prepare() and before start(); None if unknown.

        A cell is skipped because of the estimate. A lower bound never skips a cell that would have fitted.
        """


@runtime_checkable
class PredictableEngine(Protocol):
    """Engine that states its speed before it starts, for the estimate of a run's time."""

    def speed(self) -> Speed:
        """Return the expected speed."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Token distributions of a sequence, each conditioned on all true tokens before it (teacher forcing).

    Attributes:
        first: First scored position. Row i belongs to position first + i.
        logprobs: Natural logarithms, [rows, vocabulary], column v for token v. If the engine returns only the most
            likely tokens: [rows, k] in descending order (NaN where it returned fewer).
        tokens: [rows, k], token ids of the columns. None if `logprobs` is the whole vocabulary.
        true_logprobs: [rows], of the true tokens. NaN if the engine does not return it.
    """

    first: int
    logprobs: NDArray[np.float32]
    tokens: NDArray[np.int32] | None
    true_logprobs: NDArray[np.float32]


@runtime_checkable
class ScoringEngine(Protocol):
    """Engine that can return the log-probabilities of a text."""

    async def score(self, tokens: Sequence[int], first: int) -> Scores:
        """Return the distributions of tokens[first:], first >= 1, of a started engine. Nothing is sampled.

        Raises EngineError if the sequence exceeds the context, or the engine returns no log-probabilities.
        """


async def beginning_of(tokenize: Callable[..., Awaitable[list[int]]]) -> list[int]:
    """Return the ids that an engine's tokenizer puts in front of a text; [] for none.

    Raises EngineError if a text has other tokens beside special ones.
    """
    served, plain = await tokenize("a", special=True), await tokenize("a", special=False)
    for start in range(len(served) - len(plain) + 1):
        if served[start : start + len(plain)] == plain:
            return served[:start]
    raise EngineError(f"'a' becomes other tokens where special ones are added: {served}, not {plain}")


def check_first(first: int, count: int) -> None:
    """Raise EngineError unless 1 <= first < count."""
    if not 1 <= first < count:
        raise EngineError(f"scores start at a position from 1 to {count - 1}, not {first}")
