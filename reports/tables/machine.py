"""Machine and server during a trial: memory by use, energy, throttling of GPUs, and the server's own account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.format import UNKNOWN, amount, grouped
from reports.tables.base import Cell, Table, counted, number

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
    """Return the engine's memory by what it is for."""
    told = facts.get("memory") or {}
    total = told.get("total_bytes")
    lines = []
    for part in told.get("breakdown") or ():
        share = part["bytes"] / total if total else None
        name = PARTS.get(part["part"], str(part["part"]).replace("_", " "))
        lines.append((Cell(name), Cell(str(part["source"])), number(part["bytes"], "bytes"), number(share, "share")))
    if lines and total:
        lines.append((Cell("peak"), Cell(str(told["total_source"])), number(total, "bytes"), Cell("")))
    notes = [f"the rest is unknown: {told['reason']}"] if lines and told.get("reason") else []
    return Table("Memory by purpose", ("part", "source", "bytes", "share"), lines, notes, texts=2)


def energy(facts: Mapping[str, Any]) -> Table:
    """Return energy, power and use of each GPU in the window."""
    told = facts.get("energy") or {}
    lines = []
    for one in told.get("gpus") or ():
        lines.append((Cell(str(one["gpu"])), Cell(str(one.get("reason") or "")), *_used(one)))
    if len(lines) > 1:
        lines.append((Cell("total"), Cell(""), *_used(told)))
    notes = []
    if lines and told.get("j") is not None:
        sure = told.get("uncertainty_share")
        within = f", within {amount(sure, show='share')}" if sure is not None else ""
        notes.append(f"energy by {told.get('sensor') or 'an unnamed sensor'}{within}")
    if lines and told.get("reason"):
        notes.append(str(told["reason"]))
    head = ("GPU", "remark", "energy, J", "mean power, W", "utilisation")
    return Table("GPU energy", head, lines, notes, texts=2)


def _used(told: Mapping[str, Any]) -> tuple[Cell, Cell, Cell]:
    return number(told.get("j")), number(told.get("power_w")), number(told.get("utilisation_share"), "share")


def throttling(facts: Mapping[str, Any]) -> Table:
    """Return for how much of the window something held each GPU back, and what."""
    lines = []
    for gpu, told in (facts.get("throttling") or {}).items():
        named = sorted((told.get("reasons") or {}).items(), key=lambda item: -item[1])
        causes = ", ".join(f"{name.replace('_', ' ')} {amount(share, show='share')}" for name, share in named)
        lines.append((Cell(str(gpu)), Cell(causes or "none"), number(told.get("share"), "share")))
    head = ("GPU", "clock limits, harmless ones included", "throttled (heat, power, hardware)")
    return Table("GPU throttling", head, lines, texts=2)


def server(facts: Mapping[str, Any]) -> Table:
    """Return the server's own account of the window: queue, cache, counters."""
    told = facts.get("server") or {}
    window = told.get("window") or {}
    lines = []
    for name, (words, show) in GAUGES.items():
        if isinstance(window.get(name), Mapping):
            lines.append((Cell(words), number(window[name].get("mean"), show), _counted(window[name].get("max"), show)))
    for name, (words, show) in COUNTERS.items():
        if isinstance(window.get(name), int | float):
            lines.append((Cell(words), _counted(window[name], show), Cell("")))
    notes = [str(note) for note in told.get("notes") or ()] if lines else []
    return Table("Server metrics", ("in the window", "mean or count", "maximum"), lines, notes)


def pages(facts: Mapping[str, Any]) -> Table:
    """Return the pages of servers and exporters: how often each was read, and what came of it."""
    lines = []
    for page in (facts.get("server") or {}).get("pages") or ():
        failures = page.get("failures") or 0
        lines.append(
            (
                Cell(str(page.get("url") or page.get("source") or UNKNOWN)),
                Cell(str(page.get("reason") or page.get("kind") or "")),
                counted(page.get("scrapes") or 0),
                counted(failures, "doubtful" if failures else ""),
                number(page.get("ms_per_scrape")),
            )
        )
    return Table("Metrics pages", ("page", "kind", "readings", "failed", "ms each"), lines, texts=2)


def _counted(value: float | None, show: str) -> Cell:
    """Return a number of things, which is whole."""
    whole = value is not None and show == "number" and float(value).is_integer()
    return Cell(grouped(f"{value:.0f}"), value=float(value)) if value is not None and whole else number(value, show)
