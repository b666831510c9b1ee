"""Metrics of the engine's start and of the machine: memory, energy, and what the server says of itself."""

from __future__ import annotations

from harness.metric import Direction, Metric, Show, scalar

NO_ENERGY = "this version does not measure energy yet"

START_AND_MEMORY = (
    scalar(
        "load_s",
        "s",
        "From starting the engine until it is ready, files not in the page cache as far as we know.",
        Direction.LOWER,
        Show.NUMBER,
    ),
    scalar(
        "load_warm_s",
        "s",
        "The same with the model's files in the page cache; in process also with the library imported already.",
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
        "rss_peak_bytes",
        "bytes",
        "Largest reading during the trial of the resident memory of the engine's processes.",
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
        "Largest readings of used memory of each GPU during the trial, added up.",
        Direction.LOWER,
        Show.BYTES,
    ),
    scalar("gpu_memory_peak_share", "share", "The same / total memory of those GPUs.", Direction.LOWER, Show.SHARE),
)
ENERGY = (
    scalar(
        "energy_j_per_output_token",
        "J/token",
        "Energy of the GPUs in the window / output tokens that arrived in it.",
        Direction.LOWER,
        Show.NUMBER,
        NO_ENERGY,
    ),
)
SERVER_PAGE: tuple[Metric, ...] = ()
