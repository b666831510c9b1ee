"""Books: what the client counted against what the server counted.

Tokens and requests of the whole trial, whatever their phase and however they ended, against the increase of the
server's counters from its last page before the first request to its first one after the last. Where the client cannot
know a number (a reply that was given up, a prompt of which a part may have come from a cache) it knows the least and
the most that it may be, and only what lies outside is a difference.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import Flags, Floats
from harness.analysis.reading import Reading
from harness.records import Status, TokenSource
from harness.store.categories import one_of
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

NS_PER_S = 1e9
MOMENT_S = 0.1
LEAST_READINGS = 20
IN_FLIGHT = "requests in flight"
_OF_SERVERS = r"server\d+"
_NAMES = {"generation_tokens": "output tokens", "prompt_tokens": "prompt tokens", "finished_requests": "requests"}


def books_of(cell: CellEntry, trial: TrialEntry, reading: Reading, samples: pd.DataFrame) -> list[dict[str, Any]]:
    """What can be held against each other; JSON-able. samples: of the cell.

    what: "output tokens", "prompt tokens", "requests": as the client counted (client: the least, client_most) and the
    server; source: its pages. IN_FLIGHT: their mean at the moments in the window at which the page was read, see
    `_in_flight`.
    difference_share: server against client, as a share of the larger; 0 where it lies between the least and the most.
    """
    if trial.status != "complete" or not np.isfinite(reading.columns.times["sent"]).any():
        return []
    told = {name: _server(cell, trial, reading, samples, name) for name in _NAMES}
    counted = _client(reading.frame) if any(told.values()) else {}
    found = [
        _entry(_NAMES[name], *bounds, *server) for name, bounds in counted.items() if (server := told[name]) is not None
    ]
    at_once = _in_flight(trial, reading, samples)
    return found if at_once is None else [*found, at_once]


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
    cell: CellEntry, trial: TrialEntry, reading: Reading, samples: pd.DataFrame, name: str
) -> tuple[float, str] | None:
    """By how much a counter rose over the trial, all servers together, and whose pages say so; None where one page is
    missing, was read while another trial ran, or began anew.
    """
    own = samples[one_of(samples["name"], [name])]
    sources = sorted(source for source in map(str, own["source"].unique()) if re.fullmatch(_OF_SERVERS, source))
    if trial.t0_ns is None or not sources or len(reading.frame["backend"].dropna().unique()) > len(sources):
        return None
    t0_ns = trial.t0_ns
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


def _between_trials(cell: CellEntry, trial: TrialEntry) -> tuple[float, float]:
    """When the trial before this one on the same engine had ended, and when the one after it began."""
    others = [one for one in cell.trials if one.id != trial.id and one.session == trial.session]
    known = [(one.t0_ns, one.ended_ns or np.inf) for one in others if one.t0_ns is not None]
    own_ns = trial.t0_ns or 0
    ended = [ended_ns for t0_ns, ended_ns in known if t0_ns <= own_ns]
    begun = [t0_ns for t0_ns, _ in known if t0_ns > own_ns]
    return max(ended, default=-np.inf), min(begun, default=np.inf)


def _in_flight(trial: TrialEntry, reading: Reading, samples: pd.DataFrame) -> dict[str, Any] | None:
    """The server's own count of requests that run or wait, against the records, at the moments of its readings in the
    window; None with fewer than LEAST_READINGS, or where not every server tells both.

    The least: replies that came from no cache and were on their way for MOMENT_S before and after the reading, and for
    as long as it took. The most: all that were on their way at some time between.
    """
    chosen = samples[samples["name"].isin(["running_requests", "waiting_requests"])]
    chosen = chosen[chosen["source"].astype(str).str.fullmatch(_OF_SERVERS)]
    sources = sorted(chosen["source"].astype(str).unique())
    if trial.t0_ns is None or len(sources) != 1 or chosen["name"].nunique() != 2:
        return None  # pages of several servers are of several moments
    both = chosen.pivot_table(index=["at_ns", "width_ns"], columns="name", values="value", observed=True).dropna()
    at = both.index.get_level_values("at_ns").to_numpy(dtype=np.float64) - trial.t0_ns
    inside = reading.window.holds(at)
    if inside.sum() < LEAST_READINGS:
        return None
    half = both.index.get_level_values("width_ns").to_numpy(dtype=np.float64) / 2 + MOMENT_S * NS_PER_S
    begins, ends = (at - half)[inside], (at + half)[inside]
    rows, ended = reading.frame, np.where(np.isnan(reading.columns.ended), np.inf, reading.columns.ended)
    sent = reading.columns.times["sent"]
    cached = rows["cached"].astype(object).eq(True).to_numpy(dtype=np.bool_)
    surely = (rows["status"] == Status.OK).to_numpy(dtype=np.bool_) & ~cached
    least = np.maximum(_begun(sent[surely], begins) - _begun(ended[surely], ends), 0.0)
    most = _begun(sent, ends) - _begun(ended, begins)
    server = float(both.to_numpy(dtype=np.float64).sum(axis=1)[inside].mean())
    return _entry(IN_FLIGHT, float(least.mean()), float(most.mean()), server, sources[0])


def _begun(events: Floats, moments: Floats) -> Floats:
    """How many of some events had been by each moment."""
    return np.searchsorted(np.sort(events[~np.isnan(events)]), moments, side="right").astype(np.float64)


def _numbers(frame: pd.DataFrame, name: str) -> Floats:
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
