"""Meaning of the tables and keys made from a stored run: text for docs/run-format.md.

A key is a path; `[]` is each of a list, `*` any name.
"""

from __future__ import annotations

from harness.records import Column
from reports.data import KEYS

QUALITY = {
    "chunk": Column("Number of the chunk of text, from 0."),
    "position": Column("Position in the chunk, from 0."),
    "token": Column("The true token there."),
    "top1_same": Column("Whether the likeliest token is the reference's."),
    "nll_reference": Column("-ln p of the true token by the reference.", "nats", "NaN: not known"),
    "nll": Column("-ln p of the true token by this cell.", "nats", "NaN: not known"),
    "kl": Column("KL(reference ‖ this cell).", "nats", "NaN: only the likeliest tokens are known"),
    "kl_lower_bound": Column("The least it can be, with all other tokens taken as one.", "nats", "NaN: `kl` is known"),
    "reference_top1": Column("The reference's likeliest token; of equal ones the lowest id.", null="-1: not reported"),
    "top1": Column("This cell's likeliest token.", null="-1: not reported"),
    "gap": Column("ln p of this cell's likeliest token - ln p of the reference's.", "nats", "NaN: not known"),
    "delta_p": Column("The true token's probability minus the reference's."),
}
_INTEGERS = ("chunk", "position", "token", "reference_top1", "top1")
QUALITY_TYPES = dict.fromkeys(QUALITY, "double") | dict.fromkeys(_INTEGERS, "int32") | {"top1_same": "bool"}
_CELL = {
    "engine": Column("As above."),
    "level": Column("As above: the requested quantization level.", null="the engine's default"),
    "variant": Column("As above.", null="no variants"),
}
SUMMARY = {
    "model": Column(
        "Key of a row, with engine to repetition below: the cell and the load.", null="the engine has none to choose"
    ),
    **_CELL,
    "load": Column("As above; `quality` for figures of quality, which belong to the cell."),
    "class": Column("`all`, a class of traffic, or a split such as `cached`."),
    "repetition": Column("Its number, or `pooled` for all together."),
    "metric": Column("Name in [metrics.md](metrics.md)."),
    "statistic": Column("`p50`, `p90`, `p95`, `p99`, `max`, `mean`, `min`, others that a limit asks for; or `value`."),
    "value": Column("The value of the sample, in `unit`.", "`unit`", "some observations are only bounds: see `low`"),
    "low": Column("Lower end of the 95 % interval; without a value, the bound from below.", "`unit`", "open, or none"),
    "high": Column("Upper end; infinite where it is open.", "`unit`", "no interval"),
    "bound": Column("`point`: the interval has both ends or there is none; `lower`, `upper`: only that end is known."),
    "n": Column("Observations."),
    "n_eff": Column("Effective sample size.", null="equal to `n`, or not estimated"),
    "unit": Column("Unit of value, low and high."),
    "source": Column("Where the numbers come from: clock, token source, `start`, a sensor.", null="not one thing"),
    "window": Column("The stretch of the trial that was measured, in words."),
    "validity": Column("Of the metric: `valid`, `warn` or `invalid`; the worst of the pooled.", null="not a trial's"),
}
DECISION = {
    "model": Column("The model: each has a table of its own."),
    **_CELL,
    "loaded_level": Column("The level that the engine reports.", null="not reported"),
    "device": Column("Where it ran.", null="not reported"),
    "status": Column("`complete`, or the worst status of its repetitions."),
    "reason": Column("Why it is not complete.", null="it is"),
    "repetitions": Column("How many."),
    "limits": Column("The worst outcome of its limits.", null="there are none"),
    "front": Column("Whether it is Pareto-optimal.", null="unknown"),
    "beaten_by": Column("The rows that dominate it, separated by `; `.", null="none does"),
    "chosen": Column("Whether the recommendation is this row."),
    "quality": Column("The word for its quality ([decision.md](decision.md)).", null="not measured"),
    "<value>": Column("A value of the row, such as `load_s`, `kl_mean`, `speed` or `speed_ratio`.", "as named"),
    "<value> low": Column("Lower end of its 95 % interval.", "as the value", "no interval"),
    "<value> high": Column("Upper end.", "as the value", "no interval"),
    "<value> bound": Column("`lower` or `upper` where only that end is known.", null="both are, or none"),
    "<value> invalid": Column("`yes`: a doubt makes it invalid; it is compared with nothing.", null="it is valid"),
    "<load> validity": Column("Of the trials under that load."),
    "<load> <value>": Column("A value under a load, such as `sustained ttft_p95_ms`; `low` to `invalid` as above."),
}
_LIMIT = "As in the summary's row that it is judged by."
DOCUMENT = {
    "title": Column("The scenario's name."),
    "status": Column("Of the run, as in the manifest."),
    "exit_code": Column("What the run exits with ([ci.md](ci.md#exit-codes))."),
    "method": Column("Method of these numbers; see the manifest's `method`."),
    "validity": Column("The worst of its trials: `valid`, `warn`, `invalid`; empty where none was judged."),
    "calibration.*": Column("As in the manifest, under `provenance`.", null="not requested"),
    "limits[].limit": Column("As written."),
    "limits[].metric": Column("Its metric, as registered."),
    "limits[].keys[]": Column("Model, engine, level, variant and load, as below."),
    **{f"limits[].{key}": Column("Where it was judged.") for key in KEYS},
    "limits[].outcome": Column("`pass`, `fail`, `invalid` or `cannot_tell`."),
    "limits[].certainty": Column(
        "`sure`: the whole 95 % interval is on the value's side; `likely`: it is not. Empty: no interval, or no value."
    ),
    "limits[].value": Column(_LIMIT, "the metric's", "only a bound is known, or nothing"),
    "limits[].bound": Column("Number that it was held against.", "the metric's", "it was not judged"),
    **dict.fromkeys(("limits[].low", "limits[].high"), Column(_LIMIT, "the metric's", "not known, or open")),
    "limits[].n": Column("Observations."),
    "limits[].sentence": Column("Why."),
    "decisions[].*": Column("A table per model: `rows` as in decision.csv, `recommendation`, reference, notes."),
    "decisions[].recommendation.sentence": Column("What to run, how sure that is, what would settle it."),
    "decisions[].recommendation.outcome": Column(
        "`choice`, `tie`, `none` (none meets all limits), `front`, `unknown`."
    ),
    "decisions[].recommendation.chosen[]": Column("Labels of the rows."),
    "decisions[].recommendation.race.*": Column(
        "The fastest, and all that cannot be ranked behind it (`first`); `certainty`; `repetitions` that would settle "
        "it, or are needed `at_least`, and their `seconds`."
    ),
    "decisions[].recommendation.out[].*": Column("Rows that do not meet all limits, and `why`."),
    "fits[].*": Column(
        "A curve through a sweep ([fits.md](fits.md)): `keys` and `kind` of its loads, `fit` (`throughput`, `decode`, "
        "`prefill`), `points`, and `refused` or its `numbers`, `hold_out`, `least`, `largest`."
    ),
    "users[].*": Column(
        "The largest number of users of a sweep within the SLO ([saturation.md](saturation.md)): `share`, `meets`, "
        "`misses`, `unsure`, `value`, `largest`."
    ),
    **{f"results[].{key}": Column("As in the summary.") for key in (*KEYS, "repetition")},
    "results[].validity": Column("The worst of any metric: `valid`, `warn` or `invalid`."),
    "results[].classes.*": Column("Class of traffic, metric, statistic; then value to window, as in the summary."),
    "trials[].cell": Column("Id of the cell in the manifest."),
    "trials[].trial": Column("Id of the trial in the manifest."),
    "trials[].status": Column("As in the manifest."),
    "trials[].reason": Column("Why it is not complete.", null="it is"),
    "trials[].validity.cell": Column("As above."),
    "trials[].validity.trial": Column("As above."),
    "trials[].validity.verdict": Column("`valid`, `warn` or `invalid`."),
    "trials[].validity.load_failed": Column("Whether the load was not the planned one: exit code 4."),
    "trials[].validity.reasons[].code": Column("Name of the reason, for programs."),
    "trials[].validity.reasons[].level": Column("`warn` or `invalid`."),
    "trials[].validity.reasons[].sentence": Column("Finding."),
    "trials[].validity.reasons[].advice": Column("Action."),
    "trials[].validity.reasons[].metrics[]": Column("Metrics whose numbers it concerns."),
    "trials[].validity.reasons[].effects[].*": Column("Shown number, and the ends between which the true one lies."),
    "trials[].validity.reasons[].size": Column(
        "Multiple of what is tolerated; the largest is told first.", null="no bound"
    ),
    "trials[].validity.notes[].*": Column("Remarks that change no verdict; keys as of `reasons`."),
}
FACTS = {
    "cell": Column("Id of the cell."),
    "trial": Column("Id of the trial."),
    "window.*": Column("Where measuring began and ended, and how long before it the load came up.", "s from T0"),
    "origin": Column("Where its latencies begin: `from due`, `from sent`, or both for turns of conversations."),
    "served_s": Column("From the first measured request due to the last one ended.", "s"),
    "peak_in_flight": Column("Most requests in flight at one moment of the window."),
    "requests.*": Column("Requests by phase."),
    "statuses.*": Column("How the measured ones ended."),
    "errors[].*": Column("Kinds of failure: number, number measured, first and last time, an example."),
    "bursts[].*": Column("Course of each burst: backlog, recovery, errors.", null="no bursts by plan"),
    "queue.*": Column("Independent states of the requests in flight; rounds of a closed loop."),
    "saturation.*": Column(
        "Result of a search for the largest rate ([saturation.md](saturation.md)): `lower_rps`, `value_rps`, "
        "`upper_rps`, `binding`, `requirement`, its `share`, `confirmed`, `ended`, and the `rates` tried.",
        null="no search",
    ),
    "steady.*": Column("Whether the window was steady, warming up or drifting."),
    "sample_size.*": Column("What the requests are worth at a quantile, and what an interval with two ends needs."),
    "slo_vacuous": Column("Good requests to which the limit on `tpot` could not be applied."),
    "token_sources.*": Column("Who counted tokens.", "share"),
    "tokens.*": Column("Differences between two counts of the same tokens; lengths against the requested ones."),
    "books[].*": Column("Counters of the load generator against those of the server's page."),
    "clocks.*": Column("Who stamped arrivals.", "share"),
    "server.*": Column("Metrics of the servers' pages over the window."),
    "servers[].*": Column("How requests spread over several servers."),
    "retries.*": Column(
        "Attempts that were followed by another, by cause, with how long they took; the rate that the server saw."
    ),
    "energy.*": Column("Energy of the GPUs over the window, and what is unknown of it."),
    "throttling.*": Column("Causes of throttling of each GPU, and their share of the window.", null="no GPU was read"),
    "telemetry.*": Column("Cost of the readings, unreadable gauges, sums over the window."),
    "memory.*": Column("The engine's memory by purpose."),
    "missing.*": Column("Why a metric has no value, by its name."),
    "repetitions.*": Column("Agreement of the repetitions."),
}
SAMPLE_NAMES = (
    (
        "`engine`, `client`",
        "`rss_bytes`, `cpu_share` (cores in use), `pss_bytes` (shared pages counted once), `threads`, `major_faults`, "
        "`minor_faults`, `read_bytes`, `written_bytes` (since the start)",
        "the engine's processes together; those of the load generator (absent when the engine runs inside them)",
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
        "a GPU, as far as its driver reports",
    ),
    (
        "`server0`, ...",
        "`running_requests`, `waiting_requests`, `kv_cache_share`, and counters: `prompt_tokens`, "
        "`generation_tokens`, `finished_requests`, `preemptions`, `prefix_queries_tokens`, `prefix_hits_tokens`, "
        "`cached_prompt_tokens`, `queue_time_s`, `queue_time_count`",
        "the metrics page of a server",
    ),
    ("`sampler`", "`cpu_share` (of one core), `late_ms`", "the reading itself: cost and lateness"),
)
