"""What the columns of a run's tables mean: text for docs/run-format.md, under the names that the schemas have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """unit: "" where a text or a number of things needs none.   null: what it means that there is no value; "" where
    there always is one.
    """

    meaning: str
    unit: str = ""
    null: str = ""


_NS = "ns from T0"
_NEVER = "it did not happen"
_SILENT = "the server did not say"
_NO_CHUNKS = "not streamed, no token came, or chunks were not kept"

RECORDS = {
    "request": Column("Number of the request in the plan, from 0; the key of the table."),
    "class": Column("Class of traffic; `default` where the scenario has none."),
    "session": Column("Conversation it belongs to.", null="not part of a conversation"),
    "turn": Column("Turn in its conversation, from 0."),
    "user": Column("User who sent it.", null="open loop: there are no users"),
    "phase": Column("`warmup`, `measure` or `cooldown`, by its due time."),
    "loop": Column("`open`: due by the plan; `closed`: due when an earlier request had ended."),
    "after": Column("The request it waited for.", null="it waited for none"),
    "think_ns": Column("Pause by plan between the end of that request and its own due time.", "ns", "open loop"),
    "repeats": Column("The earlier request whose words it repeats by plan.", null="words of its own"),
    "planned_cancel_ns": Column("How long after it was sent the client gives it up by plan.", "ns", "it does not"),
    "due_ns": Column("When it had to be sent. Latencies count from here.", _NS, "its turn never came"),
    "dispatched_ns": Column("When the client took it up.", _NS, _NEVER),
    "connected_ns": Column("When a connection opened for it was ready.", _NS, "an open connection was used, or none"),
    "sent_ns": Column("When its last byte was handed to the system.", _NS, _NEVER),
    "accepting_ns": Column(
        "How long the other side took to accept the connection and to take the request.",
        "ns",
        "not sent over a network",
    ),
    "resends": Column("How often it was sent again: its connection had been closed before the request was read."),
    "headers_ns": Column("Arrival of the first byte of the response's head.", _NS, _NEVER),
    "first_byte_ns": Column("Arrival of the first byte of the body.", _NS, _NEVER),
    "first_token_ns": Column("Arrival of the first token-bearing chunk.", _NS, "not streamed, or no token came"),
    "first_answer_ns": Column("Arrival of the first chunk of the answer (content or tool call).", _NS, "none came"),
    "last_token_ns": Column("Arrival of the last token-bearing chunk.", _NS, "not streamed, or no token came"),
    "finish_ns": Column("Arrival of the event that said why generation ended.", _NS, "not streamed, or none said so"),
    "done_ns": Column("End of the request: of the response, of the failure, or of our patience.", _NS, "not sent"),
    "status": Column(
        "`ok`, `http_error`, `rejected` (429, 503), `stream_error`, `truncated`, `empty`, `timeout`, `cancelled` (by "
        "plan), `connection_error`, `unfinished` (cut off at the trial's end), `not_sent`."
    ),
    "http_status": Column("Status code of the response.", null="no response, or no HTTP"),
    "error": Column("What went wrong, as the server or the system said it.", null="nothing"),
    "finish_reason": Column("Why generation ended, in the server's word, such as `stop` or `length`.", null=_SILENT),
    "requested_prompt_tokens": Column("Length of the new prompt by plan.", "tokens", "a prompt from a file, uncounted"),
    "requested_output_tokens": Column("The most tokens asked for, or exactly so many.", "tokens"),
    "prompt_tokens": Column("Tokens of the whole prompt.", "tokens", _SILENT),
    "output_tokens": Column("Tokens of the reply, counted by `token_source`.", "tokens", "nobody could count them"),
    "reasoning_tokens": Column("Those of them that were reasoning.", "tokens", _SILENT),
    "cached_tokens": Column("Tokens of the prompt that the server took from a cache.", "tokens", _SILENT),
    "token_source": Column(
        "Who counted: `usage` (the server's total), `engine` (per chunk), `tokenizer` (ours, of the text), `chunks`.",
        null="nobody",
    ),
    "retokenized_tokens": Column(
        "Tokens of the reply's text by the model's tokenizer, counted after the load for a few replies.",
        "tokens",
        "not among those counted again",
    ),
    "cached": Column("Whether the whole reply came from a result cache.", null=_SILENT),
    "chunk_ns": Column("Arrival of each token-bearing chunk.", _NS, _NO_CHUNKS),
    "chunk_tokens": Column("Tokens of each of them; an element is null where not known.", "tokens", _NO_CHUNKS),
    "chunk_kind": Column("`content`, `reasoning` or `tool`, for each.", null=_NO_CHUNKS),
    "chunk_read": Column("Number of the read that brought each.", null=_NO_CHUNKS),
    "chunk_lag_ns": Column(
        "How long each waited in the kernel before it was read.", "ns", "stamped by the event loop, or as above"
    ),
    "chunk_merged": Column("Whether its stamp may be that of a later packet in the same read.", null=_NO_CHUNKS),
    "connection_reused": Column("Whether the connection had carried a request before.", null="none was used"),
    "clock": Column("Who stamped the arrivals: `kernel`, or the event `loop` after the read.", null="none arrived"),
    "worker": Column("Number of the load process that sent it, from 0."),
    "backend": Column("Which of several servers answered, in its own word or by address.", null=_SILENT),
    "reported_total_ms": Column("The server's own time for the request; not measured here.", "ms", _SILENT),
    "reported_memory_peak_bytes": Column("The server's own peak of memory; not measured here.", "bytes", _SILENT),
}
SAMPLES = {
    "at_ns": Column("Middle of the reading on the monotonic clock; T0 of a trial (`t0_ns`) is on the same.", "ns"),
    "source": Column("What was read: see the table below."),
    "name": Column("Which of its values, with its unit at the end: see the table below."),
    "value": Column("The reading."),
    "scope": Column("`server`: the machine under test; `client`: only the machine that sends the load."),
    "width_ns": Column(
        "How long the reading took: the moment lies within `at_ns` ± half of it.",
        "ns",
        "0 in runs of format 0, which did not store it",
    ),
}
QUALITY = {
    "chunk": Column("Number of the chunk of text, from 0."),
    "position": Column("Position in the chunk, from 0."),
    "token": Column("The true token there."),
    "top1_same": Column("Whether the likeliest token is the reference's."),
    "nll_reference": Column("-ln p of the true token by the reference.", "nats", "NaN: not known"),
    "nll": Column("-ln p of the true token by this cell.", "nats", "NaN: not known"),
    "kl": Column("KL(reference ‖ this cell).", "nats", "NaN: only the likeliest tokens are known"),
    "kl_lower_bound": Column("The least it can be, with all other tokens taken as one.", "nats", "NaN: `kl` is known"),
    "reference_top1": Column(
        "The reference's likeliest token; of equal ones the lowest id.", null="-1: it tells of none"
    ),
    "top1": Column("This cell's.", null="-1: it tells of none"),
    "gap": Column(
        "By how much this cell prefers its own likeliest token to the reference's.", "nats", "NaN: not known"
    ),
    "delta_p": Column("The true token's probability minus the reference's."),
}
_KEY = "The cell and the load; together with `class` and `repetition` what a row is of"
SUMMARY = {
    "model": Column(f"{_KEY}.", null="the engine has none to choose"),
    "engine": Column("As above."),
    "level": Column("As above: the quantization level asked for.", null="the engine's default"),
    "variant": Column("As above.", null="no variants"),
    "load": Column("As above; `quality` for figures of quality, which belong to the cell."),
    "class": Column("`all`, a class of traffic, or a split such as `cached`."),
    "repetition": Column("Its number, or `pooled` for all together."),
    "metric": Column("Name in [metrics.md](metrics.md)."),
    "statistic": Column("`p50`, `p90`, `p95`, `p99`, `max`, `mean`, `min`, others that a limit asks for; or `value`."),
    "value": Column("The value, in `unit`.", "`unit`", "only a bound is known: see `bound`"),
    "low": Column("Lower end of the 95 % interval, or the bound from below.", "`unit`", "no interval"),
    "high": Column("Upper end, or the bound from above; infinite where it is open.", "`unit`", "no interval"),
    "bound": Column("`point`: the value is known; `lower`, `upper`: only that end is."),
    "n": Column("Observations."),
    "n_eff": Column("How many independent ones they are worth.", null="equal to `n`, or not estimated"),
    "unit": Column("Unit of value, low and high."),
    "source": Column("Where the numbers come from: clock, token source, `start`, a sensor.", null="not one thing"),
    "window": Column("The stretch of the trial that was measured, in words."),
    "validity": Column("`valid`, `warn` or `invalid`: of the repetition, or the worst pooled.", null="not a trial's"),
}
DECISION = {
    "model": Column("The model: each has a table of its own."),
    "engine": Column("What a row is of."),
    "level": Column("As above: the quantization level asked for.", null="the engine's default"),
    "variant": Column("As above.", null="no variants"),
    "loaded_level": Column("The level that the engine says it loaded.", null="it does not say"),
    "device": Column("Where it ran.", null="it does not say"),
    "status": Column("`complete`, or what became of the repetition that came off worst."),
    "reason": Column("Why it is not complete.", null="it is"),
    "repetitions": Column("How many."),
    "limits": Column("The worst outcome of its limits.", null="there are none"),
    "front": Column("Whether no other row beats it.", null="it cannot be compared"),
    "beaten_by": Column("The rows that beat it, separated by `; `.", null="none does"),
    "chosen": Column("Whether the recommendation is this row."),
    "quality": Column("The word for its quality ([decision.md](decision.md)).", null="not measured"),
    "<value>": Column("A value of the row, such as `load_s`, `kl_mean`, `speed` or `speed_ratio`.", "as named"),
    "<value> low": Column("Lower end of its 95 % interval.", "as the value", "no interval"),
    "<value> high": Column("Upper end.", "as the value", "no interval"),
    "<value> bound": Column("`lower` or `upper` where only a bound is known.", null="the value itself is known"),
    "<load> validity": Column("Of the trials under that load."),
    "<load> <value>": Column("A value under a load, such as `sustained ttft_p95_ms`; `low`, `high`, `bound` as above."),
}
SAMPLE_NAMES = (
    (
        "`engine`, `client`",
        "`rss_bytes`, `cpu_share` (cores in use), `pss_bytes` (shared pages counted once), `threads`, `major_faults`, "
        "`minor_faults`, `read_bytes`, `written_bytes` (since the start)",
        "the engine's processes together; those that send the load (absent when the engine runs inside them)",
    ),
    (
        "`host`",
        "`memory_used_bytes`, `memory_used_share`, `cpu_share`, `cpu_mhz`, `swap_used_bytes`, `swap_in_bytes`, "
        "`swap_out_bytes`, `disk_read_bytes`, `disk_written_bytes` (since boot)",
        "the whole machine",
    ),
    (
        "`cgroup`",
        "`memory_used_bytes`, `memory_limit_bytes`, `throttled_periods`, `throttled_s` (since its beginning)",
        "the control group that we run in",
    ),
    (
        "`gpu0`, ...",
        "`memory_used_bytes`, `memory_total_bytes`, `memory_reserved_bytes`, `engine_memory_bytes`, "
        "`utilisation_share`, `memory_busy_share`, `sm_clock_mhz`, `memory_clock_mhz`, `power_w`, "
        "`power_averaged_s` (over what time the GPU averages it; 0: instant), `power_limit_w`, "
        "`energy_j` (a counter), `temperature_c`, `throttle_reasons` (the driver's bits), `throttled` (1: heat, power "
        "or hardware holds it back)",
        "a GPU, as far as its driver tells",
    ),
    (
        "`server0`, ...",
        "`running_requests`, `waiting_requests`, `kv_cache_share`, and counters: `prompt_tokens`, "
        "`generation_tokens`, `finished_requests`, `preemptions`, `prefix_queries_tokens`, `prefix_hits_tokens`, "
        "`cached_prompt_tokens`, `queue_time_s`, `queue_time_count`",
        "the metrics page of a server",
    ),
    ("`sampler`", "`cpu_share` (of one core), `late_ms`", "the reading itself: what it costs, how late it came"),
)
