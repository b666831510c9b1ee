"""Prometheus names of servers and exporters, translated to one set of names.

Known pages are those of vLLM, llama.cpp, TGI, SGLang, NVIDIA's DCGM exporter and the node exporter. For any other page
the scenario states the names. A value missing on a page is absent, never zero.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

GAUGES = ("running_requests", "waiting_requests", "kv_cache_share")
COUNTERS = (
    *("prompt_tokens", "generation_tokens", "finished_requests", "preemptions", "prefix_queries_tokens"),
    *("prefix_hits_tokens", "cached_prompt_tokens", "queue_time_s", "queue_time_count"),
)
SERVER = "server"
HOST = "host"
NO_KNOWN_NAME = "holds none of the names that are known"
STATED = "stated"
"""Kind of a page whose names the scenario states."""
_MIB = float(1 << 20)
_PAGE_BYTES = 4096.0
_BLANK_FROM = 2.0**47  # DCGM's numbers from here on mean "unknown"; no MiB, W or MHz reach them
_BLANK_INT32 = range(0x7FFFFFF0, 0x80000000)
_COPIES = ("tp_rank", "pp_rank", "moe_ep_rank")  # labels of SGLang's duplicates of one count
_VIRTUAL_DISKS = ("dm-", "md", "loop", "ram", "zram")

Labels = Mapping[str, str]
Values = Mapping[str, Sequence[tuple[Labels, float]]]


@dataclass(frozen=True, slots=True)
class Found:
    """Value of a page. source: "server", "host" or "gpu0"; name: as in `records.Sample`, or of `CPU_COUNTERS`."""

    source: str
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class Page:
    """Page that was read. kind: its known sources ("vllm", "dcgm", joined by "+"); "" if there are none."""

    kind: str
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """Place of a value: the first of these samples on the page; replicas are added, or averaged (`mean`)."""

    name: str
    samples: tuple[str, ...]
    mean: bool = False


CPU_COUNTERS = ("cpu_s", "cpu_idle_s")
_VLLM = (
    _Name("running_requests", ("vllm:num_requests_running",)),
    _Name("waiting_requests", ("vllm:num_requests_waiting",)),
    _Name("kv_cache_share", ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), mean=True),
    _Name("prompt_tokens", ("vllm:prompt_tokens_total",)),
    _Name("generation_tokens", ("vllm:generation_tokens_total",)),
    _Name("finished_requests", ("vllm:request_success_total",)),
    _Name("preemptions", ("vllm:num_preemptions_total",)),
    _Name("prefix_queries_tokens", ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")),
    _Name("prefix_hits_tokens", ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")),
    _Name("cached_prompt_tokens", ("vllm:prompt_tokens_cached_total",)),
    _Name("queue_time_s", ("vllm:request_queue_time_seconds_sum",)),
    _Name("queue_time_count", ("vllm:request_queue_time_seconds_count",)),
)
_LLAMACPP = (
    _Name("running_requests", ("llamacpp:requests_processing",)),
    _Name("waiting_requests", ("llamacpp:requests_deferred",)),
    _Name("kv_cache_share", ("llamacpp:kv_cache_usage_ratio",), mean=True),
    _Name("generation_tokens", ("llamacpp:tokens_predicted_total",)),
    _Name("cached_prompt_tokens", ("llamacpp:prompt_tokens_cached_total",)),
    _Name("_computed", ("llamacpp:prompt_tokens_total",)),
)
_TGI = (
    _Name("running_requests", ("tgi_batch_current_size",)),
    _Name("waiting_requests", ("tgi_queue_size",)),
    _Name("prompt_tokens", ("tgi_request_input_length_sum",)),
    _Name("generation_tokens", ("tgi_request_generated_tokens_sum",)),
    _Name("finished_requests", ("tgi_request_success", "tgi_request_success_total")),
    _Name("queue_time_s", ("tgi_request_queue_duration_sum",)),
    _Name("queue_time_count", ("tgi_request_queue_duration_count",)),
)
_SGLANG = (
    _Name("running_requests", ("sglang:num_running_reqs",)),
    _Name("waiting_requests", ("sglang:num_queue_reqs",)),
    _Name("kv_cache_share", ("sglang:token_usage",), mean=True),
    _Name("prompt_tokens", ("sglang:prompt_tokens_total",)),
    _Name("generation_tokens", ("sglang:generation_tokens_total",)),
    _Name("finished_requests", ("sglang:num_requests_total",)),
    _Name("preemptions", ("sglang:num_retracted_requests_total",)),
    _Name("cached_prompt_tokens", ("sglang:cached_tokens_total",)),
    _Name("queue_time_s", ("sglang:queue_time_seconds_sum",)),
    _Name("queue_time_count", ("sglang:queue_time_seconds_count",)),
)
_SERVERS = {"vllm": _VLLM, "llamacpp": _LLAMACPP, "tgi": _TGI, "sglang": _SGLANG}
# Name, our name, factor to our unit. Energy and power are not added up: each GPU is separate.
_DCGM = (
    ("DCGM_FI_DEV_FB_USED", "memory_used_bytes", _MIB),
    ("DCGM_FI_DEV_FB_TOTAL", "memory_total_bytes", _MIB),
    ("DCGM_FI_DEV_FB_RESERVED", "memory_reserved_bytes", _MIB),
    ("DCGM_FI_DEV_FB_FREE", "_free", _MIB),
    ("DCGM_FI_DEV_GPU_UTIL", "utilisation_share", 0.01),
    ("DCGM_FI_DEV_MEM_COPY_UTIL", "memory_busy_share", 0.01),
    ("DCGM_FI_DEV_SM_CLOCK", "sm_clock_mhz", 1.0),
    ("DCGM_FI_DEV_MEM_CLOCK", "memory_clock_mhz", 1.0),
    ("DCGM_FI_DEV_POWER_USAGE", "power_w", 1.0),
    ("DCGM_FI_DEV_POWER_MGMT_LIMIT", "power_limit_w", 1.0),
    ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "energy_j", 1e-3),
    ("DCGM_FI_DEV_GPU_TEMP", "temperature_c", 1.0),
)
_NODE = (
    *("node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes", "node_memory_SwapTotal_bytes"),
    *("node_memory_SwapFree_bytes", "node_vmstat_pswpin", "node_vmstat_pswpout", "node_disk_read_bytes_total"),
    *("node_disk_written_bytes_total", "node_cpu_seconds_total"),
)
_WANTED = frozenset(
    {sample for names in _SERVERS.values() for name in names for sample in name.samples}
    | {name for name, _, _ in _DCGM}
    | {*_NODE}
)


def read_page(text: str, stated: Mapping[str, str] | None = None) -> Page:
    """Return the values of a page.

    Args:
        text: Content of the page.
        stated: Our names to the page's own, if the scenario states them; then only these are read. Values with several
            sets of labels are added, shares averaged.

    Raises:
        ValueError: A line with a wanted name is no sample.
    """
    wanted = frozenset(stated.values()) if stated else _WANTED
    values = _samples(text, wanted)
    if stated:
        names = [_Name(ours, (theirs,), mean=ours.endswith("_share")) for ours, theirs in stated.items()]
        found = _of_server(names, values)
        return Page(STATED if found else "", tuple(found))
    readings = {kind: _of_server(theirs, values) for kind, theirs in _SERVERS.items()}
    speaks = next((kind for kind, found in readings.items() if found), "")  # one server per page
    every = {speaks: readings.get(speaks, []), "dcgm": list(_of_gpus(values)), "node": list(_of_host(values))}
    kinds = [kind for kind, found in every.items() if found]
    return Page("+".join(kinds), tuple(one for kind in kinds for one in every[kind]))


def cpu_share(before: Mapping[str, float], now: Mapping[str, float]) -> float | None:
    """Return the busy share of a host's processors between two readings of `CPU_COUNTERS`, if known."""
    if not all(name in one for name in CPU_COUNTERS for one in (before, now)):
        return None
    total, idle = (now[name] - before[name] for name in CPU_COUNTERS)
    return min(1.0, max(0.0, 1 - idle / total)) if total > 0 and idle >= 0 else None


def _samples(text: str, wanted: frozenset[str]) -> dict[str, list[tuple[Labels, float]]]:
    """Return the samples with a wanted name. Only their lines are parsed: pages are long and may be damaged."""
    from prometheus_client.parser import text_string_to_metric_families  # loads a web server

    lines = [line for line in text.split("\n") if line.replace("{", " ", 1).split(" ", 1)[0] in wanted]
    found: dict[str, list[tuple[Labels, float]]] = defaultdict(list)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if math.isfinite(sample.value):
                found[sample.name].append((sample.labels, float(sample.value)))
    return found


def _of_server(names: Iterable[_Name], values: Values) -> list[Found]:
    found: dict[str, float] = {}
    for name in names:
        samples = next((values[sample] for sample in name.samples if values.get(sample)), None)
        if samples is not None:
            each = _without_copies(samples)
            found[name.name] = sum(each) / len(each) if name.mean else sum(each)
    cached = found.get("cached_prompt_tokens")
    computed = found.pop("_computed", None)
    if computed is not None and cached is not None:
        found["prompt_tokens"] = computed + cached
    if cached is not None and "prompt_tokens" in found:
        found.setdefault("prefix_queries_tokens", found["prompt_tokens"])
        found.setdefault("prefix_hits_tokens", cached)
    return [Found(SERVER, name, value) for name, value in found.items()]


def _without_copies(samples: Sequence[tuple[Labels, float]]) -> list[float]:
    """Return one value per replica: duplicates of one request's processes, and parts of a total, are dropped."""
    if any(labels.get("priority") == "" for labels, _ in samples):
        samples = [(labels, value) for labels, value in samples if labels.get("priority") == ""]
    found: dict[frozenset[tuple[str, str]], float] = {}
    for labels, value in samples:
        key = frozenset((name, text) for name, text in labels.items() if name not in _COPIES)
        found[key] = max(value, found.get(key, value))
    return list(found.values())


def _of_gpus(values: Values) -> Iterable[Found]:
    """Yield the values of each GPU of a DCGM exporter. The memory of a GPU's parts (MIG) is added up."""
    gpus: dict[str, dict[str, float]] = {}
    for theirs, ours, unit in _DCGM:
        for labels, value in values.get(theirs, ()):
            if value >= _BLANK_FROM or value in _BLANK_INT32:
                continue
            own = gpus.setdefault(labels.get("gpu", "0"), {})
            own[ours] = own.get(ours, 0.0) + value * unit if "GPU_I_ID" in labels and unit == _MIB else value * unit
    for number, own in gpus.items():
        free = own.pop("_free", None)
        if free is not None and "memory_used_bytes" in own:
            held = own["memory_used_bytes"] + own.get("memory_reserved_bytes", 0.0)
            own.setdefault("memory_total_bytes", held + free)
        yield from (Found(f"gpu{number}", name, value) for name, value in own.items())


def _of_host(values: Values) -> Iterable[Found]:
    """Yield the values of a node exporter's machine."""
    one = {name: values[name][0][1] for name in _NODE if values.get(name)}
    total, available = one.get("node_memory_MemTotal_bytes"), one.get("node_memory_MemAvailable_bytes")
    if total and available is not None:
        yield Found(HOST, "memory_used_bytes", total - available)
        yield Found(HOST, "memory_used_share", 1 - available / total)
    swap, free = one.get("node_memory_SwapTotal_bytes"), one.get("node_memory_SwapFree_bytes")
    if swap is not None and free is not None:
        yield Found(HOST, "swap_used_bytes", swap - free)
    for theirs, ours in (("node_vmstat_pswpin", "swap_in_bytes"), ("node_vmstat_pswpout", "swap_out_bytes")):
        if theirs in one:
            yield Found(HOST, ours, one[theirs] * _PAGE_BYTES)
    disks = {"node_disk_read_bytes_total": "disk_read_bytes", "node_disk_written_bytes_total": "disk_written_bytes"}
    for theirs, ours in disks.items():
        real = [v for labels, v in values.get(theirs, ()) if not labels.get("device", "").startswith(_VIRTUAL_DISKS)]
        if real:
            yield Found(HOST, ours, sum(real))
    seconds = values.get("node_cpu_seconds_total", ())
    if seconds:
        idle = [value for labels, value in seconds if labels.get("mode") in ("idle", "iowait")]
        yield Found(HOST, "cpu_s", sum(value for _, value in seconds))
        yield Found(HOST, "cpu_idle_s", sum(idle))
