"""Was the client the bottleneck? What it noted of itself and of its machine, judged in proportion to what it measured.

What the machine does (throttling, steal, other load) only warns: where it delayed the client, the client's own lag says
so. See docs/adr/0007.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from harness import records
from harness.analysis import stats
from harness.analysis.columns import Columns
from harness.analysis.distributions import Observations
from harness.analysis.stats import Floats
from harness.store.manifest import CalibrationEntry, ClientEntry
from harness.verdict import thresholds
from harness.verdict.calibration import beyond
from harness.verdict.reason import Level, Reason, mildest, worst

Observed = Mapping[str, Observations]
_COUNTERS = ("connect_errors", "throttled_periods", "throttled_ms", "connections_in_window")
_OF_ONE = ("canary_events",)  # the quantiles are those of the worst worker, so its number of events is what counts
_GIVE_IT_CORES = "Give the client processor cores that the engine does not use."
_FREE_THE_MACHINE = "Lower the rate, or free the machine of other work."


@dataclass(frozen=True, slots=True)
class Readings:
    """The client's report about itself; of several load processes the worst."""

    own: Mapping[str, Any]

    @classmethod
    def of(cls, client: ClientEntry | None) -> Readings:
        """Take its own readings and those of its `workers`, if it had some."""
        own = {} if client is None else client.stored()
        workers = own.pop("workers", [])
        for name in {name for worker in workers for name in worker}:
            seen = [value for worker in workers if _is_number(value := worker.get(name))]
            if not seen:
                continue
            if name in _OF_ONE:
                own[name] = max(seen)
            elif name not in _COUNTERS:
                own[name] = max([*seen, own[name]] if _is_number(own.get(name)) else seen)
            elif not _is_number(own.get(name)):
                own[name] = sum(seen)
        return cls(own)

    def __getitem__(self, name: str) -> float:
        """A reading; NaN where there is none."""
        value = self.own.get(name)
        return float(value) if _is_number(value) else math.nan


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def judged_quantile(n: int) -> float:
    """The highest quantile that so many observations support, p95 at least: lateness beyond it spoils nothing."""
    least = thresholds.JUDGED_QUANTILE.value
    return next((q for q in (0.99, least) if n >= stats.floor_two_sided(q)), least)


def on_time(observed: Observed) -> Iterator[Reason]:
    """Lag between due and sent, in proportion to what is measured."""
    lag = observed["send_lag_ms"].values
    name = "ttft_ms" if len(observed["ttft_ms"].values) else "e2e_ms"
    latency = observed[name].values
    if not len(lag) or not len(latency):
        return
    middle, tail = stats.quantile(latency, 0.5), stats.quantile(latency, 0.99)
    latest = np.sort(lag)[::-1]
    # One request alone never spoils a trial, or every short one on a busy machine would be invalid: it is a warning.
    q = judged_quantile(len(lag))
    at_q = float(latest[min(max(1, len(lag) - stats.quantile_rank(len(lag), q)), len(lag) - 1)])
    level = mildest(thresholds.LAG_MS.level(at_q), thresholds.LAG_SHARE_OF_TTFT_P50.level(at_q / max(middle, 1e-9)))
    late = int((lag > max(thresholds.LATE_SHARE_OF_TTFT_P99.value * tail, thresholds.LAG_MS.invalid)).sum())
    spoiled = thresholds.LATE_SHARE_OF_TAIL.level(late / len(lag) / (1 - q))
    level = worst(level, mildest(spoiled, Level.WARN) if late < thresholds.LEAST_LATE.value else spoiled)
    if level is not Level.VALID:
        sentence = f"Requests were sent late: p{q * 100:.0f} {at_q:.2f} ms, at most {latest[0]:.2f} ms;"
        sentence += f" {name} p50 is {middle:.1f} ms."
        if late:
            sentence += f" {late} of {len(lag)} were late by more than a tenth of its p99."
        yield Reason("client_lag", level, sentence, _FREE_THE_MACHINE)


def on_plan(due_ns: Floats, sent_ns: Floats, observed: Observed) -> Iterator[Reason]:
    """Whether each 10 s of an open plan were sent within them. Requests that were never sent are judged elsewhere."""
    known = np.isfinite(due_ns) & np.isfinite(sent_ns)
    if not known.any():
        return
    lag_ms = (sent_ns - due_ns) / 1e6
    excused_ms = max(thresholds.LAG_MS.invalid, thresholds.LAG_SHARE_OF_TTFT_P50.invalid * _ttft_p50_ms(observed))
    part_ns = thresholds.PLAN_PART_S.value * 1e9
    bins = (due_ns[known] // part_ns).astype(np.int64)
    moved = (sent_ns[known] // part_ns > bins) & (lag_ms[known] > excused_ms)
    first = int(bins.min())
    planned, late = np.bincount(bins - first), np.bincount(bins - first, weights=moved)
    share = np.where(late >= thresholds.LEAST_LATE.value, late / np.maximum(planned, 1), 0.0)
    at = int(share.argmax())
    from_s, until_s = ((first + part) * thresholds.PLAN_PART_S.value for part in (at, at + 1))
    sentence = f"Of the {planned[at]} requests due between {from_s:g} s and {until_s:g} s, {late[at]:.0f} were"
    yield from thresholds.MOVED_SHARE.reasons(float(share[at]), f"{sentence} sent after that.", _FREE_THE_MACHINE)


def _ttft_p50_ms(observed: Observed) -> float:
    values = observed["ttft_ms"].values
    middle = stats.quantile(values, 0.5) if len(values) else 0.0
    return middle if math.isfinite(middle) else 0.0


def about_itself(client: ClientEntry | None, observed: Observed, *, by_loop: bool) -> Iterator[Reason]:
    """Everything the client noted. by_loop: whether the loop stamped arrivals that the kernel did not."""
    readings = Readings.of(client)
    yield from _lost(client)
    yield from _loop(readings, by_loop)
    yield from _reads(readings)
    yield from _canary(readings, observed)
    yield from _connections(readings)
    yield from _machine(readings)


def _lost(client: ClientEntry | None) -> Iterator[Reason]:
    workers = [] if client is None else client.workers
    lost = [worker.lost for worker in workers if worker.lost]
    sentence = f"{len(lost)} of {len(workers)} load processes died: {next(iter(lost), '')}"
    advice = "Its share of the load was not sent from then on: run it again."
    yield from thresholds.WORKERS_LOST.reasons(len(lost), f"{sentence.rstrip('.')}.", advice)


def _loop(readings: Readings, by_loop: bool) -> Iterator[Reason]:
    heartbeat = readings["heartbeat_p99_ms"]
    level = thresholds.HEARTBEAT_P99_MS.level(heartbeat)
    if level is not Level.VALID:
        # kernel stamps stay true however late the loop looks at them
        level = level if by_loop else Level.WARN
        sentence = f"The client's event loop was late by {heartbeat:.1f} ms at p99."
        yield Reason("client_heartbeat", level, sentence, _GIVE_IT_CORES)
    peak, mean = readings["cpu_peak_share"], readings["cpu_share"]
    if by_loop and readings["connections_opened"] == 0:
        mean = math.nan  # the engine answers in this process, whose time is therefore mostly the engine's
    level = thresholds.CLIENT_CPU.level(max((v for v in (peak, mean) if math.isfinite(v)), default=math.nan))
    if level is not Level.VALID:
        late_too = by_loop and thresholds.HEARTBEAT_P99_MS.level(heartbeat) is not Level.VALID
        level = level if late_too else Level.WARN
        sentence = f"The client's process used {mean:.0%} of a core."
        if peak > mean or not math.isfinite(mean):
            sentence = f"The client's loop used {peak:.0%} of a core in its busiest second."
        yield Reason("client_cpu", level, sentence, "Lower the rate, or use more load processes (`workers`).")


def _reads(readings: Readings) -> Iterator[Reason]:
    merged = readings["merged_read_share"]
    sentence = f"{merged:.0%} of the reads held several packets, so that gaps within them cannot be seen."
    advice = "Trust tpot more than icl, or give the client more cores."
    yield from thresholds.MERGED_READS.reasons(merged, sentence, advice)
    waited = readings["chunk_lag_p99_ms"]
    sentence = f"Packets waited {waited:.1f} ms at p99 until they were read; their stamps are the kernel's."
    yield from thresholds.CHUNK_LAG_P99_MS.reasons(waited, sentence, _GIVE_IT_CORES)
    equal = readings["equal_gap_share"]
    sentence = f"{equal:.0%} of the gaps between chunks are the same to the nanosecond in several replies."
    advice = "Look at the machine's clock source: its steps are in icl and tpot."
    yield from thresholds.EQUAL_GAPS.reasons(equal, sentence, advice)


def _canary(readings: Readings, observed: Observed) -> Iterator[Reason]:
    events = readings["canary_events"]
    if not events > 0:
        return
    q = judged_quantile(int(events))
    at_q, middle = readings[f"canary_p{q * 100:.0f}_ms"], readings["canary_p50_ms"]
    level = thresholds.CANARY_MS.level(at_q)
    if level is Level.INVALID and at_q <= thresholds.LAG_SHARE_OF_TTFT_P50.invalid * _ttft_p50_ms(observed):
        level = Level.WARN
    tpot = observed["tpot_ms"].values
    if len(tpot) and middle > thresholds.CANARY_MS.warn:
        between = max(stats.quantile(tpot, 0.5), 1e-9)
        level = worst(level, thresholds.CANARY_P50_SHARE_OF_TPOT_P50.level(middle / between))
    if level is not Level.VALID:
        sentence = f"A stream of known times was recorded late by {middle:.2f} ms (p50) and {at_q:.2f} ms"
        yield Reason(
            "canary", level, f"{sentence} (p{q * 100:.0f}); what is measured is late like it.", _FREE_THE_MACHINE
        )


def _connections(readings: Readings) -> Iterator[Reason]:
    refused = readings["connect_errors"]
    advice = "Look at the server's backlog and its limit of open files."
    yield from thresholds.CONNECT_ERRORS.reasons(refused, f"{refused:.0f} connections could not be opened.", advice)
    for name, threshold, what, advice in (
        ("open_files_share", thresholds.OPEN_FILES, "open files", "Raise the hard limit (`ulimit -Hn`)."),
        ("ports_share", thresholds.PORTS, "ports", "Widen net.ipv4.ip_local_port_range, or let connections be reused."),
    ):
        sentence = f"{readings[name]:.0%} of the {what} that this machine gives the client were in use."
        yield from threshold.reasons(readings[name], sentence, advice)


def _machine(readings: Readings) -> Iterator[Reason]:
    periods = readings["throttled_periods"]
    sentence = f"The client's processor quota was used up in {periods:.0f} periods"
    sentence += f", {readings['throttled_ms']:.0f} ms in all." if math.isfinite(readings["throttled_ms"]) else "."
    advice = "Give the container more processor time; the client's own lag says what it did to the numbers."
    yield from thresholds.THROTTLED.reasons(periods, sentence, advice)
    steal = readings["steal_share"]
    sentence = f"The hypervisor took {steal:.1%} of the processor time."
    yield from thresholds.STEAL.reasons(
        steal, sentence, "Measure on a machine of its own, or repeat to see the spread."
    )


def waited_for_connections(due_ns: Floats, connected_ns: Floats, sent_ns: Floats) -> Iterator[Reason]:
    """Requests that could be sent only when a new connection was open. The wait is in their lag."""
    waited_ms = (connected_ns - due_ns) / 1e6
    asked = int(np.isfinite(sent_ns).sum())
    waited = int((waited_ms > thresholds.LAG_MS.warn).sum())
    if asked and waited:
        sentence = f"{waited} of {asked} requests waited for a new connection, up to {np.nanmax(waited_ms):.1f} ms."
        advice = "Let the server keep connections open, or warm up at the full load."
        yield from thresholds.WAITED_FOR_CONNECTION.reasons(waited / asked, sentence, advice)


def exhausted(errors: Mapping[str, int]) -> Iterator[Reason]:
    """Requests that failed because this machine had no port or no open file left.

    errors: of requests that found no connection, with how often each occurred.
    """
    count = sum(times for error, times in errors.items() if records.exhausted(error))
    sentence = f"{count} requests failed because this machine had no port or no open file left."
    advice = "Raise the hard limit (`ulimit -Hn`) or the ports, or offer less."
    yield from thresholds.EXHAUSTED.reasons(count, sentence, advice)


def beyond_calibration(
    rows: Columns, client: ClientEntry | None, calibration: CalibrationEntry | None
) -> Iterator[Reason]:
    """Whether a load over sockets was larger than what the machine was calibrated for. rows: the measured requests."""
    if client is None or calibration is None or not Readings.of(client)["connections_opened"] > 0:
        return
    workers = max(1, len(client.workers))
    streams, chunks_per_s = largest_load(rows)
    sentence = beyond(calibration, streams, chunks_per_s, workers=workers)
    if sentence is not None:
        advice = "Offer less, use more load processes (`workers`), or calibrate for more with `harness doctor`."
        yield Reason("beyond_calibration", Level.WARN, sentence, advice)


def largest_load(rows: Columns) -> tuple[float | None, float | None]:
    """The most replies at once, and chunks per second from the first request to the last end; None: not known."""
    sent, ended = rows.times["sent"], rows.ended
    known = np.isfinite(sent) & np.isfinite(ended)
    if not known.any():
        return None, None
    begun, over = np.sort(sent[known]), np.sort(ended[known])
    at_once = int((np.arange(1, len(begun) + 1) - np.searchsorted(over, begun, side="right")).max())
    seconds = (over[-1] - begun[0]) / 1e9
    return float(at_once), float(rows.each.sizes.sum()) / seconds if seconds > 0 else None
