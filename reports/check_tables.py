"""What was looked at to find out whether the numbers of a trial can be believed, and what was seen, all well or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reports.format import amount, seconds
from reports.tables import Cell, Table

LATE_SHARE = 0.05
_STATES = {"steady": "good", "warm-up": "doubtful", "drift": "doubtful"}
_PRESSURES = (
    ("swapped_bytes", "memory swapped on the machine", "bytes"),
    ("engine_major_faults", "pages the engine waited for from disk", "number"),
    ("throttled_s", "time the engine's control group was held back, s", "number"),
)


def checks(facts: Mapping[str, Any]) -> Table:
    """One row per check: steadiness, queue, sample size, tokens, books, the machine, the readings themselves."""
    rows = [
        *_steady(facts),
        *_queue(facts),
        *_sizes(facts),
        *_tokens(facts),
        *_books(facts),
        *_machine(facts),
        *_readings(facts),
    ]
    lines = [(Cell(name), Cell(what, tone=tone)) for name, what, tone in rows]
    return Table("Checks", ("check", "what was seen"), lines, texts=2)


def _steady(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    told = facts.get("steady") or {}
    kind, reason = told.get("class"), told.get("reason")
    if kind:
        cut_s = told.get("warmup_s")
        warming = f"; the first {seconds(cut_s)} of the window still warmed up" if cut_s else ""
        why = f" ({reason})" if reason else ""
        yield "steady state", f"{kind}{why}{warming}", _STATES.get(kind, "")
    elif reason:
        yield "steady state", f"not looked at: {reason}", ""
    for metric, trend in (told.get("trends") or {}).items():
        change = trend.get("change")
        if change is not None:
            chance = trend.get("p_value")
            by_chance = f", by chance with p = {amount(chance)}" if chance is not None else ""
            yield f"trend of {metric}", f"{change:+.1%} over the window{by_chance}", ""


def _queue(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    told = facts.get("queue") or {}
    if told.get("reason"):
        yield "queueing", f"not looked at: {told['reason']}", ""
    elif told.get("queueing"):
        states = told.get("n_eff_in_flight")
        worth = f"the window is worth {amount(states)} independent states of the queue" if states is not None else ""
        applied = "intervals are widened for it" if told.get("applied") else "intervals need not be widened"
        yield "queueing", "; ".join(part for part in ("requests wait for each other", worth, applied) if part), ""
    elif "queueing" in told:
        yield "queueing", "requests hardly wait for each other", "good"


def _sizes(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for statistic, told in (facts.get("sample_size") or {}).items():
        have = f"{told['n']} requests are worth {amount(told['have'])} independent ones"
        more = f"a point needs {told['needed']}: {amount(told['times_longer'])} times as many"
        yield f"{statistic} is a bound", f"{have}; {more}", "doubtful"


def _tokens(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    told = facts.get("tokens") or {}
    counted_by = told.get("counted_by") or {}
    if counted_by:
        counts = (f"{name}: {number} {'reply' if number == 1 else 'replies'}" for name, number in counted_by.items())
        yield "tokens counted by", ", ".join(counts), ""
    compared = (
        ("chunks", "chunks against that count"),
        ("text", "text, by tokenizer, against that count"),
        ("prompts", "prompts, by the server, against the plan"),
    )
    for name, words in compared:
        differs = told.get(name)
        if differs:
            text = f"{differs['median_share']:+.2%} (median), {differs['worst_share']:+.2%} at worst"
            yield words, f"{text}, of {differs['replies']} replies", ""
    fidelity = told.get("length_fidelity")
    if fidelity:
        text = f"{amount(fidelity['share'], show='share')} of {fidelity['replies']} replies as long as asked"
        yield "length of replies", text, ""


def _books(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for line in facts.get("books") or ():
        least, most = line["client"], line["client_most"]
        client = amount(least) if least == most else f"{amount(least)} to {amount(most)}"
        both = f"{client} by the client, {amount(line['server'])} by the server"
        yield f"books: {line['what']}", f"{both}: {line['difference_share']:+.2%} apart ({line['source']})", ""


def _machine(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    told = (facts.get("telemetry") or {}).get("window") or {}
    if (cores := told.get("engine_cpu_cores")) is not None:
        yield "cores the engine kept busy", amount(cores), ""
    for name, words, show in _PRESSURES:
        if (value := told.get(name)) is not None:
            yield words, amount(value, show=show) if value else "none", "doubtful" if value else "good"


def _readings(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    told = facts.get("telemetry") or {}
    sampler = told.get("sampler") or {}
    if sampler.get("ticks"):
        late, cost = sampler.get("late_ticks") or 0, sampler.get("cpu_share")
        busy = f", {amount(cost, show='share')} of a core" if cost is not None else ""
        every = f" every {seconds(sampler['interval_s'])}" if sampler.get("interval_s") else ""
        yield (
            "readings of the machine",
            f"{sampler['ticks']}{every}, {late} late{busy}",
            "doubtful" if late > LATE_SHARE * sampler["ticks"] else "",
        )
    for sentence in told.get("unread") or ():
        yield "not read", str(sentence), ""
