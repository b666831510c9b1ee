"""Prometheus names of servers and exporters, translated to one set of names.

Known pages are those in `names.toml` and the node exporter's. For any other page the scenario states the names. A value
missing on a page is absent, never zero.
"""

from __future__ import annotations

import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

GAUGES = ("running_requests", "waiting_requests", "kv_cache_share")
COUNTERS = (
    *("prompt_tokens", "generation_tokens", "finished_requests", "preemptions", "prefix_queries_tokens"),
    *("prefix_hits_tokens", "cached_prompt_tokens", "queue_time_s", "queue_time_count"),
)
SERVER = "server"
HOST = "host"
NO_KNOWN_NAME = "holds none of the names that are known"
CPU_COUNTERS = ("cpu_s", "cpu_idle_s")
_KNOWN = tomllib.loads(Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
_UNITS = {"MiB": float(1 << 20), "percent": 0.01, "mJ": 1e-3, "W": 1.0, "MHz": 1.0, "C": 1.0}
_PAGE_BYTES = 4096.0
_BLANK_FROM = 2.0**47  # DCGM's numbers from here on mean "unknown"; no MiB, W or MHz reach them
_BLANK_INT32 = range(0x7FFFFFF0, 0x80000000)
_COPIES = ("tp_rank", "pp_rank", "moe_ep_rank")  # labels of SGLang's duplicates of one count
_VIRTUAL_DISKS = ("dm-", "md", "loop", "ram", "zram")

_NODE = (
    *("node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes", "node_memory_SwapTotal_bytes"),
    *("node_memory_SwapFree_bytes", "node_vmstat_pswpin", "node_vmstat_pswpout", "node_disk_read_bytes_total"),
    *("node_disk_written_bytes_total", "node_cpu_seconds_total"),
)
_WANTED = frozenset(
    {sample for names in _KNOWN["servers"].values() for samples in names.values() for sample in samples}
    | {gauge["sample"] for gauge in _KNOWN["dcgm"].values()}
    | {*_NODE}
)
Labels = Mapping[str, str]
Values = Mapping[str, Sequence[tuple[Labels, float]]]


class Found(NamedTuple):
    """Value of a page. source: "server", "host" or "gpu0"; name: as in `records.Sample`, or of `CPU_COUNTERS`."""

    source: str
    name: str
    value: float


class Page(NamedTuple):
    """Page that was read.

    kind: its known sources ("vllm", "dcgm", joined by "+"), "stated" if the scenario states its names, "" if none.
    """

    kind: str
    found: tuple[Found, ...]


def read_page(text: str, stated: Mapping[str, str] | None = None) -> Page:
    """Return the values of a page.

    Values with several sets of labels are added, shares averaged. Raises ValueError if a line with a wanted name is no
    sample.

    Args:
        stated: Our names to the page's own, if the scenario states them; then only these are read.
    """
    values = _samples(text, frozenset(stated.values()) if stated else _WANTED)
    if stated:
        found = _of_server({ours: [theirs] for ours, theirs in stated.items()}, values)
        return Page("stated" if found else "", tuple(found))
    readings = {kind: _of_server(names, values) for kind, names in _KNOWN["servers"].items()}
    server = next((kind for kind, found in readings.items() if found), "")  # one server per page
    every = {server: readings.get(server, []), "dcgm": list(_of_gpus(values)), "node": list(_of_host(values))}
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


def _of_server(names: Mapping[str, Sequence[str]], values: Values) -> list[Found]:
    found: dict[str, float] = {}
    for name, candidates in names.items():
        samples = next((values[sample] for sample in candidates if values.get(sample)), None)
        if samples is not None:
            each = _without_copies(samples)
            found[name] = sum(each) / len(each) if name.endswith("_share") else sum(each)
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
    for ours, gauge in _KNOWN["dcgm"].items():
        for labels, value in values.get(gauge["sample"], ()):
            if value >= _BLANK_FROM or value in _BLANK_INT32:
                continue
            own = gpus.setdefault(labels.get("gpu", "0"), {})
            is_part = "GPU_I_ID" in labels and gauge["unit"] == "MiB"
            own[ours] = value * _UNITS[gauge["unit"]] + (own.get(ours, 0.0) if is_part else 0.0)
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
    for ours in ("disk_read_bytes", "disk_written_bytes"):
        theirs = f"node_{ours}_total"
        real = [v for labels, v in values.get(theirs, ()) if not labels.get("device", "").startswith(_VIRTUAL_DISKS)]
        if real:
            yield Found(HOST, ours, sum(real))
    seconds = values.get("node_cpu_seconds_total", ())
    if seconds:
        idle = [value for labels, value in seconds if labels.get("mode") in ("idle", "iowait")]
        yield Found(HOST, "cpu_s", sum(value for _, value in seconds))
        yield Found(HOST, "cpu_idle_s", sum(idle))
