"""What the keys of a run's manifest mean: text for docs/run-format.md. A key is a path; `[]` is each of a list, `*` any
name.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.store.format_columns import Column

_MONOTONIC = "ns, monotonic clock"
_OPEN = "an open end: see `planned`"

RUN = {
    "format": Column("Version of this format."),
    "harness_version": Column("Version of harness that made the run."),
    "name": Column("The scenario's name."),
    "description": Column("The scenario's description, where it has one."),
    "created_utc": Column("When the run began."),
    "status": Column("`running`, `complete`, `interrupted` or `failed`."),
    "labels.*": Column("Labels of the scenario and of `--label`."),
    "command": Column("The command that repeats the run; secrets are `***`."),
    "scenario.*": Column("The scenario with every default filled in ([scenario-reference.md](scenario-reference.md))."),
    "notes[]": Column("What a reader should know, in sentences."),
    "quality_text": Column("SHA-256 of the text that was scored.", null="none was"),
    "only_quality": Column("Whether the run was made by `harness quality`, without load."),
    "references[].*": Column(
        "Of each reference of quality: its cell, the level as loaded, the ids in front of each chunk, its noise floor."
    ),
    "provenance.must_match.*": Column("The machine: runs from unlike ones are not compared by accident."),
    "provenance.under_test.*": Column("Versions of the libraries that may generate tokens."),
    "provenance.context.*": Column("System, Python, load average, and the GPUs' state at the beginning and the end."),
    "provenance.calibration.*": Column(
        "What `harness doctor` found of this client, if it was asked.", null="it was not"
    ),
}
SESSION = {
    "sessions[].number": Column("From 1; a run that was resumed has several."),
    "sessions[].created_utc": Column("When it began."),
    "sessions[].command": Column("Its command."),
    "sessions[].provenance.*": Column("As of the run, at its beginning."),
    "sessions[].cells[]": Column("Ids of the cells that ran in it, in their order."),
}
CELL = {
    "id": Column("Unique in the run; begins with its number."),
    "index": Column("Number, in the order of the scenario."),
    "model": Column("Name of the model.", null="the engine has none to choose"),
    "engine": Column("Name of the engine."),
    "level": Column("Quantization level asked for.", null="the engine's default"),
    "variant": Column("Name of the variant.", null="no variants"),
    "repetition": Column("From 1."),
    "attempt": Column("Which attempt counts, from 1; several where a run was resumed."),
    "path": Column("Its folder in the run."),
    "status": Column("`pending`, `complete`, `failed`, `interrupted` or `skipped`."),
    "reason": Column("Why it is not complete.", null="it is, or it is pending"),
    "devices[]": Column("The devices that its engine was given.", null="the scenario names none"),
    "unread[]": Column("What could not be read of this machine, in sentences."),
    "sampler.*": Column("The readings themselves: interval, ticks, late ones, what they cost."),
    "page_reader.*": Column("The readings of servers' metrics pages.", null="there were none"),
    "quality.*": Column(
        "How it was scored, against which reference and its level, at how many positions the true token is unknown, "
        "where `quality.parquet` is."
    ),
    "engine_info.name": Column("What runs, in its own word."),
    "engine_info.version": Column("Its version.", null="it does not say"),
    "engine_info.model": Column("The model as loaded.", null="it does not say"),
    "engine_info.model_hash": Column("SHA-256 of the weights, shortened.", null="not files of this machine"),
    "engine_info.level": Column("The level as loaded.", null="it does not say"),
    "engine_info.weight_bytes": Column("Size of the weights.", "bytes", "it does not say"),
    "engine_info.context_tokens": Column("Size of the context.", "tokens", "it does not say"),
    "engine_info.pids[]": Column("Processes that count as the engine's."),
    "engine_info.in_process": Column("Whether it runs inside the process that sends the load."),
    "engine_info.options.*": Column("The options in force, defaults filled in."),
    "engine_info.libraries.*": Column("Versions of what it loaded."),
    "engine_info.device": Column("Where the weights are.", null="it does not say"),
    "engine_info.parameters": Column("How many weights the model has.", null="it does not say"),
    "engine_info.kv_bytes_per_token": Column("KV cache per token of context.", "bytes", "it does not say"),
    "engine_info.slots": Column("Requests that it generates at a time.", null="it does not say"),
    "engine_info.imatrix": Column(
        "Whether weights were quantized with an importance matrix.", null="8 bits and more, or not known"
    ),
    "engine_info.unused_instructions[]": Column("What the processor can do and its build does not use."),
    "engine_info.memory.*": Column("Its own word of what its memory is for.", "bytes"),
    "engine_info.metrics_urls[]": Column("Pages for Prometheus on which it may tell of itself."),
    "start.began_ns": Column("When the first start began.", "ns, monotonic clock"),
    "start.ready_ns": Column("When that one took a request.", "ns, monotonic clock"),
    "start.load_s": Column("From asking for the engine until it takes a request.", "s", "it ran already"),
    "start.import_s": Column(
        "Of which the engine's library was being imported.", "s", "it runs in a process of its own, which imports it"
    ),
    "start.load_cold": Column("Whether they had been dropped from the file cache: at least 95 % of them."),
    "start.load_dropped_share": Column(
        "The share of its files that the file cache had forgotten.", null="there are none, or the system does not tell"
    ),
    "start.load_warm_s": Column("The same a second time.", "s", "no second start was made"),
    "start.load_note": Column("Why not, or what to know of it.", null="nothing"),
    "start.first_request_ms": Column("End-to-end time of the first request.", "ms", "it failed"),
    "start.temperature_refused": Column(
        "The server's words where it refuses temperature 0 and is asked without.", null="it does not"
    ),
    "start.warm_up": Column("Requests that were sent after the start and not measured."),
    "start.rss_after_load_bytes": Column("Resident memory then.", "bytes", "not a process of this machine"),
}
TRIAL = {
    "id": Column("Unique in its cell."),
    "index": Column("Number of the load in the scenario."),
    "load": Column("Name of the load."),
    "kind": Column("Kind of the load."),
    "bursts[].*": Column("Bursts and spikes by plan.", null="there are none"),
    "ramp": Column("Whether its rate changes by plan, so that drift is no fault."),
    "identity": Column("SHA-256 of all that decides what is measured: what `--resume` goes by."),
    "files.*": Column("SHA-256 of the files that the plan reads."),
    "attempt": Column("Which attempt counts."),
    "attempts[].*": Column("Earlier attempts: number, session, folder, status, reason, beginning."),
    "session": Column("In which session it ran."),
    "status": Column("`pending`, `running`, `complete`, `failed`, `interrupted` or `skipped`."),
    "reason": Column("Why it is not complete.", null="it is, or it is pending"),
    "path": Column("Its folder in the run."),
    "seed": Column("From which its plan was drawn."),
    "timeout_s": Column("How long after its due time a request could take.", "s"),
    "slo.*": Column("What makes a request good: `ttft_ms`, `tpot_ms`, `e2e_ms`, `stall_ms`.", "ms", "no such limit"),
    "class_slo.*": Column("The same for classes of traffic that have their own.", "ms", "no such limit"),
    "limits[]": Column("Its limits, as written."),
    "loop": Column("`open`, `closed` or `partly_open`.", null="it has not begun"),
    "plan_hash": Column("SHA-256 of the plan.", null="it has not begun"),
    "window.start_ns": Column("Where measuring begins.", "ns from T0"),
    "window.end_ns": Column("Where it ends.", "ns from T0", _OPEN),
    "planned.total": Column("Rows of the plan.", null="it has no end"),
    "planned.warmup": Column("Those in the warm-up.", null="replies decide"),
    "planned.measure": Column("Those to be measured.", null="replies decide"),
    "prompt_length_source.*": Column("How prompts got their length, by class: `tokenizer`, `estimated` or `file`."),
    "prompt_files.*": Column("Of classes whose prompts come from a file: its `lines`, the `offset` of the first used."),
    "shares_prompts": Column("Whether requests begin alike by plan, or may (prompts from a file)."),
    "prompts_asked.*": Column(
        "Of those classes: `requests` sent, and how many asked `again` what this start of the engine had been asked."
    ),
    "cache_reset": Column("Whether the engine dropped its cache of prompts before.", null="it has no way to"),
    "salt": Column("What made its prompts others than those of other runs.", null="the server did not run before"),
    "pinned_outputs[]": Column("Classes whose replies shall be exactly as long as planned."),
    "sampling.*": Column("What was sent of how tokens are drawn, by class: `temperature` and the others."),
    "users": Column("Users of a closed loop.", null="another loop"),
    "slots": Column("Requests that its engine generates at a time.", null="it does not say"),
    "driver": Column("Who sent the load: `inprocess` or `locust`."),
    "workers": Column("How many processes sent it."),
    "pages[].*": Column("Metrics pages read meanwhile: what each is, and what it told."),
    "others_on_gpus": Column("The most other processes on the GPUs at once.", null="not read"),
    "t0_ns": Column("T0, to which the times of records are offsets.", _MONOTONIC, "it has not begun"),
    "begun_ns": Column("When it began, before T0.", _MONOTONIC, "it has not begun"),
    "ended_ns": Column("When it was over.", _MONOTONIC, "it did not begin"),
    "t0_utc": Column("T0 as a time of day.", null="it has not begun"),
    "start.*": Column("Of the start that it ran on, as of the cell."),
}
CLIENT = {
    "t0_ns": Column("T0.", _MONOTONIC),
    "planned": Column("Rows of the plan.", null="it has no end"),
    "measured_until_ns": Column(
        "In a closed loop limited by requests: when the first one fell due that was not measured.",
        "ns from T0",
        "another limit",
    ),
    "recorded": Column("Rows of `records.parquet`."),
    "not_sent": Column("Those of them whose request was never sent."),
    "cooldown": Column("Those of them that only kept the load up until the last measured one had ended."),
    "interrupted": Column("Whether it was stopped before its end."),
    "clock": Column("`kernel` where the kernel stamped every arrival, else `loop`."),
    "resends": Column("Requests sent again: their connection had been closed before they were read."),
    "unreadable_events": Column("Events of replies that could not be read and were passed over."),
    "impossible_counts": Column("Token counts in replies that cannot be true; they are unknown."),
    "send_lag_p50_ms": Column("How late this client sent.", "ms", "nothing was sent"),
    "send_lag_p99_ms": Column("The same.", "ms", "nothing was sent"),
    "send_lag_max_ms": Column("The same.", "ms", "nothing was sent"),
    "heartbeat_p99_ms": Column("Lateness of a 10 ms tick of the event loop.", "ms", "no tick"),
    "cpu_share": Column("Processor time of the process per second of the trial.", "cores", "not known"),
    "cpu_peak_share": Column("The same of the loop's thread in its busiest second.", "cores", "not known"),
    "merged_read_share": Column("Chunks that shared a read with others.", "share", "no chunks"),
    "chunk_lag_p99_ms": Column("How long arrivals waited to be read.", "ms", "stamped by the event loop"),
    "equal_gap_share": Column("Gaps that are the same in three replies or more.", "share", "too few"),
    "connections_opened": Column("Connections opened, before T0 and after."),
    "connections_in_window": Column("After T0.", null="not counted"),
    "connect_errors": Column("Connections that could not be opened."),
    "canary_events": Column("Events of the stream of known times."),
    "canary_p50_ms": Column("Recorded arrival - the moment of sending that the event holds.", "ms", "no such stream"),
    "canary_p95_ms": Column("The same.", "ms", "no such stream"),
    "canary_p99_ms": Column("The same.", "ms", "no such stream"),
    "canary_max_ms": Column("The same.", "ms", "no such stream"),
    "throttled_periods": Column("Periods in which the control group was held back.", null="not told"),
    "throttled_ms": Column("For how long.", "ms", "not told"),
    "steal_share": Column("Processor time that the hypervisor took.", "share", "not told"),
    "open_files_share": Column("The most open files, of the limit.", "share", "not told"),
    "ports_share": Column("The most sockets, of the ephemeral ports.", "share", "not told"),
    "notes[]": Column("What a reader should know, in sentences."),
    "workers[].*": Column("The same of each load process; `lost` says why one is gone."),
}
GROUPS = (
    ("The run", "", RUN),
    ("Each session: a stretch of the run, from when it was begun or resumed", "", SESSION),
    ("Each cell: `cells[]`", "cells[].", CELL),
    ("Each trial of a cell: `cells[].trials[]`", "cells[].trials[].", TRIAL),
    ("What the client says of itself: `cells[].trials[].client`", "cells[].trials[].client.", CLIENT),
)
EVERY = {f"{prefix}{key}": column for _, prefix, group in GROUPS for key, column in group.items()}


def undocumented(document: object, texts: Mapping[str, Column] = EVERY, path: str = "") -> set[str]:
    """Keys of a manifest, or of a document with other texts, that no text describes."""
    if any(f"{path}{ending}" in texts for ending in ("", ".*", "[]", "[].*")):
        return set()
    if isinstance(document, dict):
        below = (undocumented(value, texts, f"{path}.{key}" if path else str(key)) for key, value in document.items())
        return set().union(*below)
    if isinstance(document, list):
        return set().union(*(undocumented(value, texts, f"{path}[]") for value in document))
    has_below = any(key.startswith((f"{path}.", f"{path}[]")) for key in texts)
    return {path} if document is not None or not has_below else set()
