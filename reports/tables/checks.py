"""Tables of a trial's checks, passed or not, and of a run's caveats, missing measurements and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ReportData, keys_of
from reports.format import amount, seconds
from reports.names import namer
from reports.tables.base import TONES, Cell, Table, cell_name, counted, data_quality, trial_name

_VARYING = re.compile(r"0x[0-9a-fA-F]+|\d+")

_STATES = {"steady": "good", "warm-up": "doubtful", "drift": "doubtful"}
LEAST_EXPLAINED = 0.01
LEVELS = ("invalid", "warn", "valid")
_PRESSURES = (
    ("swapped_bytes", "memory swapped on the machine", "bytes"),
    ("engine_major_faults", "major page faults of the engine", "number"),
    ("throttled_s", "CPU throttling of the engine's control group, s", "number"),
)


def checks(facts: Mapping[str, Any], late_readings_above: float = 1.0) -> Table:
    """Return one row per check: steady state, queue, sample sizes, tokens, counts, the machine, its readings."""
    of_requests = (_steady(facts), _queue(facts), _sizes(facts), _tokens(facts), _books(facts))
    rows = chain(*of_requests, _machine(facts), _readings(facts, late_readings_above))
    lines = [(Cell(name), Cell(what, tone=tone)) for name, what, tone in rows]
    return Table("Checks", ("check", "finding"), lines, texts=2)


def _steady(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    steady = facts.get("steady") or {}
    kind, reason = steady.get("class"), steady.get("reason")
    if kind:
        cut_s = steady.get("warmup_s")
        warming = f"; the first {seconds(cut_s)} of the window are still warm-up" if cut_s else ""
        why = f" ({reason})" if reason else ""
        yield "steady state", f"{kind}{why}{warming}", _STATES.get(kind, "")
    elif reason:
        yield "steady state", f"not checked: {reason}", ""
    for metric, trend in (steady.get("trends") or {}).items():
        change = trend.get("change")
        if change is not None:
            chance = trend.get("p_value")
            by_chance = f", p = {amount(chance)}" if chance is not None else ""
            yield f"trend of {metric}", f"{change:+.1%} over the window{by_chance}", ""


def _queue(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    queue = facts.get("queue") or {}
    if queue.get("reason"):
        yield "queueing", f"not checked: {queue['reason']}", ""
    elif queue.get("rounds"):
        yield "closed loop", f"intervals are those of {queue['rounds']} rounds of all users", ""
    elif queue.get("states") is not None:
        begin, end = facts["window"]["start_s"], facts["window"]["end_s"]
        yield "requests in flight", f"{amount(queue['states'])} independent states in {seconds(end - begin)}", ""


def _sizes(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the quantiles whose interval is open."""
    for statistic, size in (facts.get("sample_size") or {}).items():
        if size["times_longer"] <= 1:
            continue
        have = f"open: effective sample size {amount(size['n_eff'])} of {size['n']} requests"
        if size["explained"] >= LEAST_EXPLAINED:
            have += f" (those in flight explain {amount(size['explained'], show='share')})"
        closed = f"both ends need {size['needed']}, {amount(size['times_longer'])} times as many"
        yield f"interval of {statistic}", f"{have}; {closed}", ""


def _tokens(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    tokens = facts.get("tokens") or {}
    if counted_by := tokens.get("counted_by"):
        counts = (f"{name}: {number} {'reply' if number == 1 else 'replies'}" for name, number in counted_by.items())
        yield "tokens counted by", ", ".join(counts), ""
    compared = (
        ("chunks", "chunks vs. that count"),
        ("text", "text (by tokenizer) vs. that count"),
        ("prompts", "prompts (by the server) vs. the schedule"),
    )
    for name, words in compared:
        if differs := tokens.get(name):
            text = f"{differs['median_share']:+.2%} (median), {differs['worst_share']:+.2%} at worst"
            yield words, f"{text}, of {differs['replies']} replies", ""
    if fidelity := tokens.get("length_fidelity"):
        text = f"{amount(fidelity['share'], show='share')} of {fidelity['replies']} replies as long as requested"
        yield "length of replies", text, ""


def _books(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for line in facts.get("books") or ():
        least, most = line["client"], line["client_most"]
        client = amount(least) if least == most else f"{amount(least)} to {amount(most)}"
        both = f"load generator {client}, server {amount(line['server'])}"
        yield f"counts: {line['what']}", f"{both}: difference {line['difference_share']:+.2%} ({line['source']})", ""


def _machine(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    window = (facts.get("telemetry") or {}).get("window") or {}
    if (cores := window.get("engine_cpu_cores")) is not None:
        yield "processor cores used by the engine", amount(cores), ""
    for name, words, show in _PRESSURES:
        if (value := window.get(name)) is not None:
            yield words, amount(value, show=show) if value else "none", "doubtful" if value else "good"


def _readings(facts: Mapping[str, Any], late_above: float) -> Iterator[tuple[str, str, str]]:
    telemetry = facts.get("telemetry") or {}
    sampler = telemetry.get("sampler") or {}
    if sampler.get("ticks"):
        late, cost = sampler.get("late_ticks") or 0, sampler.get("cpu_share")
        busy = f", {amount(cost, show='share')} of a core" if cost is not None else ""
        every = f" every {seconds(sampler['interval_s'])}" if sampler.get("interval_s") else ""
        tone = "doubtful" if late > late_above * sampler["ticks"] else ""
        yield "readings of the machine", f"{sampler['ticks']}{every}, {late} late{busy}", tone
    for sentence in telemetry.get("unread") or ():
        yield "not read", str(sentence), ""


def reasons(data: ReportData) -> Table:
    """Return a row for each kind of caveat, poor data first, notes last, with the numbers of its first trial."""
    kinds: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {}
    for cell, trial in data.trials():
        judged = data.validity_of(cell.id, trial.id) or {}
        for reason in (*judged.get("reasons", ()), *judged.get("notes", ())):
            kinds.setdefault((reason["level"], reason["code"]), []).append((trial_name(cell, trial, data), reason))
    ordered = sorted(kinds.items(), key=lambda kind: LEVELS.index(kind[0][0]))
    lines = [_reasons_line(level, found, len(data.validity)) for (level, _), found in ordered]
    return Table("All caveats", ("data", "where", "finding", "action"), lines, texts=4)


def _reasons_line(level: str, found: Sequence[tuple[str, dict[str, Any]]], trials: int) -> tuple[Cell, ...]:
    """Return the row of (where, reason) of one kind; trials: number of judged trials."""
    where, first = found[0]
    judged = data_quality(level) if level != "valid" else Cell("note")
    places = list(dict.fromkeys(where for where, _ in found))
    if len(places) == 1:
        return judged, Cell(where), Cell(_joined(found, "sentence")), Cell(_joined(found, "advice"))
    many = f"in all {trials} trials" if len(places) == trials else f"in {len(places)} of {trials} trials"
    seen, advice = first["sentence"], first["advice"]
    other_sentences, other_advice = (len({reason[name] for _, reason in found}) > 1 for name in ("sentence", "advice"))
    if other_sentences:
        seen = f"For example {where}: {seen}"
    if other_advice:
        advice = f"{'In that trial' if other_sentences else f'For {where}'}: {advice[:1].lower()}{advice[1:]}"
    folded = tuple(f"{where}: {reason['sentence']} {reason['advice']}".rstrip() for where, reason in found)
    return judged, Cell(many, folded=folded), Cell(seen), Cell(advice)


def _joined(found: Sequence[tuple[str, dict[str, Any]]], name: str) -> str:
    return " ".join(dict.fromkeys(reason[name] for _, reason in found))


def not_run(data: ReportData) -> Table:
    """Return cells and trials that were skipped, failed, interrupted or never began."""
    lines = []
    for cell in data.manifest.cells:
        broken = [trial for trial in cell.trials if trial.status != "complete"]
        whole = len(broken) == len(cell.trials) and {trial.reason for trial in broken} <= {cell.reason}
        if cell.status != "complete" and whole:
            lines.append(_not_run_line(cell_name(cell, data), "all loads", cell))
            continue
        lines += [_not_run_line(cell_name(cell, data), trial.load, trial) for trial in broken]
    return Table("Not measured", ("configuration", "load", "status", "reason"), lines, texts=4)


def _not_run_line(where: str, load: str, entry: CellEntry | TrialEntry) -> tuple[Cell, ...]:
    status = Cell(entry.status, tone=TONES.get(entry.status, ""))
    return Cell(where), Cell(load), status, Cell(entry.reason or "no reason was recorded")


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """Failures of one kind under one load, repetitions together.

    Attributes:
        requests: Of all phases; `measured`: those in the measurement.
        when: From the first to the last failure, as seconds of the trial.
    """

    kind: str
    where: str
    requests: int
    measured: int
    when: str
    example: str


def errors_of(data: ReportData) -> list[ErrorKind]:
    """Return the kinds of failed requests, the most frequent first."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    name = namer(data)
    for cell, trial in data.trials():
        for error in data.facts_of(cell.id, trial.id).get("errors", ()):
            code = f" {error['http_status']}" if error["http_status"] is not None else ""
            kind = f"{error['status'].replace('_', ' ')}{code}"
            alike = _VARYING.sub("#", error["example"])
            found.setdefault((kind, name(keys_of(cell, trial.load)), alike), []).append(error)
    made = [
        ErrorKind(
            kind,
            where,
            sum(one["requests"] for one in errors),
            sum(one.get("measured", one["requests"]) for one in errors),
            when(errors),
            errors[0]["example"] or "no message",
        )
        for (kind, where, _), errors in found.items()
    ]
    return sorted(made, key=lambda one: -one.requests)


def errors(data: ReportData) -> Table:
    """Return the kinds of failed requests, with their number, an example and their time."""
    lines = [
        (
            Cell(one.kind, tone="bad"),
            Cell(one.where),
            counted(one.measured),
            counted(one.requests - one.measured),
            Cell(one.when),
            Cell(one.example),
        )
        for one in errors_of(data)
    ]
    head = ("kind", "where", "measured", "in warm-up or cooldown", "when", "example")
    return Table("Errors", head, [*lines, *_attempts(data)], texts=6)


def _attempts(data: ReportData) -> Iterator[tuple[Cell, ...]]:
    """Yield a line for each cause of failed attempts, which others followed: their number, and how long each took."""
    name = namer(data)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell, trial in data.trials():
        for one in data.facts_of(cell.id, trial.id).get("retries", {}).get("failed", ()):
            found.setdefault((one["cause"], name(keys_of(cell, trial.load))), []).append(one)
    for (cause, where), some in found.items():
        measured, attempts = (sum(one[key] for one in some) for key in ("measured", "attempts"))
        lasted = [one for one in some if one["p50_ms"] is not None]
        took = "was not sent"
        if lasted:
            medians = [one["p50_ms"] for one in lasted]
            ends = dict.fromkeys((amount(min(medians)), amount(max(medians))))
            took = f"took {' to '.join(ends)} ms (median), {amount(max(one['max_ms'] for one in lasted))} ms at most"
        yield (
            Cell(f"{cause}, sent again"),
            Cell(where),
            counted(measured),
            counted(attempts - measured),
            Cell(when([one | {"ended": False} for one in some])),
            Cell(f"each {took}"),
        )


def when(errors: Sequence[Mapping[str, Any]]) -> str:
    """Return the time of failures of a kind, in one repetition or several."""
    known = [(one["first_s"], one["last_s"]) for one in errors if one["first_s"] is not None]
    if not known:
        return "at an unknown time"
    first, last = min(one for one, _ in known), max(one for _, one in known)
    if all(one["ended"] for one in errors):
        return f"from {seconds(first)} on, none succeeded after"
    return f"at {seconds(first)}" if first == last else f"between {seconds(first)} and {seconds(last)}"
