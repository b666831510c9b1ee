"""Judge what the load generator did to the shown numbers: requests sent late, first tokens read late, a slow loop.

Effects are computed from the records (`analysis.lateness`). What the machine did (busy, throttled, stolen from) is
named as the cause of an effect, and is no doubt by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np

from harness.analysis.columns import NS_PER_MS, Columns, numbers
from harness.analysis.latencies import of_each
from harness.analysis.lateness import (
    FirstReads,
    FirstTokens,
    corrected_tpot,
    lag_ns,
    late_start_ns,
    moved_share,
    place_turnaround,
    turnaround,
)
from harness.analysis.reading import Reading
from harness.analysis.stats import Floats, quantile
from harness.records import Clock, Loop
from harness.store.categories import one_of
from harness.store.manifest import CalibrationEntry, ClientEntry
from harness.verdict import thresholds
from harness.verdict.calibration import beyond
from harness.verdict.reason import Effect, Level, Reason, worst
from harness.verdict.tolerance import WITH, Tolerance, doubted, in_words, number

_COUNTERS = ("connect_errors", "throttled_periods", "throttled_ms", "connections_in_window")
_OF_ONE = ("canary_events",)  # the quantiles are those of the worst worker, so its number of events is what counts
_READ = ("ttft_service_ms", "ttfo_service_ms")
_FROM_DUE = (*WITH["ttft_ms"], *WITH["e2e_ms"])
_RATES = ("offered_rps", "completed_rps", "goodput_rps", "output_tokens_per_s", "input_tokens_per_s")
_FREE_CORES = "Free processor cores, lower the load, or use more load processes (`workers`)."


@dataclass(frozen=True, slots=True)
class Readings:
    """The load generator's report about itself; of several load processes the worst."""

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


@dataclass(frozen=True)
class Client:
    """Load generator of a trial: its records, its report, the machine."""

    reading: Reading
    readings: Readings
    machine: Mapping[str, Any]  # means over the window, see `telemetry_facts`
    tolerance: Tolerance

    @cached_property
    def rows(self) -> Columns:
        return self.reading.columns.measured

    @cached_property
    def reads(self) -> FirstReads:
        return self.reading.reads.where(self.reading.columns.measured_rows)

    @cached_property
    def tpot(self) -> Floats:
        """Time per output token of each request in ms, NaN without one."""
        return of_each(self.rows)["tpot_ms"]

    @cached_property
    def typical_tpot_ms(self) -> float:
        return quantile(self.tpot[np.isfinite(self.tpot)], 0.5)

    @cached_property
    def first_tokens(self) -> FirstTokens:
        return FirstTokens.of(self.rows, self.reads, self.typical_tpot_ms)

    @cached_property
    def _least_e2e(self) -> Floats:
        """E2E of each request in ms from the moment it was sent and accepted, at least."""
        accepting = np.where(self.rows.closed, 0.0, np.nan_to_num(self.rows.times["accepting"]))
        e2e = of_each(self.rows)["e2e_ms"] - (late_start_ns(self.rows) + accepting) / NS_PER_MS
        known: Floats = e2e[np.isfinite(e2e)]
        return known

    @cached_property
    def by_loop(self) -> bool:
        """Whether the event loop stamped arrivals, and not the kernel."""
        return bool(one_of(self.reading.frame["clock"], [Clock.LOOP]).any())

    def doubts(self) -> Iterator[Reason]:
        """Yield everything that it did to the load and to the numbers."""
        yield from self._late_or_read_late()
        yield from self._slow()
        yield from self._slow_to_places()
        yield from self._recorded_late()

    def _late_or_read_late(self) -> Iterator[Reason]:
        """Yield what sending late (D3) and reading late (D5) did; the larger part names each number's doubt."""
        late, read = self._split(self._effects())
        level = self._load_moved()
        effects, size = self.tolerance.largest(late)
        effects = tuple(map(self._widened, effects))
        if effects or level is Level.INVALID:
            yield self._sent_late(effects, size, worst(level, Level.WARN))
        effects, size = self.tolerance.largest(read)
        if effects:
            share = float(self.reads.late.mean())
            sentence = f"The load generator read {share:.0%} of the first tokens late{self._cause()}"
            metrics = (*doubted(effects), *_READ)
            yield Reason("arrivals", Level.WARN, _with(sentence, effects), _FREE_CORES, metrics, effects, size)

    def _effects(self) -> list[tuple[Effect, bool]]:
        """Return the possible effects on latencies, each with whether sending late is the main part."""
        first, e2e, effects_on = self.first_tokens, of_each(self.rows)["e2e_ms"], self.tolerance.effects_on
        e2e = np.where(self.rows.censored & ~self.rows.planned_cancel, np.inf, e2e)
        sent_late = np.nan_to_num(late_start_ns(self.rows) / NS_PER_MS)
        whole = ~np.isnan(e2e)
        found = [(one, self._mainly_sent_late(one)) for one in effects_on("ttft_ms", first.shown, first.earliest)]
        found += [(one, True) for one in effects_on("e2e_ms", e2e[whole], (e2e - sent_late)[whole])]
        known = np.isfinite(self.tpot)
        corrected = corrected_tpot(self.rows, self.reads, self.tpot, self.typical_tpot_ms)
        return found + [(one, False) for one in effects_on("tpot_ms", self.tpot[known], corrected[known])]

    def _widened(self, effect: Effect) -> Effect:
        """Return an effect of sending late whose lower end leaves out the server's time to accept the request."""
        least = self.first_tokens.least if effect.metric == "ttft_ms" else self._least_e2e
        return replace(effect, low=min(effect.low, quantile(least, float(effect.statistic[1:]) / 100)))

    def _mainly_sent_late(self, effect: Effect) -> bool:
        p = float(effect.statistic[1:]) / 100
        late = effect.value - quantile(self.first_tokens.from_sent, p)
        return late >= thresholds.MAIN_PART.value * effect.off

    @staticmethod
    def _split(effects: list[tuple[Effect, bool]]) -> tuple[list[Effect], list[Effect]]:
        return [one for one, late in effects if late], [one for one, late in effects if not late]

    def _load_moved(self) -> Level:
        """Return INVALID if so much of an open load was sent late that it was another load."""
        lags = lag_ns(self.rows)[~self.rows.closed] / NS_PER_MS
        lags = lags[np.isfinite(lags)]
        if not len(lags):
            return Level.VALID
        median = float(np.median(lags))
        share = median / max(quantile(self.first_tokens.from_sent, 0.5), 1e-9) if len(self.first_tokens.shown) else 0.0
        level = thresholds.MEDIAN_LAG.level(share) if median >= thresholds.LAG_MS.value else Level.VALID
        moved = moved_share(self.rows, thresholds.PLAN_PART_S.value, int(thresholds.LEAST_MOVED.value))
        return worst(level, thresholds.MOVED_SHARE.level(moved))

    def _sent_late(self, effects: tuple[Effect, ...], size: float, level: Level) -> Reason:
        lags = lag_ns(self.rows)[~self.rows.closed] / NS_PER_MS
        lags = lags[np.isfinite(lags)]
        p50, p99 = quantile(lags, 0.5), quantile(lags, 0.99)
        sentence = f"The load generator sent requests late, p50 {number(p50)} ms, p99 {number(p99)} ms{self._cause()}"
        if level is Level.INVALID:
            sentence += "; the load was not the planned one"
            return Reason(
                "client_late", level, _with(sentence, effects), _FREE_CORES, _FROM_DUE + _RATES, effects, size
            )
        return Reason("client_late", level, _with(sentence, effects), _FREE_CORES, doubted(effects), effects, size)

    def _slow(self) -> Iterator[Reason]:
        """Yield what the turnaround did to the load of users, or to conversations that begin by the plan (D4)."""
        took_ms, share = turnaround(self.rows)
        if not share > self.tolerance.of_rates:
            return
        cycle_ms = number(took_ms / share)
        sentence = f"The load generator took {number(took_ms)} ms of each {cycle_ms} ms to send the next "
        if self.reading.trial.loop == Loop.CLOSED:
            users = int(self.reading.frame["user"].nunique()) or 1
            sentence += f"request{self._cause()}: {share:.0%} less load than {users} user{'s' * (users > 1)}."
            level = worst(thresholds.CLIENT_SLOW.level(share), Level.WARN)
        else:  # the plan's first turns set the load
            sentence += f"turn{self._cause()}: conversations last {share:.0%} longer."
            level = Level.WARN
        size = share / self.tolerance.of_rates
        yield Reason("client_slow", level, sentence, _FREE_CORES, _RATES, (), size)

    def _slow_to_places(self) -> Iterator[Reason]:
        """Yield what its lag did under a cap: while requests wait, each place is empty for that long."""
        took_ms, share = place_turnaround(self.rows)
        if share > self.tolerance.of_rates:
            sentence = f"The load generator took {number(took_ms)} ms to fill a place that requests waited for"
            sentence += f"{self._cause()}: {share:.0%} less load than the cap allows."
            level = worst(thresholds.CLIENT_SLOW.level(share), Level.WARN)
            size = share / self.tolerance.of_rates
            yield Reason("client_slow", level, sentence, _FREE_CORES, _RATES + _FROM_DUE, (), size)

    def _recorded_late(self) -> Iterator[Reason]:
        """Yield how late arrivals were recorded: by the self-check stream, and by a loop that stamps them itself."""
        shown = self.first_tokens.shown
        if not len(shown):
            return
        median = self.readings["canary_p50_ms"] if self.readings["canary_events"] > 0 else math.nan
        effects_on = self.tolerance.effects_on
        effects = [] if math.isnan(median) else effects_on("ttft_ms", shown, np.maximum(shown - median, 0.0))
        level = thresholds.CANARY.level(median / max(quantile(self.first_tokens.from_sent, 0.5), 1e-9))
        late = self.readings["heartbeat_p99_ms"] if self.by_loop else math.nan
        if math.isfinite(late):  # one event in a hundred was stamped as late: only the tail holds it
            tail = effects_on("ttft_ms", shown, np.maximum(shown - late, 0.0))
            effects += [one for one in tail if one.statistic == "p99"]
        kept, size = self.tolerance.largest(effects)
        if kept:
            what = f"the event loop, up to {number(late)} ms late (p99)" if math.isfinite(late) else "a busy reader"
            sentence = _with(f"Arrivals were recorded late by {what}{self._cause()}", kept)
            metrics = (*doubted(kept), *_READ)
            yield Reason("arrivals", worst(level, Level.WARN), sentence, _FREE_CORES, metrics, kept, size)

    def _cause(self) -> str:
        """Return the causes that the machine shows, in brackets; "" if none is known."""
        found = [text for text in self._causes() if text][:2]
        return f" ({'; '.join(found)})" if found else ""

    def _causes(self) -> Iterator[str]:
        readings, busy = self.readings, self.machine.get("host_cpu_share")
        if busy is not None and thresholds.BUSY_MACHINE.level(busy) is not Level.VALID:
            yield f"machine busy: {busy:.0%} of its processors in use"
        if thresholds.THROTTLED_MS.level(readings["throttled_ms"]) is not Level.VALID:
            yield f"its processor quota was used up for {number(readings['throttled_ms'])} ms"
        if thresholds.STEAL.level(readings["steal_share"]) is not Level.VALID:
            yield f"the hypervisor took {readings['steal_share']:.0%} of the processors"
        if thresholds.CLIENT_CPU.level(readings["cpu_peak_share"]) is not Level.VALID:
            yield f"its loop used {readings['cpu_peak_share']:.0%} of a core"
        yield self._waited_for_connections()

    def _waited_for_connections(self) -> str:
        frame = self.reading.frame
        names = ("due_ns", "held_ns", "connected_ns", "sent_ns", "retries")
        due, held, connected, sent, retries = (numbers(frame, name) for name in names)
        waited_ms = np.where(retries > 0, np.nan, connected - due - np.nan_to_num(held)) / NS_PER_MS
        requests, waited = int(np.isfinite(sent).sum()), int((waited_ms > thresholds.CONNECTION_MS.value).sum())
        share = waited / max(1, requests)
        if thresholds.WAITED_FOR_CONNECTION.level(share) is Level.VALID:
            return ""
        return f"{waited} of {requests} requests waited for a new connection"


def _with(sentence: str, effects: tuple[Effect, ...]) -> str:
    """Return the sentence with the largest effect."""
    return f"{sentence}: {in_words(effects[0])}." if effects else f"{sentence}."


def notes(rows: Columns, client: ClientEntry | None, calibration: CalibrationEntry | None) -> Iterator[Reason]:
    """Yield remarks about the load generator that change no verdict."""
    readings = Readings.of(client)
    for name, threshold, what, advice in (
        ("open_files_share", thresholds.OPEN_FILES, "open files", "Raise the hard limit (`ulimit -Hn`)."),
        ("ports_share", thresholds.PORTS, "ports", "Widen net.ipv4.ip_local_port_range, or let connections be reused."),
    ):
        sentence = f"The load generator used {readings[name]:.0%} of the {what} that this machine gives it."
        yield from threshold.reasons(readings[name], sentence, advice, note=True)
    if client is None or calibration is None or not readings["connections_opened"] > 0:
        return
    sentence_ = beyond(calibration, *largest_load(rows), workers=max(1, len(client.workers)))
    if sentence_ is not None:
        advice = "Use more load processes (`workers`), or calibrate for more with `harness doctor`."
        yield Reason("beyond_calibration", Level.VALID, sentence_, advice)


def largest_load(rows: Columns) -> tuple[float | None, float | None]:
    """Return the most replies at once, and chunks per second from the first request to the last end; None: unknown."""
    sent, ended = rows.times["sent"], rows.ended
    known = np.isfinite(sent) & np.isfinite(ended)
    if not known.any():
        return None, None
    begun, over = np.sort(sent[known]), np.sort(ended[known])
    at_once = int((np.arange(1, len(begun) + 1) - np.searchsorted(over, begun, side="right")).max())
    seconds = (over[-1] - begun[0]) / 1e9
    return float(at_once), float(rows.each.sizes.sum()) / seconds if seconds > 0 else None
