"""Answer of a run: a headline, and a paragraph with scope, decision, speed, limits and the main caveat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ALL, KEYS, ReportData, keys_of_verdict, place
from reports.format import THIN, UNKNOWN, count, dotted, estimate, interval, joined
from reports.labels import DATA
from reports.tables import decision, quality
from reports.tables.base import Rows, by_class, groups


@dataclass(frozen=True, slots=True)
class Figure:
    """Number of the answer, with words before it, and words or a unit after it."""

    before: str
    metric: str
    statistic: str = "value"
    show: str = "number"
    after: str = ""


SPEED = (
    Figure("", "output_tokens_per_s", after=" output tokens/s"),
    Figure("", "completed_rps", after=" requests/s"),
    Figure("time to first token p50 ", "ttft_ms", "p50", after=f"{THIN}ms"),
    Figure("p95 ", "ttft_ms", "p95", after=f"{THIN}ms"),
    Figure("time per token p50 ", "tpot_ms", "p50", after=f"{THIN}ms"),
)
RANGES = (  # the first of each group that is known in two trials or more
    [Figure("output tokens/s", "output_tokens_per_s")],
    [Figure(f"time to first token {one}", "ttft_ms", one, after=f"{THIN}ms") for one in ("p95", "p50")],
)
MOST_TRIALS = 2
MOST_NAMES = 4
_HARMLESS = ("ok", "cancelled")


def headline(data: ReportData) -> str:
    """Return the quality of the data, limits and exit code in one line."""
    without_trials = "quality only" if quality.scored(data) else "nothing measured"
    words = [f"data: {DATA[data.verdict()]}" if data.verdict() else without_trials]
    outcomes = [verdict["outcome"] for verdict in data.verdicts]
    kinds = [kind for kind in ("fail", "invalid", "cannot_tell", "pass") if kind in outcomes]
    if kinds:
        words.append("limits: " + ", ".join(f"{outcomes.count(kind)} {kind.replace('_', ' ')}" for kind in kinds))
    if data.manifest.status != "complete":
        status = str(data.manifest.status)
        words.append({"failed": "the run failed", "interrupted": "interrupted"}.get(status, f"the run is {status}"))
    if data.exit_code is not None:
        words.append(f"exit code {data.exit_code}{_why_zero(data)}")
    return " · ".join(words)


def _why_zero(data: ReportData) -> str:
    """Return the reason for exit code 0 although a trial is invalid or a limit violated."""
    bad = data.verdict() == "invalid" or any(one["outcome"] in ("fail", "invalid") for one in data.verdicts)
    explained = bad and data.exit_code == 0 and data.manifest.scenario_keys.decide == "any"
    return ": one configuration meets every limit (decide: any)" if explained else ""


def labelled(data: ReportData) -> list[tuple[str, str]]:
    """Return the paragraph in parts, each with its label and its sentences; plain text."""
    recommended = (table["recommendation"]["sentence"] for table in decision.decisions(data)[:MOST_NAMES])
    found = (
        ("Measured", _measured(data)),
        ("Decision", " ".join(recommended)),
        ("Speed", " ".join(_numbers(data))),
        ("Limits", _limits(data)),
        ("Not measured", _not_measured(data)),
        ("Caveats", _caveats(data)),
    )
    return [(label, text) for label, text in found if text]


def _measured(data: ReportData) -> str:
    """Return models, engines, loads and machine, and the outcome of the requests."""
    done = [(cell, trial) for cell, trial in data.trials() if data.facts_of(cell.id, trial.id)]
    if not done:
        return "No trial has a measurement." if data.manifest.cells else "Nothing was planned."
    cells = list({cell.id: cell for cell, _ in done}.values())
    model = _listed(cell.model for cell in cells if cell.model)
    levels = _listed(cell.level for cell in cells if cell.level)
    versions = {cell.engine: version for cell in cells if (version := cell.engine_info.version)}
    names = (cell.engine for cell in cells)
    engines = _listed(f"{name} ({versions[name]})" if name in versions else name for name in names)
    at = f"at {levels}" if levels else ""
    subject = " ".join(part for part in ((model, at, f"on {engines}") if model else (engines, at)) if part)
    loads = _listed(trial.load for _, trial in done)
    repetitions = len({cell.repetition for cell in cells})
    often = f", {repetitions} repetitions of each" if repetitions > 1 else ""
    scopes = [(data.facts_of(cell.id, trial.id).get("telemetry") or {}).get("scope") for cell, trial in done]
    preposition = "from" if "client" in scopes else "on"  # "from": the machine of the server is unknown
    machine = f", {preposition} {machine}" if (machine := _machine(data)) else ""
    return f"{subject}, under {loads}{often}{machine}: {_ended(data, done)}."


def _machine(data: ReportData) -> str:
    """Return the machine of the run; "" if it is unknown."""
    known = data.manifest.provenance.must_match
    gpus = Counter(str(one.get("name") if isinstance(one, dict) else one) for one in known.gpus)
    cards = [name if number == 1 else f"{number} x {name}" for name, number in gpus.items()]
    cores = count(known.cores, "core") if known.cores else ""
    processor = " with ".join(part for part in (known.cpu or "", cores) if part)
    return " and ".join(part for part in (*cards, processor) if part)


def _ended(data: ReportData, done: Sequence[tuple[CellEntry, TrialEntry]]) -> str:
    """Return the number of measured requests, and their failures."""
    statuses: Counter[str] = Counter()
    for cell, trial in done:
        statuses.update(data.facts_of(cell.id, trial.id)["statuses"])
    unsent = statuses.pop("not_sent", 0)
    total, bad = sum(statuses.values()), sum(n for status, n in statuses.items() if status not in _HARMLESS)
    measured = f"{count(len(done), 'trial')}, {count(total, 'measured request')}"
    lacking = f"; {unsent} more were scheduled but never sent" if unsent else ""
    if not total:
        return measured + lacking
    if not bad:
        return f"{measured}, none failed{lacking}"
    worst = max((status for status in statuses if status not in _HARMLESS), key=lambda status: statuses[status])
    return f"{measured}, of which {bad} failed ({bad / total:.1%}; most often {worst.replace('_', ' ')}){lacking}"


def _numbers(data: ReportData) -> list[str]:
    """Return the numbers of each trial if there are few trials, else the lowest and the highest."""
    known = groups(data)
    valid = [keys for keys in known if data.verdict_of(keys) != "invalid"]
    shown = [(keys, rows) for keys in valid if (rows := by_class(data).get((*keys, ALL)))]
    name = _namer(data)
    if len(shown) <= MOST_TRIALS:
        named = [("" if len(known) == 1 else f"{name(keys)}: ", _figures(rows)) for keys, rows in shown]
        return [f"{prefix}{numbers}." for prefix, numbers in named if numbers]
    texts = (next((text for figure in group if (text := _range(figure, shown, name))), "") for group in RANGES)
    ranges = [text for text in texts if text]
    return [f"{'; '.join(ranges)}."] if ranges else []


def _namer(data: ReportData) -> Callable[[Sequence[str]], str]:
    """Return a function that gives each trial the shortest name unique within the run."""
    known = list(groups(data))
    differs = [len({keys[number] for keys in known}) > 1 for number in range(len(KEYS))]
    if not any(differs):
        differs[-1] = True

    def name(keys: Sequence[str]) -> str:
        return dotted(key for key, used in zip(keys, differs, strict=True) if used) or place(keys)

    return name


def _figures(rows: Rows) -> str:
    parts = []
    for figure in SPEED:
        row = rows.get((figure.metric, figure.statistic))
        text = estimate(row, figure.show)
        if text != UNKNOWN:
            ends = interval(row, figure.show)
            parts.append(f"{figure.before}{text}{figure.after}{f' ({ends})' if ends else ''}")
    return ", ".join(parts)


def _range(figure: Figure, shown: Sequence[tuple[tuple[str, ...], Rows]], name: Callable[[Sequence[str]], str]) -> str:
    key = (figure.metric, figure.statistic)
    rows = [(keys, found[key]) for keys, found in shown if key in found]
    points = [(keys, row) for keys, row in rows if row["value"] == row["value"]]
    if len(points) < MOST_TRIALS:
        return ""
    ends = [pick(points, key=lambda one: one[1]["value"]) for pick in (min, max)]
    texts = [f"{estimate(row, figure.show)}{figure.after}" for _, row in ends]
    open_ended = len(rows) - len(points)
    beside = f"; {open_ended} more known as a bound only" if open_ended else ""
    if texts[0] == texts[1]:
        return f"{figure.before} {texts[0]} in each{beside}"
    intervals = (f"; {ci}" if (ci := interval(row, figure.show)) else "" for _, row in ends)
    low, high = (f"{text} ({name(keys)}{ci})" for text, (keys, _), ci in zip(texts, ends, intervals, strict=True))
    return f"{figure.before} from {low} to {high}{beside}"


def _limits(data: ReportData) -> str:
    if not data.verdicts:
        return "none was set."
    outcomes = Counter(one["outcome"] for one in data.verdicts)
    total = len(data.verdicts)
    if outcomes["pass"] == total:
        return "the only one is met." if total == 1 else f"all {total} are met."
    words = {"fail": "violated", "invalid": "without a result", "cannot_tell": "undecided", "pass": "met"}
    parts = joined([f"{outcomes[kind]} {word}" for kind, word in words.items() if outcomes[kind]])
    kind, first = next((kind, one) for kind in words for one in data.verdicts if one["outcome"] == kind)
    named = f"{first['limit']} under {_namer(data)(keys_of_verdict(first))}"
    why = "" if kind == "invalid" else f": {first['sentence']}"
    return f"{parts} of {total}; {words[kind]}: {_ended_with_point(named + why)}"


def _not_measured(data: ReportData) -> str:
    entries: list[CellEntry | TrialEntry] = []
    for cell in data.manifest.cells:
        entries += [cell] if cell.reason or not cell.trials else cell.trials
    reasons = [entry.reason or "no reason was recorded" for entry in entries if entry.status != "complete"]
    return f"{len(reasons)} incomplete or skipped; the first: {_ended_with_point(reasons[0])}" if reasons else ""


def _caveats(data: ReportData) -> str:
    """Return the most severe and most frequent caveat, with its action."""
    if not data.validity:
        return ""
    seen = [one for one in data.validity if data.facts_of(one["cell"], one["trial"])] or data.validity
    judged = [one for one in seen if one["reasons"]]
    if not judged:
        return "none."
    level = "invalid" if any(reason["level"] == "invalid" for one in judged for reason in one["reasons"]) else "warn"
    reasons = [{reason["code"]: reason for reason in one["reasons"] if reason["level"] == level} for one in judged]
    often = Counter(code for of_trial in reasons for code in of_trial)
    code, trials = often.most_common(1)[0]
    reason = next(of_trial[code] for of_trial in reasons if code in of_trial)
    many = f"{trials} of {count(len(seen), 'trial')}"
    opening = f"poor data in {many}" if level == "invalid" else f"in {many}"
    return f"{opening}: {_ended_with_point(reason['sentence'])} {_ended_with_point(reason['advice'])}".rstrip()


def _ended_with_point(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def _listed(names: Iterable[str]) -> str:
    """Return each name once; of many the first few."""
    known = list(dict.fromkeys(names))
    if len(known) > MOST_NAMES:
        return f"{', '.join(known[:MOST_NAMES])} and {len(known) - MOST_NAMES} more"
    return joined(known)
