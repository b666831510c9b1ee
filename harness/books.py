"""Books: what the client counted against what the server counted, and whether the trial's own times add up.

Tokens and requests of the whole trial, whatever their phase and however they ended, against the increase of the
server's counters from its last page before the first request to its first one after the last. Where the client cannot
know a number (a reply that was given up, a prompt of which a part may have come from a cache) it knows the least and
the most that it may be, and only what lies outside is a difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import thresholds
from harness.columns import Flags, Floats
from harness.reading import Reading
from harness.reasons import Level, Reason
from harness.records import Status, TokenSource

if TYPE_CHECKING:
    import pandas as pd

NS_PER_S = 1e9
LITTLE = "Little's law"
_OF_SERVERS = r"server\d+"
_NAMES = {"generation_tokens": "output tokens", "prompt_tokens": "prompt tokens", "finished_requests": "requests"}


def books_of(
    cell: Mapping[str, Any], trial: Mapping[str, Any], reading: Reading, samples: pd.DataFrame
) -> list[dict[str, Any]]:
    """What can be held against each other; JSON-able. samples: of the cell.

    what: "output tokens", "prompt tokens", "requests": as the client counted (client: the least, client_most) and the
    server; source: its pages. "requests in flight", source LITTLE: their mean over the window (client) against arrivals
    per second times mean time in the system (server); ends_share: as much of the difference are requests that were in
    flight at the window's start or end.
    difference_share: server against client, as a share of the larger; 0 where it lies between the least and the most.
    """
    if trial.get("status") != "complete" or not np.isfinite(reading.columns.times["sent"]).any():
        return []
    little = _little(reading)
    told = {name: _server(cell, trial, reading, samples, name) for name in _NAMES}
    counted = _client(reading.frame) if any(told.values()) else {}
    found = [
        _entry(_NAMES[name], *bounds, *server) for name, bounds in counted.items() if (server := told[name]) is not None
    ]
    return found if little is None else [little, *found]


def books_reasons(facts: Mapping[str, Any] | None) -> Iterator[Reason]:
    """What does not balance, by the facts of a trial."""
    for entry in (facts or {}).get("books") or ():
        what, client, server = entry["what"], entry["client"], entry["server"]
        if entry["source"] == LITTLE:
            if thresholds.LITTLE_GAP.level(abs(entry["difference_share"] - entry["ends_share"])) is not Level.VALID:
                sentence = f"{client:.3g} {what} on average, where arrivals and times make it {server:.3g}."
                yield Reason("books", Level.WARN, sentence, "Records are missing or wrong; do not use the concurrency.")
            continue
        if thresholds.BOOKS.level(abs(entry["difference_share"])) is Level.VALID:
            continue
        counted = (
            f"{client:,.0f}" if client == entry["client_most"] else f"{client:,.0f} to {entry['client_most']:,.0f}"
        )
        sentence = f"The server counted {server:,.0f} {what} during the trial, the client {counted}."
        advice = "Let nothing else use the server; look for retries on the way, for requests that were lost, and for "
        advice += "servers behind it whose pages `metrics_urls` does not name."
        yield Reason("books", Level.WARN, sentence, advice)


def _entry(what: str, low: float, high: float, server: float, source: str) -> dict[str, Any]:
    nearest = min(max(server, low), high)
    share = 0.0 if server == nearest else (server - nearest) / max(server, nearest)
    return {
        "what": what,
        "client": low,
        "client_most": high,
        "server": server,
        "difference_share": share,
        "source": source,
    }


def _client(records: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The least and the most of each counter that the client's requests may have made."""
    sent = records[records["sent_ns"].notna().to_numpy(dtype=np.bool_)]
    whole = (sent["status"] == Status.OK).to_numpy(dtype=np.bool_)
    kept = sent["cached"].astype(object).eq(True).to_numpy(dtype=np.bool_)  # a reply from before may never reach it
    by_chunks = (sent["token_source"] == TokenSource.CHUNKS).to_numpy(dtype=np.bool_)
    output, prompt = _numbers(sent, "output_tokens"), _numbers(sent, "prompt_tokens")
    found = {
        "prompt_tokens": _prompts(sent, whole & ~kept, prompt),
        "finished_requests": (float((whole & ~kept).sum()), float(len(sent))),
    }
    if not by_chunks[whole].any():  # chunks are no tokens
        asked = _numbers(sent, "requested_output_tokens")
        least, silent = np.where(by_chunks, 0.0, np.nan_to_num(output)), ~whole | np.isnan(output)
        by_text = (sent["token_source"] == TokenSource.TOKENIZER).to_numpy(dtype=np.bool_)
        ends = by_text.sum()  # the token that ends a reply has no text
        most = np.where(silent, np.fmax(asked, least), least).sum() + ends
        found["generation_tokens"] = (float(least[~kept].sum()), float(most))
    return {name: bounds for name, bounds in found.items() if np.isfinite(bounds).all()}


def _prompts(sent: pd.DataFrame, whole: Flags, prompt: Floats) -> tuple[float, float]:
    """Some servers count what they took from a cache, others do not; of a request that failed nobody knows."""
    cached = np.minimum(np.nan_to_num(_numbers(sent, "cached_tokens")), np.nan_to_num(prompt))
    least = np.where(whole, np.nan_to_num(prompt) - cached, 0.0)
    most = np.where(np.isnan(prompt), _numbers(sent, "requested_prompt_tokens"), prompt)
    known = not np.isnan(prompt[whole]).any()  # the plan's count of a prompt lacks what a template adds
    return (float(least.sum()), float(most.sum())) if known else (np.nan, np.nan)


def _server(
    cell: Mapping[str, Any], trial: Mapping[str, Any], reading: Reading, samples: pd.DataFrame, name: str
) -> tuple[float, str] | None:
    """By how much a counter rose over the trial, all servers together, and whose pages say so; None where one page is
    missing, was read while another trial ran, or began anew.
    """
    own = samples[(samples["name"] == name) & samples["source"].astype(str).str.fullmatch(_OF_SERVERS)]
    sources = sorted(str(source) for source in own["source"].unique())
    if trial.get("t0_ns") is None or not sources or len(reading.frame["backend"].dropna().unique()) > len(sources):
        return None
    t0_ns = int(trial["t0_ns"])
    begin_ns = t0_ns + float(np.nanmin(reading.columns.times["sent"]))
    end_ns = t0_ns + float(np.nanmax(reading.columns.ended))
    earliest_ns, latest_ns = _between_trials(cell, trial)
    total = 0.0
    for source in sources:
        page = own[own["source"] == source].sort_values("at_ns", kind="stable")
        at, half = _numbers(page, "at_ns"), _numbers(page, "width_ns") / 2
        first, last = np.flatnonzero(at + half <= begin_ns), np.flatnonzero(at - half >= end_ns)
        if not len(first) or not len(last):
            return None
        i, j = first[-1], last[0]
        values = _numbers(page, "value")[i : j + 1]
        if at[i] - half[i] < earliest_ns or at[j] + half[j] > latest_ns or (np.diff(values) < 0).any():
            return None
        total += float(values[-1] - values[0])
    return total, "+".join(sources)


def _between_trials(cell: Mapping[str, Any], trial: Mapping[str, Any]) -> tuple[float, float]:
    """When the trial before this one on the same engine had ended, and when the one after it began."""
    others = [one for one in cell.get("trials") or () if one.get("t0_ns") is not None and one["id"] != trial["id"]]
    others = [one for one in others if one.get("session") == trial.get("session")]
    ended = [one.get("ended_ns") or np.inf for one in others if one["t0_ns"] <= trial["t0_ns"]]
    begun = [one["t0_ns"] for one in others if one["t0_ns"] > trial["t0_ns"]]
    return max(ended, default=-np.inf), min(begun, default=np.inf)


def _little(reading: Reading) -> dict[str, Any] | None:
    """L = lambda W (Little 1961) over the window; both in seconds of requests until the end. What was in flight at the
    start and after the end is the whole difference, or else times are missing.
    """
    columns, window = reading.columns, reading.window
    sent, ended = columns.times["sent"], columns.ended
    own = window.holds(sent)
    if window.seconds <= 0 or not own.any():
        return None
    start, end = window.start_ns, window.end_ns
    inside = np.maximum(np.minimum(ended, end) - np.maximum(sent, start), 0.0)
    in_flight, times = float(np.nansum(inside)), float(np.nansum((ended - sent)[own]))
    if in_flight <= 0:
        return None
    carried_in = np.nansum(np.maximum(np.minimum(ended, end) - start, 0.0)[sent < start])
    carried_out = np.nansum(np.maximum(ended - end, 0.0)[own])
    lasted = NS_PER_S * window.seconds
    entry = _entry("requests in flight", in_flight / lasted, in_flight / lasted, times / lasted, LITTLE)
    return entry | {"ends_share": float(carried_out - carried_in) / max(in_flight, times)}


def _numbers(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
