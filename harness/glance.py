"""A trial that is going on, in short lines: how far it is, how fast, how the machines fare, what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.format import amount

SEPARATOR = " · "


def how_far(event: Mapping[str, Any], elapsed_s: float) -> str:
    """The phase and the time that is left. elapsed_s: since the trial began, where the event does not know better."""
    left_s = time_left_s(event, elapsed_s)
    return str(event["phase"]) + (f", {_clock(left_s)} left" if left_s else "")


def time_left_s(event: Mapping[str, Any], elapsed_s: float) -> float | None:
    """Until the end by the plan; where only a number of requests is planned, at the pace so far. None: not known."""
    known_s = event.get("elapsed_s")
    passed_s = float(elapsed_s if known_s is None else known_s)
    if event["ends_s"]:
        return max(0.0, float(event["ends_s"]) - passed_s)
    if event["planned"] and event["done"]:
        return passed_s / int(event["done"]) * max(0, int(event["planned"]) - int(event["done"]))
    return None


def how_fast(event: Mapping[str, Any]) -> list[str]:
    """Requests, rate beside what the plan offers, first tokens and tokens."""
    planned = f"/{event['planned']}" if event["planned"] else ""
    parts = [f"{event['done']}{planned} requests"]
    completed, offered = event.get("completed_rps"), event.get("offered_rps")
    if completed is not None:
        parts.append(f"{_number(completed)}{'' if offered is None else f' of {_number(offered)}'} per s")
    for name, label in (("ttft_ms", "TTFT"), ("tpot_ms", "TPOT")):
        if event.get(name) is not None:
            parts.append(f"{label} {_number(event[name])} ms")
    if event.get("tokens_per_s"):
        parts.append(f"{_number(event['tokens_per_s'])} tokens/s")
    return parts


def how_well(event: Mapping[str, Any]) -> list[str]:
    """How late this client is, memory of the engine and of the GPUs; that there are no errors, where there are none."""
    parts = [] if what_went_wrong(event) else ["no errors"]
    lags = [event[name] for name in ("send_lag_ms", "read_lag_ms") if event.get(name) is not None]
    if lags:
        parts.append(f"client late {_number(max(lags))} ms")
    machine = event.get("machine") or {}
    if machine.get("rss_bytes"):
        parts.append(f"engine {_bytes(machine['rss_bytes'])}")
    if machine.get("gpu_memory_bytes") is not None:
        total = machine.get("gpu_memory_total_bytes")
        parts.append(f"GPU {_bytes(machine['gpu_memory_bytes'])}" + (f" of {_bytes(total)}" if total else ""))
    return parts


def what_went_wrong(event: Mapping[str, Any]) -> list[str]:
    """Failed requests with the last one's reason, and load processes that are gone."""
    failed, last = event["failed"], event.get("last_failure")
    parts = [f"{failed} failed" + (f", last: {last}" if last else "")] if failed else []
    lost = event.get("workers_lost")
    return parts + ([f"load processes that died: {lost}"] if lost else [])


def fitted(name: str, rest: str, width: int) -> str:
    """A name and what follows it in one line: the name gives way, in its middle."""
    room = max(8, width - len(rest))
    if len(name) > room:
        first = (room - 1) // 2
        name = f"{name[:first]}…{name[len(name) - (room - 1 - first) :]}"
    return name + rest


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02} s"


def _number(value: float) -> str:
    """Two digits that count, or whole from ten on."""
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.1f}" if abs(value) >= 0.995 else f"{value:.2g}"


def _bytes(value: float) -> str:
    return amount(float(value), show="bytes").replace("\u202f", " ")
