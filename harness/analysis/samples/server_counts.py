"""Reconcile the load generator's counts with the server's Prometheus counters.

Tokens and requests of the whole trial count, in any phase and however they ended. The server's increase is that from
its last page before the first request to its first page after the last. The load generator cannot know some numbers (a
cancelled reply, a prompt of which a part may have come from a cache). For those it has a lower and an upper bound, and
only a value outside is a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import NS_PER_S, is_true, numbers
from harness.analysis.reading import Reading
from harness.analysis.samples.server import servers_in
from harness.analysis.stats import Flags, Floats
from harness.records import Status, TokenSource
from harness.store.categories import one_of
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

MOMENT_S = 0.1
LEAST_READINGS = 20
IN_FLIGHT = "requests in flight"
_NAMES = {"generation_tokens": "output tokens", "prompt_tokens": "prompt tokens", "finished_requests": "requests"}


def books_of(cell: CellEntry, trial: TrialEntry, reading: Reading, samples: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the counts that can be compared, JSON-able. `samples` are those of the cell.

    what: "output tokens", "prompt tokens", "requests": by the load generator (client: the lower bound, client_most: the
    upper) and by the server; source: its pages. IN_FLIGHT: their mean at the moments in the window at which the page
    was read, see `_in_flight`.
    difference_share: server against client, as a share of the larger; 0 within the bounds.
    """
    if trial.status != "complete" or not np.isfinite(reading.columns.times["sent"]).any():
        return []
    of_server = {name: _server(cell, trial, reading, samples, name) for name in _NAMES}
    counted = _client(reading.frame) if any(of_server.values()) else {}
    found = [
        _entry(_NAMES[name], *bounds, *server)
        for name, bounds in counted.items()
        if (server := of_server[name]) is not None
    ]
    at_once = _in_flight(trial, reading, samples)
    return found if at_once is None else [*found, at_once]


def _entry(what: str, low: float, high: float, server: float, source: str) -> dict[str, Any]:
    nearest = min(max(server, low), high)
    share = 0.0 if server == nearest else (server - nearest) / max(server, nearest)
    counts = {"what": what, "client": low, "client_most": high, "server": server}
    return counts | {"difference_share": share, "source": source}


def _client(records: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the lower and upper bound of each counter's increase by the requests."""
    sent = records[records["sent_ns"].notna().to_numpy(dtype=np.bool_)]
    whole, kept = one_of(sent["status"], [Status.OK]), is_true(sent["cached"])  # a cached reply may not reach it
    by_chunks = one_of(sent["token_source"], [TokenSource.CHUNKS])
    output, prompt = numbers(sent, "output_tokens"), numbers(sent, "prompt_tokens")
    again = np.nan_to_num(numbers(sent, "retries"))  # attempts that failed: the server may count them
    found = {
        "prompt_tokens": _prompts(sent, whole & ~kept, prompt),
        "finished_requests": (float((whole & ~kept).sum()), float(len(sent) + again.sum())),
    }
    if not by_chunks[whole].any():  # chunks are no tokens
        requested = numbers(sent, "requested_output_tokens")
        least, silent = np.where(by_chunks, 0.0, np.nan_to_num(output)), ~whole | np.isnan(output)
        ends = one_of(sent["token_source"], [TokenSource.TOKENIZER]).sum()  # the token that ends a reply has no text
        most = (np.where(silent, np.fmax(requested, least), least) + again * requested).sum() + ends
        found["generation_tokens"] = (float(least[~kept].sum()), float(most))
    return {name: bounds for name, bounds in found.items() if np.isfinite(bounds).all()}


def _prompts(sent: pd.DataFrame, whole: Flags, prompt: Floats) -> tuple[float, float]:
    """Return the bounds of prompt tokens: servers may count cached ones, and a failed request is unknown.

    An unknown prompt may exceed its planned tokens by as much as any known one: the plan may be an estimate, and it
    lacks the tokens of a template.
    """
    cached = np.minimum(np.nan_to_num(numbers(sent, "cached_tokens")), np.nan_to_num(prompt))
    least = np.where(whole, np.nan_to_num(prompt) - cached, 0.0)
    planned = numbers(sent, "requested_prompt_tokens")
    counted = ~np.isnan(prompt) & (planned > 0)
    factor = float((prompt[counted] / planned[counted]).max(initial=1.0))
    most = np.where(np.isnan(prompt), planned * factor, prompt)
    known = not np.isnan(prompt[whole]).any()  # the schedule's count of a prompt lacks a template's tokens
    attempts = 1 + np.nan_to_num(numbers(sent, "retries"))
    return (float(least.sum()), float((most * attempts).sum())) if known else (np.nan, np.nan)


def _server(
    cell: CellEntry, trial: TrialEntry, reading: Reading, samples: pd.DataFrame, name: str
) -> tuple[float, str] | None:
    """Return the increase of a counter over the trial, all servers together, and the pages it is from.

    None if one page is missing, was read while another trial ran, or was reset.
    """
    own = samples[one_of(samples["name"], [name])]
    sources = servers_in(own)
    if trial.t0_ns is None or not sources or len(reading.frame["backend"].dropna().unique()) > len(sources):
        return None
    begin_ns = trial.t0_ns + float(np.nanmin(reading.columns.times["sent"]))
    end_ns = trial.t0_ns + float(np.nanmax(reading.columns.ended))
    earliest_ns, latest_ns = _between_trials(cell, trial)
    total = 0.0
    for source in sources:
        page = own[own["source"] == source].sort_values("at_ns", kind="stable")
        at, half = numbers(page, "at_ns"), numbers(page, "width_ns") / 2
        first, last = np.flatnonzero(at + half <= begin_ns), np.flatnonzero(at - half >= end_ns)
        if not len(first) or not len(last):
            return None
        i, j = first[-1], last[0]
        values = numbers(page, "value")[i : j + 1]
        if at[i] - half[i] < earliest_ns or at[j] + half[j] > latest_ns or (np.diff(values) < 0).any():
            return None
        total += float(values[-1] - values[0])
    return total, "+".join(sources)


def _between_trials(cell: CellEntry, trial: TrialEntry) -> tuple[float, float]:
    """Return when the trial before this one on the same engine had ended, and when the one after it began."""
    others = [one for one in cell.trials if one.id != trial.id and one.session == trial.session]
    known = [(one.t0_ns, one.ended_ns or np.inf) for one in others if one.t0_ns is not None]
    own_ns = trial.t0_ns or 0
    ended = [ended_ns for t0_ns, ended_ns in known if t0_ns <= own_ns]
    begun = [t0_ns for t0_ns, _ in known if t0_ns > own_ns]
    return max(ended, default=-np.inf), min(begun, default=np.inf)


def _in_flight(trial: TrialEntry, reading: Reading, samples: pd.DataFrame) -> dict[str, Any] | None:
    """Compare the server's own count of running and waiting requests with the records, at its readings in the window.

    None with fewer than LEAST_READINGS, for several servers, or if it does not report both.

    Lower bound: uncached replies to requests sent once that were in flight for MOMENT_S before and after the reading,
    and for as long as it took. Upper bound: all that were in flight at some time between.
    """
    chosen = samples[one_of(samples["name"], ["running_requests", "waiting_requests"])]
    sources = servers_in(chosen)
    chosen = chosen[one_of(chosen["source"], sources)]
    if trial.t0_ns is None or len(sources) != 1 or chosen["name"].nunique() != 2:
        return None  # pages of several servers are of several moments
    both = chosen.pivot_table(index=["at_ns", "width_ns"], columns="name", values="value", observed=True).dropna()
    at = both.index.get_level_values("at_ns").to_numpy(dtype=np.float64) - trial.t0_ns
    inside = reading.window.holds(at)
    if inside.sum() < LEAST_READINGS:
        return None
    half = both.index.get_level_values("width_ns").to_numpy(dtype=np.float64) / 2 + MOMENT_S * NS_PER_S
    begins, ends = (at - half)[inside], (at + half)[inside]
    columns = reading.columns
    sent, ended = columns.times["sent"], np.where(np.isnan(columns.ended), np.inf, columns.ended)
    surely = columns.ok & ~columns.cached & (columns.retries == 0)  # between two attempts the server has nothing
    least = np.maximum(_begun(sent[surely], begins) - _begun(ended[surely], ends), 0.0)
    most = _begun(sent, ends) - _begun(ended, begins)
    server = float(both.to_numpy(dtype=np.float64).sum(axis=1)[inside].mean())
    return _entry(IN_FLIGHT, float(least.mean()), float(most.mean()), server, sources[0])


def _begun(events: Floats, moments: Floats) -> Floats:
    """Count the events before each moment."""
    return np.searchsorted(np.sort(events[~np.isnan(events)]), moments, side="right").astype(np.float64)
