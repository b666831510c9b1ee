"""Manifest of a run: its keys and their meanings, from which `docs/run-format.md` is generated.

A manifest that is written again keeps absent keys absent, and unknown keys as they are. The default of a key stands for
its absence in a run of an older format.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from harness.telemetry.prometheus.tally import Tally
from harness.units import parse_share

Number = int | float  # an integer stays one
Free = dict[str, object]  # JSON-able names and values that depend on the engine or the scenario
METHOD = 2
"""How numbers follow from records. A change of a definition raises it.

1  ttft, ttfo and e2e count from due, in closed loops and for later turns too; runs that lack the key
2  there they count from sent
"""
_MONOTONIC = "ns, monotonic clock"
_UNKNOWN = "not reported"
_UNSENT = "nothing was sent"
_LAG = "Sent - due, less `held_ns` and `accepting_ns`, of all requests"


def key(meaning: str, unit: str = "", null: str = "", *, default: Any = None) -> Any:
    """Describe a key. The arguments are those of `Column`, and the value that stands for its absence."""
    return Field(default=default, description=meaning, json_schema_extra={"unit": unit, "null": null})


class Part(BaseModel):
    """Part of the manifest."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), defer_build=True)

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was stored of it."""
        return not self.model_fields_set

    def unknown(self) -> set[str]:
        """Return the names of absent keys and of those that are null."""
        names = type(self).model_fields
        return {name for name in names if name not in self.model_fields_set or getattr(self, name) is None}

    def stored(self) -> dict[str, Any]:
        """Return its content as in the file."""
        return self.model_dump(exclude_unset=True, warnings=False)

    def take(self, other: Self, names: Collection[str] | None = None) -> None:
        """Copy the stored keys of another part of this kind; only `names`, if given."""
        for name in other.model_fields_set if names is None else other.model_fields_set & set(names):
            setattr(self, name, getattr(other, name))


class CalibrationEntry(Part):
    """Result of `harness doctor` for this load generator."""

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
    """Facts that two compared runs may differ in."""

    libraries: dict[str, str] = {}


class Machine(Part):
    """Facts that two compared runs must share."""

    cpu: str | None = None
    cores: int | None = None
    usable_cores: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    architecture: str | None = None
    gpus: list[str | Free] = []


class Provenance(Part):
    """Machine and software of a session."""

    must_match: Machine = key("Machine. Runs from others are not compared by accident.", default=Machine())
    under_test: UnderTest = key("Versions of the libraries that may generate tokens.", default=UnderTest())
    context: Free = key("System, Python, load average; state of the GPUs at the beginning and the end.", default={})
    calibration: CalibrationEntry | None = key("Result of `harness doctor` for this client.", null="it did not run")


class Session(Part):
    """Part of the run, from its start or from when it was resumed."""

    number: int = key("From 1; a resumed run has several.", default=1)
    created_utc: str | None = key("When it began.")
    command: str | None = key("Its command.")
    provenance: Provenance = key("As of the run, at the start of the session.", default=Provenance())
    cells: list[str] = key("Ids of the cells that ran in it, in order.", default=[])


class EngineEntry(Part):
    """Facts that an engine reports of itself."""

    name: str = key("Name of the software.", default="")
    version: str | None = key("Its version.", null=_UNKNOWN)
    model: str | None = key("The model as loaded.", null=_UNKNOWN)
    model_hash: str | None = key("SHA-256 of the weights, shortened.", null="not files of this machine")
    level: str | None = key("The level as loaded.", null=_UNKNOWN)
    weight_bytes: Number | None = key("Size of the weights.", "bytes", _UNKNOWN)
    context_tokens: Number | None = key("Size of the context.", "tokens", _UNKNOWN)
    pids: list[int] = key("Processes that count as the engine's.", default=[])
    options: Free = key("The options in force, defaults filled in.", default={})
    libraries: Free = key("Versions of the libraries that it loaded.", default={})
    device: str | None = key("Device of the weights.", null=_UNKNOWN)
    parameters: Number | None = key("Number of weights of the model.", null=_UNKNOWN)
    kv_bytes_per_token: Number | None = key("KV cache per token of context.", "bytes", _UNKNOWN)
    memory: dict[str, Number] = key("Its own account of its memory, by purpose.", "bytes", default={})
    metrics_urls: list[str] = key("Its metrics pages for Prometheus.", default=[])
    slots: int | None = key("Requests that it generates at the same time.", null=_UNKNOWN)
    imatrix: bool | None = key("Whether an importance matrix was used to quantize.", null="8 bits or more, or unknown")
    unused_instructions: list[str] = key("Instructions of the processor that its build does not use.", default=[])
    notes: list[str] = key("What the reader should know about its start, in sentences.", default=[])
    in_process: bool = key("Whether it runs inside the load generator's process.", default=False)


class StartEntry(Part):
    """Start of an engine, with its times."""

    began_ns: int | None = key("When the first start began.", _MONOTONIC)
    load_cold: bool = key("Whether at least 95 % of the weight files had left the page cache.", default=True)
    load_dropped_share: Number | None = key(
        "Share of its files that had left the page cache.", null="no files, unknown"
    )
    load_warm_s: Number | None = key("Second start, with a warm page cache.", "s", "no second start was made")
    load_note: str | None = key("Remark on the second start, or why there was none.", null="no remark")
    import_s: Number | None = key("Part of the start: import of the engine's library.", "s", "not in this process")
    ready_ns: int | None = key("When the first start took a request.", _MONOTONIC)
    load_s: Number | None = key("From launching the engine until it is ready.", "s", "it ran already")
    first_request_ms: Number | None = key("End-to-end time of the first request.", "ms", "it failed")
    temperature_refused: str | None = key(
        "Message of a server that refuses temperature 0; requests omit it then.", null="not refused"
    )
    warm_up: int = key("Requests sent after the start and not measured.", default=0)
    rss_after_load_bytes: Number | None = key("Resident memory after the start.", "bytes", "no process of this machine")


class NamedReference(Part):
    """Names of the cell that is the reference of quality."""

    model: str | None = None
    engine: str | None = None
    level: str | None = None
    variant: str | None = None

    def is_of(self, cell: CellEntry) -> bool:
        """Return whether a cell has these names."""
        return all(getattr(self, name) == getattr(cell, name) for name in type(self).model_fields)


class NoiseFloor(Part):
    """Distance of a reference from itself."""

    kl_mean: Number | None = None
    top1_agreement: Number | None = None
    positions: int = 0
    differs: str = ""


class ReferenceEntry(Part):
    """A reference of quality."""

    text: str | None = None
    tokens: str | None = None  # name of the tokenizer
    beginning: list[int] | None = None  # ids in front of each chunk
    name: NamedReference = NamedReference()
    level: str | None = None  # as loaded
    quantized: bool | None = None  # fewer than 16 bits; None if unknown
    first: int = 0  # first position of a chunk that is scored
    columns: int = 0  # tokens with a log-probability at each position
    k: int | None = None  # number of likeliest tokens known at each position; None for the whole vocabulary
    chunks: int = 0
    positions: int = 0
    bound: str | None = None  # sentence for a text that was scored in part
    noise_floor: NoiseFloor | None = None
    seconds: Number | None = None
    reason: str | None = None  # why there are no scores


class GreedyEntry(Part):
    """First differences between greedy replies and those of the reference."""

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
    """Scoring of a cell; k, tokens and beginning are as of a reference."""

    reference: NamedReference | None = None
    status: str | None = None  # pending, complete, failed or skipped
    reason: str | None = None
    positions: int = 0
    chunks: int = 0
    k: int | None = None
    true_unknown: int = 0  # positions at which the true token is unknown
    tokens: str | None = None
    text: str | None = None
    reference_level: str | None = None
    beginning: list[int] | None = None
    noise_floor: NoiseFloor | None = None
    indistinguishable: bool | None = None
    greedy: GreedyEntry | None = None
    responses: RepliesEntry | None = None
    path: str | None = None  # of the table of positions
    seconds: Number | None = None


class SamplerEntry(Part):
    """Cost of the readings of this machine."""

    scope: str = "server"
    interval_s: Number | None = None
    ticks: int | None = None
    late_ticks: int | None = None
    cpu_share: Number | None = None
    ms_per_tick: Number | None = None


class PageReaderEntry(Part):
    """Cost of reading the metrics pages of servers."""

    cpu_share: Number | None = None


class BurstSpans(Part):
    """Planned bursts of a load."""

    first_s: Number = 0.0  # start of the first one after T0
    length_s: Number = 0.0
    every_s: Number | None = None  # from one start to the next; None for a single spike


class PlannedWindow(Part):
    """Planned measurement window."""

    start_ns: int = key("Planned start of the measurement window.", "ns from T0", default=0)
    end_ns: int | None = key("Its planned end.", "ns from T0", "an open end: see `planned`")


class PlannedCounts(Part):
    """Numbers of requests in the plan."""

    total: int | None = key("Rows of the plan.", null="it has no end")
    warmup: int | None = key("Rows in the warm-up.", null="replies decide")
    measure: int | None = key("Rows to be measured.", null="replies decide")


class SentPrompts(Part):
    """Prompts of a file that were sent; `again`: those that this start of the engine had received before."""

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
    """Report of a process that sends load, about itself."""

    t0_ns: int | None = key("T0.", _MONOTONIC)
    planned: int | None = key("Rows of the plan.", null="it has no end")
    measured_until_ns: int | None = key(
        "In a closed loop limited by requests: first due time not measured.", "ns from T0", "another limit"
    )
    recorded: int = key("Rows of `records.parquet`.", default=0)
    not_sent: int = key("Rows whose request was never sent.", default=0)
    cooldown: int = key("Rows of the cooldown, which keeps the load up until all measured requests end.", default=0)
    interrupted: bool = key("Whether it was stopped before its end.", default=False)
    clock: str | None = key("`kernel` if the kernel stamped every arrival, else `loop`.")
    send_lag_p50_ms: Number | None = key(f"{_LAG}: p50.", "ms", _UNSENT)
    send_lag_p99_ms: Number | None = key(f"{_LAG}: p99.", "ms", _UNSENT)
    send_lag_max_ms: Number | None = key(f"{_LAG}: max.", "ms", _UNSENT)
    heartbeat_p99_ms: Number | None = key("Lateness of a 10 ms tick of the event loop: p99.", "ms", "no tick")
    cpu_share: Number | None = key("Processor time of the process per second of the trial.", "cores", "unknown")
    merged_read_share: Number | None = key("Chunks that shared a read with others.", "share", "no chunks")
    chunk_lag_p99_ms: Number | None = key("Time that arrivals waited to be read: p99.", "ms", "clock is `loop`")
    connections_opened: int | None = key("Connections opened, before T0 and after.")
    resends: int = key("Requests sent again because their connection had closed before they were read.", default=0)
    retried: dict[str, int] = key("Failed attempts that were followed by a retry, by their cause.", default={})
    unreadable_events: int = key("Events of replies that could not be read and were skipped.", default=0)
    impossible_counts: int = key("Token counts in replies that cannot be true; read as unknown.", default=0)
    connect_errors: int | None = key("Connections that could not be opened.")
    connections_in_window: int | None = key("Connections opened after T0.", null="not counted")
    cpu_peak_share: Number | None = key(
        "Processor time of its loop's thread in the busiest second.", "cores", "unknown"
    )
    equal_gap_share: Number | None = key("Gaps equal in three replies or more, by older versions.", "share", _UNKNOWN)
    canary_events: int | None = key("Events of the canary.")
    canary_p50_ms: Number | None = key("Recorded arrival - sent, of the canary: p50.", "ms", "no canary")
    canary_p95_ms: Number | None = key("Recorded arrival - sent, of the canary: p95.", "ms", "no canary")
    canary_p99_ms: Number | None = key("Recorded arrival - sent, of the canary: p99.", "ms", "no canary")
    canary_max_ms: Number | None = key("Recorded arrival - sent, of the canary: max.", "ms", "no canary")
    throttled_periods: int | None = key("Periods in which the control group was throttled.", null="unknown")
    throttled_ms: Number | None = key("Time for which it was throttled.", "ms", "unknown")
    steal_share: Number | None = key("Processor time taken by the hypervisor.", "share", "unknown")
    open_files_share: Number | None = key("Most open files / their limit.", "share", "unknown")
    ports_share: Number | None = key("Most sockets / ephemeral ports.", "share", "unknown")
    notes: list[str] = key("Remarks for the reader, in sentences.", default=[])


class WorkerEntry(ClientCounts):
    """Report of one of several load processes; `lost`: why it ended early."""

    lost: str | None = None


class ClientEntry(ClientCounts):
    """Report of the load generator; of several processes the maximum or the sum."""

    workers: list[WorkerEntry] = key("Report of each load process; `lost`: why it ended early.", default=[])


class SearchVisit(Part):
    """Visit of a search: a stretch at one rate."""

    state: str = key("`ramp`, `search`, `pause` or `confirm` (the measurement).", default="")
    rate: Number = key("Its rate; 0 in a pause.", "requests/s", default=0.0)
    start_ns: int = key("When it began.", "ns from T0", default=0)
    end_ns: int = key("When it ended.", "ns from T0", default=0)
    counted_from_ns: int = key("Requests due before it had met the rate before.", "ns from T0", default=0)
    overloaded: bool = key("Whether it was ended because the backlog grew, or requests were refused.", default=False)


class SearchEntry(Part):
    """Search for the largest rate: its settings and what it sent. Reports derive the result from the records."""

    attainment: Number | None = key("Share of the requests that must meet the SLO.")
    gaps_variation: Number = key("Squared coefficient of variation of the gaps between arrivals.", default=1.0)
    width: Number | None = key("Half width of the 90 % interval at which it ends, as a share of the rate.")
    ended: str | None = key(
        "Why it ended: `width`, `budget`, `largest_rate`, `lowest_rate` or `errors`.", null="it was interrupted"
    )
    visits: list[SearchVisit] = []


class TrialEntry(Part):
    """Trial: one load on one cell."""

    id: str = key("Unique in its cell.", default="")
    index: int = key("Number of the load in the scenario.", default=0)
    load: str = key("Name of the load.", default="")
    kind: str = key("Kind of the load.", default="")
    bursts: BurstSpans | None = key("Planned bursts and spikes.", null="there are none")
    rate: Number | None = key("Constant rate that the load asks for.", "requests/s", "another loop, or it changes")
    max_concurrency: int | None = key("Most requests in flight beside a rate.", null="no cap")
    prompt_tokens: Number | None = key("Mean length of its prompts, if the load sets it.", "tokens", "the workload's")
    output_tokens: Number | None = key("Mean length of its replies, if the load sets it.", "tokens", "the workload's")
    workload: dict[str, Free] = key("Keys of the workload that its load replaces.", default={})
    ramp: bool = key("Whether its rate changes by plan, so that drift is expected.", default=False)
    identity: str | None = key("SHA-256 of all that decides what is measured; `--resume` compares it.")
    files: dict[str, str | None] = key("SHA-256 of the files that the plan reads.", default={})
    attempt: int = key("Number of the attempt that counts.", default=1)
    attempts: list[Attempt] = key("Earlier attempts: number, session, folder, status, reason, start.", default=[])
    status: str = key("`pending`, `running`, `complete`, `failed`, `interrupted` or `skipped`.", default="pending")
    reason: str | None = key("Why it is not complete.", null="it is, or it is pending")
    path: str = key("Its folder in the run.", default="")
    seed: int | None = key("Seed of its plan.")
    timeout_s: Number | None = key("Time-out of a request, from its due time.", "s")
    slo: dict[str, Number | None] = key(
        "SLO of a request: `ttft_ms`, `tpot_ms`, `e2e_ms`, `stall_ms`.", "ms", "none", default={}
    )
    class_slo: dict[str, dict[str, Number | None]] = key(
        "SLO of classes that have their own.", "ms", "none", default={}
    )
    limits: list[str] = key("Its limits, as written.", default=[])
    loop: str | None = key("`open`, `closed` or `partly_open`.", null="it has not begun")
    plan_hash: str | None = key("SHA-256 of the plan.", null="it has not begun")
    window: PlannedWindow | None = None
    planned: PlannedCounts | None = None
    t0_ns: int | None = key("T0, from which the times of records count.", _MONOTONIC, "it has not begun")
    t0_utc: str | None = key("T0 as a time of day.", null="it has not begun")
    client: ClientEntry | None = None
    pages: list[Tally] | None = key("Metrics pages read during the trial, and their content.")
    begun_ns: int | None = key("When it began, before T0.", _MONOTONIC, "it has not begun")
    prompt_length_source: dict[str, str] = key("Prompt lengths by class: `tokenizer`, `estimated`, `file`.", default={})
    prompt_files: dict[str, dict[str, int]] = key("By class: `lines` of its file, `offset` of the first.", default={})
    shares_prompts: bool | None = key("Whether requests begin alike by plan, or may (prompts from a file).")
    pinned_outputs: list[str] = key("Classes whose replies must have exactly the planned length.", default=[])
    sampling: dict[str, Free] = key("Sampling parameters sent, by class: `temperature` and others.", default={})
    users: int | None = key("Users of a closed loop.", null="another loop")
    driver: str | None = key("Driver that sent the load: `inprocess` or `locust`.")
    workers: int = key("Number of load processes.", default=1)
    salt: int | None = key("Salt that makes its prompts differ from other runs'.", null="its server was started for it")
    cache_reset: bool | None = key("Whether the engine dropped its prompt cache before.", null="it has no way to")
    session: int | None = key("Session in which it ran.")
    slots: int | None = key("Requests that its engine generates at the same time.", null=_UNKNOWN)
    start: StartEntry | None = key("Start of its engine, as of the cell.")
    ended_ns: int | None = key("When it ended.", _MONOTONIC, "it did not begin")
    prompts_asked: dict[str, SentPrompts] = key(
        "By class: prompts of its file that were sent (`requests`), and sent `again` to this start of the engine.",
        default={},
    )
    others_on_gpus: int | None = key("Most other processes on the GPUs at the same time.", null="not read")
    search: SearchEntry | None = key("Its search for the largest rate.", null="another kind of load")

    @property
    def own_lengths(self) -> dict[str, float]:
        """Mean lengths that the load sets itself: `prompt`, `output`."""
        given = {"prompt": self.prompt_tokens, "output": self.output_tokens}
        return {name: float(tokens) for name, tokens in given.items() if tokens is not None}

    @property
    def lengths_in_words(self) -> str:
        """The same as "prompt 512, output 64"; "" if they are the workload's."""
        return ", ".join(f"{name} {tokens:.0f}" for name, tokens in self.own_lengths.items())

    def workload_in(self, scenario: Mapping[str, Any]) -> dict[str, Any]:
        """Return the workload of a scenario, as resolved, with the keys that the load replaces."""
        return {**(scenario.get("workload") or {}), **self.workload}


class CellEntry(Part):
    """Cell: a configuration, started once."""

    id: str = key("Unique in the run; begins with its number.", default="")
    index: int = key("Number, in the order of the scenario.", default=0)
    model: str | None = key("Name of the model.", null="the engine has none to choose")
    engine: str = key("Name of the engine.", default="")
    level: str | None = key("Requested quantization level.", null="the engine's default")
    variant: str | None = key("Name of the variant.", null="no variants")
    repetition: int = key("From 1.", default=1)
    path: str = key("Its folder in the run.", default="")
    status: str = key("`pending`, `complete`, `failed`, `interrupted` or `skipped`.", default="pending")
    reason: str | None = key("Why it is not complete.", null="it is, or it is pending")
    engine_info: EngineEntry = EngineEntry()
    start: StartEntry = StartEntry()
    trials: list[TrialEntry] = []
    devices: list[str] = key("The devices that its engine was given.", null="the scenario names none", default=[])
    attempt: int = key("Number of the attempt that counts, from 1; several in a resumed run.", default=1)
    quality: QualityEntry | None = key(
        "Its scoring: reference, level, positions with unknown true token, path of `quality.parquet`."
    )
    unread: list[str] = key("Readings of this machine that failed, in sentences.", default=[])
    sampler: SamplerEntry | None = key("Readings of this machine: interval, ticks, late ticks, cost.")
    page_reader: PageReaderEntry | None = key("Cost of reading the servers' metrics pages.", null="there were none")

    @property
    def keys(self) -> tuple[str, str, str, str]:
        """Model, engine, level and variant; "" where there is none."""
        return self.model or "", self.engine, self.level or "", self.variant or ""

    def trial_at(self, index: int) -> TrialEntry:
        """Return the trial of a load by its number in the scenario."""
        return next(trial for trial in self.trials if trial.index == index)

    def start_of(self, trial: TrialEntry) -> StartEntry:
        """Return the start of the engine that a trial ran on."""
        return self.start if trial.start is None or trial.start.is_empty else trial.start


def share_from_text(value: object) -> object:
    """Return the share of a stored percentage, such as 0.05 of `5%`."""
    return parse_share(value) if isinstance(value, str) else value


class ScenarioKeys(Part):
    """Keys of the scenario that are read by name."""

    seed: int | None = None
    instance: str | None = None
    decide: str | None = None
    limits: list[str] = []
    limits_confidence: str | None = None
    quality: Free | None = None
    tolerance: Annotated[float | None, BeforeValidator(share_from_text)] = None
    columns: list[str] | None = None


class Price(Part):
    """What an hour of the machine under test costs, as the catalogue stated it when the run began."""

    instance: str = ""
    pricing: str = key("`on_demand`, `spot`, `reserved` or `owned`.", default="")
    usd_per_hour: float = 0.0
    date: str = key("Day of the prices.", default="")
    source: str = ""

    @property
    def text(self) -> str:
        """Price in words: `g5.xlarge at $1.006 an hour (on demand, as of 2026-11)`."""
        paid = self.pricing.replace("_", " ")
        return f"{self.instance} at ${self.usd_per_hour:.4g} an hour ({paid}, as of {self.date})"


class Manifest(Part):
    """Manifest of a run."""

    format: int = key("Version of this format.", default=0)
    method: int = key(
        "Method of the numbers in its summary. 1: all latencies count from due; 2: from sent in closed loops and for "
        "later turns. Reports derive all numbers from the records, by their own method.",
        default=1,
    )
    harness_version: str | None = key("Version of harness that made the run.")
    name: str = key("The scenario's name.", default="")
    description: str | None = key("The scenario's description, if it has one.")
    created_utc: str | None = key("When the run began.")
    status: str = key("`running`, `complete`, `interrupted` or `failed`.", default="")
    labels: Free = key("Labels of the scenario and of `--label`.", default={})
    command: str | None = key("The command that repeats the run; secrets are `***`.")
    scenario: Free = key("The scenario with all defaults ([scenario-reference.md](scenario-reference.md)).", default={})
    provenance: Provenance = Provenance()
    sessions: list[Session] = []
    notes: list[str] = key("Remarks for the reader, in sentences.", default=[])
    quality_text: str | None = key("SHA-256 of the text that was scored.", null="none was")
    price: Price | None = key("Price of the scenario's `instance`.", null="none is named, or the catalogue lacks it")
    only_quality: bool = key("Whether the run was made by `harness quality`, without load.", default=False)
    cells: list[CellEntry] = []
    quality: dict[str, ReferenceEntry] = key(
        "By reference: cell, level as loaded, ids that begin chunks, noise floor.", default={}
    )

    @property
    def needs_deriving(self) -> bool:
        """Return whether its stored summary is of another method. It compares with others once derived again."""
        return self.method != METHOD

    @property
    def scenario_keys(self) -> ScenarioKeys:
        """Keys of the scenario that are read by name."""
        return ScenarioKeys.model_validate(self.scenario)

    def trials(self) -> Iterator[tuple[CellEntry, TrialEntry]]:
        """Yield all planned trials, in the order of the scenario."""
        for cell in self.cells:
            for trial in cell.trials:
                yield cell, trial

    def text(self) -> bytes:
        """Return the file's content. Raises ValueError for a number that JSON does not have."""
        return json.dumps(self.stored(), indent=1, allow_nan=False).encode() + b"\n"
