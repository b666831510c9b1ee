"""Tables of machine and server during a trial: memory by purpose, energy and throttling of GPUs, server metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.format import UNKNOWN, amount, grouped
from reports.tables.base import Cell, Table, counted, number

USED = {"j": "number", "power_w": "number", "utilisation_share": "share"}
PARTS = {"kv_cache": "KV cache", "weights": "weights", "runtime": "runtime"}
GAUGES = {
    "running_requests": ("requests being computed", "number"),
    "waiting_requests": ("requests waiting in the queue", "number"),
    "kv_cache_share": ("KV cache in use", "share"),
}
COUNTERS = {
    "prefix_hit_share": ("prompt tokens found in the prefix cache", "share"),
    "queue_time_ms_mean": ("mean time in the queue, ms", "number"),
    "preemptions": ("preemptions", "number"),
    "prompt_tokens": ("prompt tokens", "number"),
    "cached_prompt_tokens": ("prompt tokens from a cache", "number"),
    "generation_tokens": ("tokens generated", "number"),
    "finished_requests": ("requests finished", "number"),
}


def memory(facts: Mapping[str, Any]) -> Table:
    """Return the engine's memory by purpose."""
    memory = facts.get("memory") or {}
    total = memory.get("total_bytes")
    lines = []
    for part in memory.get("breakdown") or ():
        share = part["bytes"] / total if total else None
        name = PARTS.get(part["part"], str(part["part"]).replace("_", " "))
        lines.append((Cell(name), Cell(str(part["source"])), number(part["bytes"], "bytes"), number(share, "share")))
    if lines and total:
        lines.append((Cell("peak"), Cell(str(memory["total_source"])), number(total, "bytes"), Cell("")))
    notes = [f"the rest is unknown: {memory['reason']}"] if lines and memory.get("reason") else []
    return Table("Memory by purpose", ("part", "source", "bytes", "share"), lines, notes, texts=2)


def energy(facts: Mapping[str, Any]) -> Table:
    """Return energy, power and use of each GPU in the window."""
    energy = facts.get("energy") or {}
    used = [(str(one["gpu"]), str(one.get("reason") or ""), one) for one in energy.get("gpus") or ()]
    used += [("total", "", energy)] if len(used) > 1 else []
    lines = [
        (Cell(name), Cell(remark), *(number(one.get(key), show) for key, show in USED.items()))
        for name, remark, one in used
    ]
    notes = []
    if lines and energy.get("j") is not None:
        uncertainty = energy.get("uncertainty_share")
        within = f", within {amount(uncertainty, show='share')}" if uncertainty is not None else ""
        notes.append(f"energy by {energy.get('sensor') or 'an unnamed sensor'}{within}")
    if lines and energy.get("reason"):
        notes.append(str(energy["reason"]))
    head = ("GPU", "remark", "energy, J", "mean power, W", "utilisation")
    return Table("GPU energy", head, lines, notes, texts=2)


def throttling(facts: Mapping[str, Any]) -> Table:
    """Return the causes of throttling of each GPU, and their share of the window."""
    lines = []
    for gpu, held in (facts.get("throttling") or {}).items():
        named = sorted((held.get("reasons") or {}).items(), key=lambda item: -item[1])
        causes = ", ".join(f"{name.replace('_', ' ')} {amount(share, show='share')}" for name, share in named)
        lines.append((Cell(str(gpu)), Cell(causes or "none"), number(held.get("share"), "share")))
    head = ("GPU", "clock limits, harmless ones included", "throttled (heat, power, hardware)")
    return Table("GPU throttling", head, lines, texts=2)


def server(facts: Mapping[str, Any]) -> Table:
    """Return the server's own metrics of the window: queue, cache, counters."""
    server = facts.get("server") or {}
    window = server.get("window") or {}
    lines = []
    for name, (words, show) in GAUGES.items():
        if isinstance(window.get(name), Mapping):
            lines.append((Cell(words), number(window[name].get("mean"), show), _counted(window[name].get("max"), show)))
    for name, (words, show) in COUNTERS.items():
        if isinstance(window.get(name), int | float):
            lines.append((Cell(words), _counted(window[name], show), Cell("")))
    notes = [str(note) for note in server.get("notes") or ()] if lines else []
    return Table("Server metrics", ("in the window", "mean or count", "maximum"), lines, notes)


def pages(facts: Mapping[str, Any]) -> Table:
    """Return the metrics pages of servers and exporters, with their readings and failures."""
    lines = []
    for page in (facts.get("server") or {}).get("pages") or ():
        texts = (page.get("url") or page.get("source") or UNKNOWN, page.get("reason") or page.get("kind") or "")
        failures = page.get("failures") or 0
        failed = counted(failures, "doubtful" if failures else "")
        cost = number(page.get("ms_per_scrape"))
        lines.append((*(Cell(str(text)) for text in texts), counted(page.get("scrapes") or 0), failed, cost))
    return Table("Metrics pages", ("page", "kind", "readings", "failed", "ms each"), lines, texts=2)


def _counted(value: float | None, show: str) -> Cell:
    whole = value is not None and show == "number" and float(value).is_integer()
    return Cell(grouped(f"{value:.0f}"), value=float(value)) if value is not None and whole else number(value, show)
