"""The manifest: what a run is of, who sent what, and how it ended. Each key with its meaning.

A key that is absent stays absent when a manifest is written again, and a key that this version does not know stays as
it is. What a run of an older format lacks has its default here: unknown. `docs/run-format.md` is made of the texts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from harness.telemetry.prometheus.tally import Tally

Number = int | float
"""A number that stays whole where it was stored as a whole one."""

Free = dict[str, object]
"""Names and values that depend on what was run; JSON-able."""

_MONOTONIC = "ns, monotonic clock"


def key(meaning: str, unit: str = "", null: str = "", *, default: Any = None) -> Any:
    """Describe a key. The arguments are those of `Column`; default: what its absence is read as."""
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit, "null": null})


class Part(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), defer_build=True)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was stored of it."""
        return not self.model_fields_set

    def unknown(self) -> set[str]:
        """Return the names of what is absent or null."""
        return {
            name for name in type(self).model_fields if name not in self.model_fields_set or getattr(self, name) is None
        }

    def stored(self) -> dict[str, Any]:
        """Return what the file holds of it."""
        return self.model_dump(exclude_unset=True, warnings=False)

    def take(self, other: Self, names: Collection[str] | None = None) -> None:
        """Take over what another part of this kind holds; only these names, if they are given."""
        for name in other.model_fields_set if names is None else other.model_fields_set & set(names):
            setattr(self, name, getattr(other, name))


class CalibrationEntry(Part):
    """What `harness doctor` found of this client."""

    created_utc: str = ""
    streams: Number = 0
    events_per_s: Number = 0.0
    requests_per_s: Number = 0.0
    ttft_error_p99_ms: Number | None = None
    itl_error_p99_ms: Number | None = None
    send_lag_p99_ms: Number | None = None
    notes: list[str] = []
    quick: bool = False
    shared: bool = True
    busy_share: Number = 0.0


class UnderTest(Part):
    """What a change may be about."""

    libraries: dict[str, str] = {}


class Machine(Part):
    """What two runs must have in common."""

    cpu: str | None = None
    cores: int | None = None
    usable_cores: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    architecture: str | None = None
    gpus: list[str | Free] = []


class Provenance(Part):
    """On what a session was run."""

    must_match: Machine = key("The machine: runs from unlike ones are not compared by accident.", default=Machine())
    under_test: UnderTest = key("Versions of the libraries that may generate tokens.", default=UnderTest())
    context: Free = key("System, Python, load average, and the GPUs' state at the beginning and the end.", default={})
    calibration: CalibrationEntry | None = key(
        "What `harness doctor` found of this client, if it was asked.", null="it was not"
    )


class Session(Part):
    """A stretch of the run, from when it was begun or resumed."""

    number: int = key("From 1; a run that was resumed has several.", default=1)
    created_utc: str | None = key("When it began.")
    command: str | None = key("Its command.")
    provenance: Provenance = key("As of the run, at its beginning.", default=Provenance())
    cells: list[str] = key("Ids of the cells that ran in it, in their order.", default=[])


class EngineEntry(Part):
    """What an engine said of itself."""

    name: str = key("What runs, in its own word.", default="")
    version: str | None = key("Its version.", null="it does not say")
    model: str | None = key("The model as loaded.", null="it does not say")
    model_hash: str | None = key("SHA-256 of the weights, shortened.", null="not files of this machine")
    level: str | None = key("The level as loaded.", null="it does not say")
    weight_bytes: Number | None = key("Size of the weights.", "bytes", "it does not say")
    context_tokens: Number | None = key("Size of the context.", "tokens", "it does not say")
    pids: list[int] = key("Processes that count as the engine's.", default=[])
    options: Free = key("The options in force, defaults filled in.", default={})
    libraries: Free = key("Versions of what it loaded.", default={})
    device: str | None = key("Where the weights are.", null="it does not say")
    parameters: Number | None = key("How many weights the model has.", null="it does not say")
    kv_bytes_per_token: Number | None = key("KV cache per token of context.", "bytes", "it does not say")
    memory: dict[str, Number] = key("Its own word of what its memory is for.", "bytes", default={})
    metrics_urls: list[str] = key("Pages for Prometheus on which it may tell of itself.", default=[])
    slots: int | None = key("Requests that it generates at a time.", null="it does not say")
    imatrix: bool | None = key(
        "Whether weights were quantized with an importance matrix.", null="8 bits and more, or not known"
    )
    unused_instructions: list[str] = key("What the processor can do and its build does not use.", default=[])
    in_process: bool = key("Whether it runs inside the process that sends the load.", default=False)


class StartEntry(Part):
    """How an engine started."""

    began_ns: int | None = key("When the first start began.", _MONOTONIC)
    load_cold: bool = key("Whether the weight files had left the file cache: 95 % of them at least.", default=True)
    load_dropped_share: Number | None = key(
        "The share of its files that the file cache had forgotten.", null="there are none, or the system does not tell"
    )
    load_warm_s: Number | None = key("Loading a second time, with a warm file cache.", "s", "no second start was made")
    load_note: str | None = key("Why there was no second start, or what to know of it.", null="nothing")
    import_s: Number | None = key(
        "The part of loading in which the engine's library was imported.",
        "s",
        "it runs in a process of its own, which imports it",
    )
    ready_ns: int | None = key("When the first start took a request.", _MONOTONIC)
    load_s: Number | None = key("From asking for the engine until it takes a request.", "s", "it ran already")
    first_request_ms: Number | None = key("End-to-end time of the first request.", "ms", "it failed")
    temperature_refused: str | None = key(
        "The server's words where it refuses temperature 0 and is asked without.", null="it does not"
    )
    warm_up: int = key("Requests that were sent after the start and not measured.", default=0)
    rss_after_load_bytes: Number | None = key(
        "Resident memory after loading.", "bytes", "not a process of this machine"
    )


class NamedReference(Part):
    """Which cell is the reference of quality, by its names."""

    model: str | None = None
    engine: str | None = None
    level: str | None = None
    variant: str | None = None

    def is_of(self, cell: CellEntry) -> bool:
        """Return whether a cell has these names."""
        mine, its = (
            (self.model, self.engine, self.level, self.variant),
            (cell.model, cell.engine, cell.level, cell.variant),
        )
        return mine == its


class NoiseFloor(Part):
    """How far a reference is from itself."""

    kl_mean: Number | None = None
    top1_agreement: Number | None = None
    positions: int = 0
    differs: str = ""


class ReferenceEntry(Part):
    """A reference of quality.

    Attributes:
        tokens: Who made tokens of the text.
        beginning: The ids in front of each chunk.
        level: As which it was loaded.
        quantized: Whether that is fewer than 16 bits; None: not known.
        first: The first position of a chunk that counts.
        columns: How many tokens each position tells of.
        k: Of how many of the likeliest tokens each position tells; None: of the whole vocabulary.
        bound: What is said where not all of the text was scored.
        reason: Why there are no scores.
    """

    text: str | None = None
    tokens: str | None = None
    beginning: list[int] | None = None
    name: NamedReference = NamedReference()
    level: str | None = None
    quantized: bool | None = None
    first: int = 0
    columns: int = 0
    k: int | None = None
    chunks: int = 0
    positions: int = 0
    bound: str | None = None
    noise_floor: NoiseFloor | None = None
    seconds: Number | None = None
    reason: str | None = None


class GreedyEntry(Part):
    """Where greedy replies leave the reference's."""

    prompts: int = 0
    tokens: int = 0
    differences: list[Free] = []
    same_share: Number | None = None
    median_at: Number | None = None
    median_gap: Number | None = None


class RepliesEntry(Part):
    """Means over a few greedy replies; `reason` says why there are none."""

    replies: int = 0
    words: Number | None = None
    distinct_1: Number | None = None
    distinct_2: Number | None = None
    flesch: Number | None = None
    overlap: Number | None = None
    reason: str | None = None


class QualityEntry(Part):
    """How a cell was scored.

    Attributes:
        status: `pending`, `complete`, `failed` or `skipped`.
        k, tokens, beginning: As of a reference.
        true_unknown: At how many positions the true token is unknown.
        path: Where the table of positions is.
    """

    reference: NamedReference | None = None
    status: str | None = None
    reason: str | None = None
    positions: int = 0
    chunks: int = 0
    k: int | None = None
    true_unknown: int = 0
    tokens: str | None = None
    text: str | None = None
    reference_level: str | None = None
    beginning: list[int] | None = None
    noise_floor: NoiseFloor | None = None
    indistinguishable: bool | None = None
    greedy: GreedyEntry | None = None
    responses: RepliesEntry | None = None
    path: str | None = None
    seconds: Number | None = None


class SamplerEntry(Part):
    """What the readings themselves took."""

    scope: str = "server"
    interval_s: Number | None = None
    ticks: int | None = None
    late_ticks: int | None = None
    cpu_share: Number | None = None
    ms_per_tick: Number | None = None


class PageReaderEntry(Part):
    """What reading the pages of servers took."""

    cpu_share: Number | None = None


class BurstSpans(Part):
    """When the bursts of a load are by plan: the first one's start after T0, the length of each, from one to the next.

    every_s is None for a single spike.
    """

    first_s: Number = 0.0
    length_s: Number = 0.0
    every_s: Number | None = None


class PlannedWindow(Part):
    """Where measuring begins and ends by plan."""

    start_ns: int = key("Where measuring begins.", "ns from T0", default=0)
    end_ns: int | None = key("Where it ends.", "ns from T0", "an open end: see `planned`")


class PlannedCounts(Part):
    """How many requests the plan has."""

    total: int | None = key("Rows of the plan.", null="it has no end")
    warmup: int | None = key("Those in the warm-up.", null="replies decide")
    measure: int | None = key("Those to be measured.", null="replies decide")


class PromptsAsked(Part):
    """How many prompts of a file were sent, and how many of them this start of the engine had been asked before."""

    requests: int = 0
    again: int = 0


class Attempt(Part):
    """An earlier attempt at a trial."""

    attempt: int = 1
    session: int = 1
    path: str = ""
    status: str = ""
    reason: str | None = None
    t0_utc: str | None = None


class ClientCounts(Part):
    """What a process that sends load says of itself."""

    t0_ns: int | None = key("T0.", _MONOTONIC)
    planned: int | None = key("Rows of the plan.", null="it has no end")
    measured_until_ns: int | None = key(
        "In a closed loop limited by requests: when the first one fell due that was not measured.",
        "ns from T0",
        "another limit",
    )
    recorded: int = key("Rows of `records.parquet`.", default=0)
    not_sent: int = key("Those of them whose request was never sent.", default=0)
    cooldown: int = key("Those of them that only kept the load up until the last measured one had ended.", default=0)
    interrupted: bool = key("Whether it was stopped before its end.", default=False)
    clock: str | None = key("`kernel` where the kernel stamped every arrival, else `loop`.")
    send_lag_p50_ms: Number | None = key("How late this client sent.", "ms", "nothing was sent")
    send_lag_p99_ms: Number | None = key("The same.", "ms", "nothing was sent")
    send_lag_max_ms: Number | None = key("The same.", "ms", "nothing was sent")
    heartbeat_p99_ms: Number | None = key("Lateness of a 10 ms tick of the event loop.", "ms", "no tick")
    cpu_share: Number | None = key("Processor time of the process per second of the trial.", "cores", "not known")
    merged_read_share: Number | None = key("Chunks that shared a read with others.", "share", "no chunks")
    chunk_lag_p99_ms: Number | None = key("How long arrivals waited to be read.", "ms", "stamped by the event loop")
    connections_opened: int | None = key("Connections opened, before T0 and after.")
    resends: int = key("Requests sent again: their connection had been closed before they were read.", default=0)
    unreadable_events: int = key("Events of replies that could not be read and were passed over.", default=0)
    impossible_counts: int = key("Token counts in replies that cannot be true; they are unknown.", default=0)
    connect_errors: int | None = key("Connections that could not be opened.")
    connections_in_window: int | None = key("Connections opened after T0.", null="not counted")
    cpu_peak_share: Number | None = key(
        "Processor time of the loop's thread in its busiest second.", "cores", "not known"
    )
    equal_gap_share: Number | None = key("Gaps that are the same in three replies or more.", "share", "too few")
    canary_events: int | None = key("Events of the stream of known times.")
    canary_p50_ms: Number | None = key(
        "Recorded arrival - the moment of sending that the event holds.", "ms", "no such stream"
    )
    canary_p95_ms: Number | None = key("The same.", "ms", "no such stream")
    canary_p99_ms: Number | None = key("The same.", "ms", "no such stream")
    canary_max_ms: Number | None = key("The same.", "ms", "no such stream")
    throttled_periods: int | None = key("Periods in which the control group was held back.", null="not told")
    throttled_ms: Number | None = key("For how long.", "ms", "not told")
    steal_share: Number | None = key("Processor time that the hypervisor took.", "share", "not told")
    open_files_share: Number | None = key("The most open files, of the limit.", "share", "not told")
    ports_share: Number | None = key("The most sockets, of the ephemeral ports.", "share", "not told")
    notes: list[str] = key("What a reader should know, in sentences.", default=[])


class WorkerEntry(ClientCounts):
    """One of several load processes; `lost` says why it is gone."""

    lost: str | None = None


class ClientEntry(ClientCounts):
    """What the client says of itself; of several processes the worst or the sum."""

    workers: list[WorkerEntry] = key("The same of each load process; `lost` says why one is gone.", default=[])


class TrialEntry(Part):
    """A trial: one load on one cell."""

    id: str = key("Unique in its cell.", default="")
    index: int = key("Number of the load in the scenario.", default=0)
    load: str = key("Name of the load.", default="")
    kind: str = key("Kind of the load.", default="")
    bursts: BurstSpans | None = key("Bursts and spikes by plan.", null="there are none")
    ramp: bool = key("Whether its rate changes by plan, so that drift is no fault.", default=False)
    identity: str | None = key("SHA-256 of all that decides what is measured: what `--resume` goes by.")
    files: dict[str, str | None] = key("SHA-256 of the files that the plan reads.", default={})
    attempt: int = key("Which attempt counts.", default=1)
    attempts: list[Attempt] = key("Earlier attempts: number, session, folder, status, reason, beginning.", default=[])
    status: str = key("`pending`, `running`, `complete`, `failed`, `interrupted` or `skipped`.", default="pending")
    reason: str | None = key("Why it is not complete.", null="it is, or it is pending")
    path: str = key("Its folder in the run.", default="")
    seed: int | None = key("From which its plan was drawn.")
    timeout_s: Number | None = key("How long after its due time a request could take.", "s")
    slo: dict[str, Number | None] = key(
        "What makes a request good: `ttft_ms`, `tpot_ms`, `e2e_ms`, `stall_ms`.", "ms", "no such limit", default={}
    )
    class_slo: dict[str, dict[str, Number | None]] = key(
        "The same for classes of traffic that have their own.", "ms", "no such limit", default={}
    )
    limits: list[str] = key("Its limits, as written.", default=[])
    loop: str | None = key("`open`, `closed` or `partly_open`.", null="it has not begun")
    plan_hash: str | None = key("SHA-256 of the plan.", null="it has not begun")
    window: PlannedWindow | None = None
    planned: PlannedCounts | None = None
    t0_ns: int | None = key("T0, to which the times of records are offsets.", _MONOTONIC, "it has not begun")
    t0_utc: str | None = key("T0 as a time of day.", null="it has not begun")
    client: ClientEntry | None = None
    pages: list[Tally] | None = key("Metrics pages read meanwhile: what each is, and what it told.")
    begun_ns: int | None = key("When it began, before T0.", _MONOTONIC, "it has not begun")
    prompt_length_source: dict[str, str] = key(
        "How prompts got their length, by class: `tokenizer`, `estimated` or `file`.", default={}
    )
    prompt_files: dict[str, dict[str, int]] = key(
        "Of classes whose prompts come from a file: its `lines`, the `offset` of the first used.", default={}
    )
    shares_prompts: bool | None = key("Whether requests begin alike by plan, or may (prompts from a file).")
    pinned_outputs: list[str] = key("Classes whose replies shall be exactly as long as planned.", default=[])
    sampling: dict[str, Free] = key(
        "What was sent of how tokens are drawn, by class: `temperature` and the others.", default={}
    )
    users: int | None = key("Users of a closed loop.", null="another loop")
    driver: str | None = key("Who sent the load: `inprocess` or `locust`.")
    workers: int = key("How many processes sent it.", default=1)
    salt: int | None = key(
        "What made its prompts others than those of other runs.", null="the server did not run before"
    )
    cache_reset: bool | None = key("Whether the engine dropped its cache of prompts before.", null="it has no way to")
    session: int | None = key("In which session it ran.")
    slots: int | None = key("Requests that its engine generates at a time.", null="it does not say")
    start: StartEntry | None = key("Of the start that it ran on, as of the cell.")
    ended_ns: int | None = key("When it was over.", _MONOTONIC, "it did not begin")
    prompts_asked: dict[str, PromptsAsked] = key(
        "Of classes whose prompts come from a file: `requests` sent, and how many asked `again` what this start of the "
        "engine had been asked.",
        default={},
    )
    others_on_gpus: int | None = key("The most other processes on the GPUs at once.", null="not read")


class CellEntry(Part):
    """A cell: what is started once."""

    id: str = key("Unique in the run; begins with its number.", default="")
    index: int = key("Number, in the order of the scenario.", default=0)
    model: str | None = key("Name of the model.", null="the engine has none to choose")
    engine: str = key("Name of the engine.", default="")
    level: str | None = key("Quantization level asked for.", null="the engine's default")
    variant: str | None = key("Name of the variant.", null="no variants")
    repetition: int = key("From 1.", default=1)
    path: str = key("Its folder in the run.", default="")
    status: str = key("`pending`, `complete`, `failed`, `interrupted` or `skipped`.", default="pending")
    reason: str | None = key("Why it is not complete.", null="it is, or it is pending")
    engine_info: EngineEntry = EngineEntry()
    start: StartEntry = StartEntry()
    trials: list[TrialEntry] = []
    devices: list[str] = key("The devices that its engine was given.", null="the scenario names none", default=[])
    attempt: int = key("Which attempt counts, from 1; several where a run was resumed.", default=1)
    quality: QualityEntry | None = key(
        "How it was scored, against which reference and its level, at how many positions the true token is unknown, "
        "where `quality.parquet` is."
    )
    unread: list[str] = key("What could not be read of this machine, in sentences.", default=[])
    sampler: SamplerEntry | None = key("The readings themselves: interval, ticks, late ones, what they cost.")
    page_reader: PageReaderEntry | None = key("The readings of servers' metrics pages.", null="there were none")

    @property
    def keys(self) -> tuple[str, str, str, str]:
        """Model, engine, level and variant; "" where there is none."""
        return self.model or "", self.engine, self.level or "", self.variant or ""

    def trial_at(self, index: int) -> TrialEntry:
        """Return the trial of a load, by its number in the scenario."""
        return next(trial for trial in self.trials if trial.index == index)

    def start_of(self, trial: TrialEntry) -> StartEntry:
        """Return the start that a trial of it ran on."""
        return self.start if trial.start is None or trial.start.is_empty else trial.start


class Asked(Part):
    """What of the scenario is read by name."""

    seed: int | None = None
    decide: str | None = None
    limits: list[str] = []
    quality: Free | None = None


class Manifest(Part):
    """The manifest of a run."""

    format: int = key("Version of this format.", default=0)
    harness_version: str | None = key("Version of harness that made the run.")
    name: str = key("The scenario's name.", default="")
    description: str | None = key("The scenario's description, where it has one.")
    created_utc: str | None = key("When the run began.")
    status: str = key("`running`, `complete`, `interrupted` or `failed`.", default="")
    labels: Free = key("Labels of the scenario and of `--label`.", default={})
    command: str | None = key("The command that repeats the run; secrets are `***`.")
    scenario: Free = key(
        "The scenario with every default filled in ([scenario-reference.md](scenario-reference.md)).", default={}
    )
    provenance: Provenance = Provenance()
    sessions: list[Session] = []
    notes: list[str] = key("What a reader should know, in sentences.", default=[])
    quality_text: str | None = key("SHA-256 of the text that was scored.", null="none was")
    only_quality: bool = key("Whether the run was made by `harness quality`, without load.", default=False)
    cells: list[CellEntry] = []
    quality: dict[str, ReferenceEntry] = key(
        "Of each reference of quality: its cell, the level as loaded, the ids in front of each chunk, its noise floor.",
        default={},
    )

    @property
    def asked(self) -> Asked:
        """What the scenario asked for."""
        return Asked.model_validate(self.scenario)

    def trials(self) -> Iterator[tuple[CellEntry, TrialEntry]]:
        """Yield everything planned, in the order of the scenario."""
        for cell in self.cells:
            for trial in cell.trials:
                yield cell, trial

    def text(self) -> bytes:
        """Return the file's content. Raises ValueError for a number that JSON does not have."""
        return json.dumps(self.stored(), indent=1, allow_nan=False).encode() + b"\n"
