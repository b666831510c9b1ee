"""Answer of a run: its subject, its verdict, and one line per label with the limits, the knee, the choice, the data."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath

from harness.store.manifest import CellEntry
from reports import caveats
from reports.costs import costs_in_words
from reports.data import ReportData, keys_of, keys_of_verdict
from reports.format import UNKNOWN, amount, clock, count, dotted, grouped, joined
from reports.names import ended, listed, noun
from reports.sweeps import (
    JUDGED_BY,
    LEAST_LOADS,
    PROMPT,
    RATE,
    Sweep,
    latency_of,
    names_of,
    sweeps_of,
    sweeps_of_lengths,
)
from reports.tables import checks, decision, fits, quality, saturation
from reports.tables.base import TONES, nan, trial_name
from reports.tables.limits import SIGNS, rows

EXITS = {
    3: ("FAILED", "part of the run has no result"),
    4: ("POOR DATA", "the load was not the planned one"),
    6: ("CANNOT TELL", ""),
    130: ("INTERRUPTED", "what was measured is kept"),
}
HOLDS = "one configuration meets every limit (decide: any)"
POOR = 4
NOT_OF_LIMITS = (3, 130)  # exit codes that come before those of limits
MOST_LIMITS, MOST_LINES = 8, 3
OF_QUALITY = (
    ("kl_mean", "KL"),
    ("kl_bound", "KL at least"),
    ("top1_agreement", "same top token"),
    ("ppl_ratio", "perplexity ratio"),
)
LEAST_STARTUP_S = 0.01
SPEED = ("output_tokens_per_s", "value", "", "output tokens/s")
_HARMLESS = ("ok", "cancelled")


@dataclass(frozen=True, slots=True)
class Line:
    """Line of the answer.

    Attributes:
        label: SATURATION, LIMITS, KNEE, LENGTHS, FIT, COST, RECOMMENDED, QUALITY, LOAD, DATA, ERRORS, NOT RUN or
            ENGINE; those of one label stand together.
        parts: Texts, which terminals align in columns.
        tone: Of the first part.
    """

    label: str
    parts: tuple[str, ...]
    tone: str = ""


def verdict(data: ReportData) -> tuple[str, str, str]:
    """Return the verdict, its explanation and its tone; empty texts if no limit is set and nothing went wrong."""
    outcomes = [row.outcome for row in rows(data)]
    kinds = ("fail", "invalid", "cannot_tell", "pass")
    kind = next((kind for kind in kinds if kind in outcomes), "")
    if kind not in ("", "pass") and _one_holds(data):
        word, why = EXITS.get(data.exit_code or 0, ("PASS", ""))
        return word, "; ".join(part for part in (why, HOLDS) if part), "bad" if why else "good"
    if kind and kind != "pass":
        word = {"fail": "FAIL", "invalid": "POOR DATA", "cannot_tell": "CANNOT TELL"}[kind]
        of = f"{outcomes.count(kind)} of {count(len(outcomes), 'limit')}"
        of += {"invalid": " could not be judged", "fail": ", poor data" if data.exit_code == POOR else ""}.get(kind, "")
        return word, of, TONES[kind]
    if data.exit_code in EXITS:
        return *EXITS[data.exit_code], "bad"
    if kind:
        return "PASS", count(len(outcomes), "limit") if len(outcomes) == 1 else f"all {len(outcomes)} limits", "good"
    return "", "", ""


def _one_holds(data: ReportData) -> bool:
    """Return whether limits are broken, but not by a configuration that may be chosen."""
    if data.exit_code not in NOT_OF_LIMITS or data.manifest.scenario_keys.decide != "any":
        return data.exit_code == 0
    failed = {
        cell.keys for cell, trial in data.trials() if (data.validity_of(cell.id, trial.id) or {}).get("load_failed")
    }
    outcomes: dict[tuple[str, ...], set[str]] = {}
    for one in data.verdicts:
        outcomes.setdefault(keys_of_verdict(one)[:-1], set()).add(one["outcome"])
    return any(found == {"pass"} and keys not in failed for keys, found in outcomes.items())


def headline(data: ReportData) -> str:
    """Return verdict, end of the run, quality of the data and exit code in one line."""
    word, why, _ = verdict(data)
    without_trials = "quality only" if quality.scored(data) else "nothing measured"
    found = [" ".join(part for part in (word, why) if part), how_it_ended(data)]
    word = caveats.quality(data)
    found.append(f"data: {word}" if word else without_trials)
    found.append("" if data.exit_code is None else f"exit code {data.exit_code}")
    return dotted(found)


def how_it_ended(data: ReportData) -> str:
    """Return how the run ended, in words; "" if it is complete or the verdict says so."""
    status, word = str(data.manifest.status), verdict(data)[0]
    if status == "complete" or status.upper() == word:
        return ""
    return {"failed": "the run failed", "interrupted": "interrupted"}.get(status, f"the run is {status}")


def subject(data: ReportData) -> str:
    """Return models, quantizations, engines with versions, and servers."""
    cells = [cell for cell in data.manifest.cells if cell.status != "skipped"] or data.manifest.cells
    told = list(dict.fromkeys(_engine(cell) for cell in cells))
    names = (name for name in told if not any(other.startswith(f"{name} ") for other in told))
    urls = (_url(cell) for cell in cells)
    at = listed(url for url in urls if url)
    served = [cell.engine_info.options for cell in cells if _url(cell)]
    about = [listed(str(options.get("dialect") or "") for options in served)]
    about += ["TLS not verified"] if any(_unverified(options.get("tls")) for options in served) else []
    server = f"@ {at}" + (f" ({', '.join(filter(None, about))})" if any(about) else "") if at else ""
    what = dotted((listed(_model(cell) for cell in cells), listed(cell.level or "" for cell in cells), listed(names)))
    return " ".join(part for part in (what, server) if part)


def _model(cell: CellEntry) -> str:
    """Return the model of the scenario, or the one that its server names."""
    return cell.model or (cell.engine_info.model or "" if _url(cell) else "")


def _engine(cell: CellEntry) -> str:
    """Return an engine with its version; of a server its version alone, if it tells one."""
    version = cell.engine_info.version or ""
    if _url(cell):
        return version or ("" if _model(cell) else "server")
    return " ".join(part for part in (cell.engine, version) if part)


def _unverified(tls: object) -> bool:
    """Return whether the certificate of a server was not checked."""
    return isinstance(tls, dict) and tls.get("verify") is False


def _url(cell: CellEntry) -> str:
    url = cell.engine_info.options.get("url") or ""
    return listed(map(str, url)) if isinstance(url, list) else str(url)


def totals(data: ReportData) -> list[str]:
    """Return the numbers of loads, measured requests and failures, and the time of the run."""
    done = [(cell, trial) for cell, trial in data.trials() if data.facts_of(cell.id, trial.id)]
    if not done:
        return ["quality only" if quality.scored(data) else "nothing measured"]
    statuses: Counter[str] = Counter()
    for cell, trial in done:
        statuses.update(data.facts_of(cell.id, trial.id)["statuses"])
    unsent = statuses.pop("not_sent", 0)
    failed = sum(number for status, number in statuses.items() if status not in _HARMLESS)
    loads = len({keys_of(cell, trial.load) for cell, trial in done})
    tried = count(loads, "load") if noun(data) == "load" else count(len(done), "trial")
    words = [tried, count(sum(statuses.values()), "request")]
    words += [f"{grouped(str(failed))} failed", *([f"{unsent} never sent"] if unsent else [])]
    took_s = _took_s(data)
    return words + ([clock(took_s)] if took_s else [])


def _took_s(data: ReportData) -> int:
    """Return the time from the first start of an engine to the last end of a trial, summed over the sessions."""
    spans: dict[int, list[int]] = {}
    for _, trial in data.trials():
        if trial.begun_ns and trial.ended_ns:
            began_ns = (trial.start.began_ns if trial.start else None) or trial.begun_ns
            spans.setdefault(trial.session or 1, []).extend((min(began_ns, trial.begun_ns), trial.ended_ns))
    return round(sum(max(span) - min(span) for span in spans.values()) / 1e9)


def when_and_where(data: ReportData) -> list[str]:
    """Return the date of a run, its machine, and the labels that its user gave it."""
    machine = data.manifest.provenance.must_match
    gpus = Counter(str(gpu) for gpu in machine.gpus)
    cores = machine.usable_cores or machine.cores
    parts = [machine.cpu or "", count(cores, "core") if cores else ""]
    parts += [f"{number} x {name}" if number > 1 else name for name, number in gpus.items()]
    labels = (f"{name} {value}" for name, value in data.manifest.labels.items())
    return [text for text in (_date(data), ", ".join(part for part in parts if part), *labels) if text]


def _date(data: ReportData) -> str:
    """Return when a run began: "2 Jan 2026, 03:04 UTC"."""
    if not data.manifest.created_utc:
        return ""
    at = datetime.fromisoformat(str(data.manifest.created_utc)).astimezone(UTC)
    return f"{at.day} {at:%b %Y, %H:%M} UTC"


def next_command(data: ReportData, report: str = "") -> str:
    """Return the command that goes on from here; "" if there is none."""
    if report and str(data.manifest.status) == "interrupted":
        return f"harness run --resume {shlex.quote(data.run or str(PurePath(report).parent))}"
    return ""


def lines(data: ReportData) -> list[Line]:
    """Return the lines below the results table."""
    makers = (_saturation, _limits, _knees, _lengths, _fits, _costs, _recommended, _quality, _load, _data, _errors)
    return [line for make in (*makers, _not_run, _engines) for line in make(data)]


def _saturation(data: ReportData) -> Iterator[Line]:
    """Yield the largest rate that each search found, and the largest number of users of each sweep by users."""
    found = [(one, fact) for one in data.trials() if (fact := data.facts_of(one[0].id, one[1].id).get("saturation"))]
    for (cell, trial), fact in found[:MOST_LINES]:
        where = f"{trial_name(cell, trial, data)}: " if len(found) > 1 else ""
        tone = {"yes": "good", "no": "bad"}.get(fact["confirmed"] or "", "")
        yield Line("SATURATION", (where + saturation.in_words(fact),), tone)
    names = names_of(data) if data.users else {}
    kinds = {one["kind"] for one in data.users}
    for one in data.users[:MOST_LINES]:
        name = names.get(tuple(one["keys"]), "") if len(names) > 1 else ""
        where = dotted((name, one["kind"] if len(kinds) > 1 else ""))
        text = saturation.users_in_words(one)
        yield Line("SATURATION", (f"{where}: {text}" if where else text,))


def _limits(data: ReportData) -> Iterator[Line]:
    found = rows(data)
    for row in found[:MOST_LIMITS]:
        others = " ".join(f"{SIGNS[kind]} {names}" for kind, names in row.others)
        why = ended(row.why) if row.outcome == "invalid" or not row.measured else ""
        case = ": ".join(part for part in (row.place, " ".join(part for part in (row.measured, why) if part)) if part)
        yield Line("LIMITS", (f"{SIGNS[row.outcome]} {row.text}", case, others), TONES.get(row.outcome, "bad"))
    if len(found) > MOST_LIMITS:
        yield Line("LIMITS", (f"{len(found) - MOST_LIMITS} more in report.html",))


def _knees(data: ReportData) -> Iterator[Line]:
    sweeps, names = sweeps_of(data), names_of(data)
    cases = [(sweep, keys) for sweep in sweeps for keys, own in sweep.loads.items() if len(own) >= LEAST_LOADS]
    for sweep, keys in cases[:MOST_LINES]:
        several = (names[keys] if len(names) > 1 else "", sweep.whole_kind if len(sweeps) > 1 else "")
        where = dotted(several)
        text = knee_in_words(sweep, keys)
        yield Line("KNEE", (f"{where}: {text}" if where else text,))


def _lengths(data: ReportData) -> Iterator[Line]:
    """Yield what longer prompts or replies did to latency and throughput."""
    names = names_of(data)
    cases = [(sweep, keys) for sweep in sweeps_of_lengths(data) for keys, own in sweep.loads.items() if len(own) > 1]
    for sweep, keys in cases[:MOST_LINES]:
        where = dotted((names[keys] if len(names) > 1 else "", sweep.whole_kind))
        if text := lengths_in_words(sweep, keys):
            yield Line("LENGTHS", (f"{where}: {text}",))


def lengths_in_words(sweep: Sweep, keys: tuple[str, ...]) -> str:
    """Return the numbers of the shortest and the longest: "prompt 128 to 2048 tokens: TTFT p95 53 to 410 ms".

    Of longer replies E2E tells, and not TTFT. "" if no number is known of both, on good data.
    """
    first, last = sweep.loads[keys][0], sweep.loads[keys][-1]
    metric = latency_of(sweep.loads[keys]) if sweep.axis == PROMPT else "e2e_ms"
    found = []
    for name, statistic, label, unit in ((metric, "p95", f"{JUDGED_BY[metric]} p95", "ms"), SPEED):
        ends = [one for load in (first, last) if (one := load.get(name, statistic)) and not one.poor]
        if len(ends) == 2:
            shown = " to ".join(f"{one.sign}{amount(one.value)}" for one in ends)
            found.append(f"{label} {shown} {unit}".strip())
    return f"{sweep.axis} {first.x:.0f} to {last.x:.0f} tokens: {joined(found)}" if found else ""


def _fits(data: ReportData) -> Iterator[Line]:
    """Yield the curves through the loads of sweeps."""
    for where, text in fits.lines(data)[:MOST_LINES]:
        yield Line("FIT", (f"{where}: {text}" if where else text,))


def knee_in_words(sweep: Sweep, keys: tuple[str, ...]) -> str:
    """Return between which loads the knee of a configuration lies, or how far there is none."""
    unit = "req/s" if sweep.axis == RATE else "users"
    if one := sweep.knees().get(keys):
        return f"between {one.below:g} and {one.above:g} {unit}: {one.why}"
    own = sweep.loads[keys]
    metric = latency_of(own)
    first, last = own[0].get(metric, "p95"), own[-1].get(metric, "p95")
    text = f"none up to {own[-1].x:g} {unit}"
    if first is None or last is None or first.censored or not first.value > 0:
        return text
    least = "at least " if last.censored else ""
    times = f"{least}{last.value / first.value:.2g} times"
    return f"{text}: {JUDGED_BY[metric]} p95 is {times} that at {own[0].x:g} {unit}"


def _costs(data: ReportData) -> Iterator[Line]:
    yield from (Line("COST", (text,)) for text in list(costs_in_words(data))[:MOST_LINES])


def _recommended(data: ReportData) -> Iterator[Line]:
    for table in decision.decisions(data)[:MOST_LINES]:
        advice = table["recommendation"]
        tone = "good" if advice["outcome"] == "choice" else ""
        yield Line("RECOMMENDED", (advice["sentence"].removeprefix("Recommended: "),), tone)


def _load(data: ReportData) -> Iterator[Line]:
    """Yield what the scenario asked to be done to the load beside its rate or users."""
    yield from (Line("LOAD", (text,)) for text in caveats.of_the_load(data))


def _data(data: ReportData) -> Iterator[Line]:
    word = caveats.quality(data)
    if not word:
        return
    first, *others = caveats.summary(data) or [""]
    yield Line("DATA", (dotted((word, first)),), TONES[caveats.level(data)])
    yield from (Line("DATA", (text,)) for text in others)


def _quality(data: ReportData) -> Iterator[Line]:
    """Yield the figures of a run without loads; beside loads, the decision table has them."""
    if data.facts:
        return
    table = quality.detail(data)
    for name, *cells in table.rows[:MOST_LINES]:
        known = dict(zip(table.about[1:], (cell.text for cell in cells), strict=False))
        texts = (f"{words} {known[metric]}" for metric, words in OF_QUALITY if known.get(metric, UNKNOWN) != UNKNOWN)
        yield Line("QUALITY", (name.text, dotted(texts)))
    if len(table.rows) > MOST_LINES:
        yield Line("QUALITY", (f"{len(table.rows) - MOST_LINES} more in report.html",))


def _errors(data: ReportData) -> Iterator[Line]:
    found = checks.errors_of(data)
    for error in found[:MOST_LINES]:
        number = f"{error.measured} x {error.kind}"
        if outside := error.requests - error.measured:
            number += f" (and {outside} in warm-up or cooldown)"
        yield Line("ERRORS", (number, f"{error.where}, {error.when}: {error.example}"), "bad")
    if len(found) > MOST_LINES:
        yield Line("ERRORS", (f"{len(found) - MOST_LINES} more kinds in report.html",))


def _not_run(data: ReportData) -> Iterator[Line]:
    found = checks.not_run(data).rows
    for where, load, status, reason in found[:MOST_LINES]:
        yield Line("NOT RUN", (f"{where.text}, {load.text}: {status.text}: {ended(reason.text)}",), status.tone)
    if len(found) > MOST_LINES:
        yield Line("NOT RUN", (f"{len(found) - MOST_LINES} more in report.html",))


_OF_ENGINE = (
    ("weights", "weight_bytes", "bytes", ""),
    ("memory", "memory_peak_bytes", "bytes", ""),
    ("GPU memory", "gpu_memory_peak_bytes", "bytes", ""),
    ("startup", "load_s", "number", " s"),
    ("first request", "first_request_ms", "number", " ms"),
)


def _engines(data: ReportData) -> Iterator[Line]:
    """Yield the needs of engines that are not compared with others; the decision table has those of the others."""
    alone = [table["rows"][0] for table in data.decisions if len(table["rows"]) == 1]
    for row in alone[:MOST_LINES]:
        known = [(words, nan(row["values"][name]["value"]), show, unit) for words, name, show, unit in _OF_ENGINE]
        texts = [
            f"{words} {amount(value, show=show)}{unit}"
            for words, value, show, unit in known
            if math.isfinite(value) and (words != "startup" or value >= LEAST_STARTUP_S)
        ]
        if texts:
            name = f"{row['label']}: " if len(alone) > 1 else ""
            yield Line("ENGINE", (name + dotted(texts),))
