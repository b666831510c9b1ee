"""Metrics of the engine's start and of the machine: memory, energy, and what the server says of itself."""

from __future__ import annotations

from harness.metric import Direction, Show, scalar

START_AND_MEMORY = (
    scalar(
        "load_s",
        "s",
        "From starting the engine until it is ready, its library's import among it, the model's files dropped from the "
        "file cache before; where the system shows that they were not, the decision table says so.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "load_warm_s",
        "s",
        "The same with the model's files in the file cache; in process with the import as it was timed the first time.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "first_request_ms",
        "ms",
        "End-to-end time of the first request after the start, before any warm-up.",
        Direction.LOWER,
        Show.TIME,
    ),
    scalar(
        "weight_bytes",
        "bytes",
        "Size of the weight files that the engine loaded.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "rss_after_load_bytes",
        "bytes",
        "Resident memory of the engine's processes after the first start and its first request.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "memory_peak_bytes",
        "bytes",
        "Largest memory of the engine's processes during the trial, what they share counted once: each reading of "
        "resident memory less what it counted too often at the nearest reading of PSS. Resident memory where PSS was "
        "not read; `source` says which.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "load_peak_bytes",
        "bytes",
        "The same while the engine started, until it took a request: the cold start.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "load_gpu_peak_bytes",
        "bytes",
        "Largest readings of its GPUs' memory while the engine started, added up, as `gpu_memory_peak_bytes`.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "rss_peak_bytes",
        "bytes",
        "Largest reading during the trial of the resident memory of the engine's processes.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "pss_peak_bytes",
        "bytes",
        "The same with shared pages divided among those who share them (PSS); read at most once a second, and rarer "
        "where that takes long.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "engine_cpu_cores",
        "cores",
        "Processor time of the engine's processes / time, over the measuring window.",
        Direction.NONE,
        Show.NUMBER,
    ),
    scalar(
        "engine_major_faults",
        "count",
        "Pages for which the engine's processes waited for a disk, in the measuring window.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "swapped_bytes",
        "bytes",
        "What the machine under test moved to and from its swap in the measuring window.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "system_memory_peak_share",
        "share",
        "Largest reading during the trial of used / total memory of the machine under test.",
        Direction.LOWER,
        Show.SHARE,
    ),
    scalar(
        "gpu_memory_peak_bytes",
        "bytes",
        "Largest readings of each GPU's memory that the engine held during the trial, added up; of all that was in use "
        "where the driver does not tell whose it is.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar(
        "gpu_memory_peak_share",
        "share",
        "Largest readings of the memory in use on those GPUs, whoever held it / their total memory.",
        Direction.LOWER,
        Show.SHARE,
    ),
)
ENERGY = (
    scalar(
        "energy_j",
        "J",
        "Energy of the engine's GPUs in the measuring window, together, idle power included: the growth of their "
        "counters. The interval holds what is not known of the window's ends, and 5 % for the sensor.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "energy_j_per_output_token",
        "J/token",
        "The same / output tokens that arrived in the window.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "energy_j_per_good_request",
        "J",
        "The same / measured requests that met every limit of the slo.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "gpu_power_w",
        "W",
        "Mean of the power readings of each of these GPUs in the window, added up.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "gpu_utilisation_share",
        "share",
        "Mean share of time in which a kernel was resident on these GPUs: not how busy they were.",
        Direction.NONE,
        Show.SHARE,
    ),
)
SERVER_PAGE = (
    scalar(
        "server_running_mean",
        "requests",
        "Requests that the server was working on, by its own page: mean over the window.",
        Direction.NONE,
        Show.NUMBER,
    ),
    scalar(
        "server_waiting_mean",
        "requests",
        "Requests that waited inside the server, by its own page: mean over the window.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "server_queue_ms_mean",
        "ms",
        "What requests that ended in the window had waited inside the server, by its own count: mean.",
        Direction.LOWER,
        Show.TIME,
    ),
    scalar(
        "kv_cache_peak_share",
        "share",
        "Largest reading in the window of the part of the KV cache in use, by the server's page.",
        Direction.LOWER,
        Show.SHARE,
    ),
    scalar(
        "prefix_hit_share",
        "share",
        "Prompt tokens that the server found in its prefix cache / those it looked for, over the window.",
        Direction.HIGHER,
        Show.SHARE,
    ),
    scalar(
        "preemptions",
        "count",
        "Requests that the server put back in its queue for want of room, in the window.",
        Direction.LOWER,
        Show.NUMBER,
    ),
)
