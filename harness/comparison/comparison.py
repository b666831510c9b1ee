"""Comparison of two sides: which of their numbers are compared, how, and what follows.

Two stored runs are two runs and not two builds: another start of either may differ. Starts of one run all came before
those of the other, so they are no pairs; drift of the machine between them would look like a change.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.analysis.paired import resampled_ratios
from harness.analysis.stats import Floats, Measured
from harness.comparison.change import SAME, Change, of_intervals, of_pairs, of_requests, unknown, unpaired
from harness.comparison.differences import Difference, differences, refused
from harness.comparison.judgement import Word, judge
from harness.comparison.measured import Figure, Measurement
from harness.comparison.quality import Scored, quality_changes, told
from harness.comparison.sides import Side
from harness.errors import ExitCode, UsageError, first_that_applies
from harness.metrics import SCALAR
from harness.quality.figures import LOAD
from harness.records import Loop
from harness.scenario.compare import ALPHA, LEAST_PAIRS
from harness.scenario.margins import Margin, Scale, default_margin

SHOWN = (
    *(("ttft_ms", one) for one in ("p50", "p95", "p99")),
    *(("tpot_ms", one) for one in ("p50", "p95")),
    *(("e2e_ms", one) for one in ("p50", "p95", "p99")),
    *((name, SCALAR) for name in ("output_tokens_per_s", "completed_rps", "goodput_rps", "attainment", "error_rate")),
    *((name, SCALAR) for name in ("memory_peak_bytes", "gpu_memory_peak_bytes", "energy_j_per_output_token")),
)
"""Metrics and statistics that are compared, if both sides have them."""
VALUES_ONLY = "values only: a file has no rows of requests"
ONE_SIDED = "only one side has this number"


@dataclass(frozen=True, slots=True)
class Row:
    """A number on both sides.

    Attributes:
        keys: Model, engine, level, variant and load of the base.
        gates: Whether the verdict depends on it.
        doubt: Why the data of a side is poor; "" if it is not.
        values: Numbers of each pair of starts (base, head); none for two stored runs.
    """

    keys: tuple[str, ...]
    class_name: str
    margin: Margin
    base: Measured
    head: Measured
    change: Change
    gates: bool
    doubt: str = ""
    word: Word = Word.CANNOT_TELL
    values: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides and what became of them.

    Attributes:
        differs: What else differs, allowed or under test.
        starts: Starts of each side, of the configuration with the fewest.
        pairs: Pairs of starts that were made in turns; 0 for two stored runs.
        blocks: Blocks of each start, if both sides of a pair were up and took turns; else 0.
        alpha: Chance of a false word among the gating numbers.
        matched: Keys of the measurements that were compared, of both sides.
        quality: What is told of the scores of each configuration, see `quality.told`.
        missing: Sentences on what only one side measured.
    """

    base: Side
    head: Side
    rows: list[Row]
    differs: list[Difference]
    starts: tuple[int, int]
    missing: list[str] = field(default_factory=list)
    pairs: int = 0
    blocks: int = 0
    alpha: float = ALPHA
    matched: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    quality: tuple[Mapping[str, Any], ...] = ()

    @property
    def were_started(self) -> bool:
        """Whether each start began with a start of its engine, and no server ran already."""
        starts = [start for side in (self.base, self.head) for one in side.measurements for start in one.starts]
        return all(start.cell.start.load_s is not None for start in starts)

    @property
    def gating(self) -> list[Row]:
        return [row for row in self.rows if row.gates]

    @property
    def word(self) -> Word:
        """Word for all gating numbers together: the worst. Quality that is no worse leaves it to the others."""
        others = [row for row in self.gating if not row.margin.of_quality]
        words = {row.word for row in self.gating if row.word is not Word.NO_WORSE or row in others or not others}
        if Word.WORSE in words:
            return Word.REGRESSED
        for word in (Word.REGRESSED, Word.CANNOT_TELL, Word.NO_WORSE):
            if word in words:
                return word if word is not Word.NO_WORSE or Word.IMPROVED not in words else Word.IMPROVED
        return Word.IMPROVED if Word.IMPROVED in words else Word.UNCHANGED if words else Word.CANNOT_TELL

    def exit_code(self, *, inconclusive_fails: bool = True) -> ExitCode:
        """Return the code of the command."""
        codes = {ExitCode.REGRESSED for row in self.gating if row.word in (Word.REGRESSED, Word.WORSE)}
        codes |= {ExitCode.INVALID for row in self.gating if row.doubt}
        if inconclusive_fails and (self.word is Word.CANNOT_TELL or not self.gating):
            codes.add(ExitCode.CANNOT_TELL)
        return first_that_applies(codes)


def compare(
    base: Side,
    head: Side,
    margins: Sequence[Margin] = (),
    across: Collection[str] = frozenset(),
    *,
    pairs: int = 0,
    alpha: float = ALPHA,
    others: bool = True,
) -> Comparison:
    """Compare two sides.

    Args:
        margins: Numbers that gate, with their margins; none for the defaults.
        across: Kinds of differences that are meant, see `differences.MUST_MATCH`.
        pairs: Starts of both sides that were made in turns, and are compared as pairs.
        alpha: Chance of a false word among the gating numbers.
        others: Whether numbers that do not gate are compared too.

    Raises UsageError if nothing can be matched, or if the sides differ in what must be the same.
    """
    from_sent = any(side.origin is not None and side.origin.from_sent for side in (base, head))
    margins = [one.from_sent() for one in margins] if from_sent else margins
    of_load = [one for one in margins if not one.of_quality]
    matched = match(base, head, across)
    scored = _scored(base, head, matched)
    differs = differences(base, head, matched)
    if not scored or matched:
        check_comparable(base, head, matched, differs, across)
    wanted = dict.fromkeys(_margin(*one, from_sent=from_sent) for one in (SHOWN if others else ()))
    rows = [row for both in matched for row in _rows(*both, of_load, [*wanted], pairs, from_sent=from_sent)]
    if not of_load and base.origin is None and head.origin is None:
        rows += [row for both in matched for row in _lacking(*both)]
    of_quality, about = _quality_rows(scored, [one for one in margins if one.of_quality], alpha)
    rows += of_quality
    _check_asked(rows, margins)
    starts = [min((len(side.starts) for side in sides), default=1) for sides in zip(*matched, strict=True)] or [1, 1]
    missing = [*base.left_out, *head.left_out, *_missing(base, head, matched), *_unscored(base, head)]
    keys = tuple((one.keys, other.keys) for one, other in matched)
    judged, counts = _judged(rows, alpha), (starts[0], starts[1])
    return Comparison(base, head, judged, differs, counts, missing, pairs, alpha=alpha, matched=keys, quality=about)


def check_comparable(
    base: Side,
    head: Side,
    matched: Sequence[tuple[Measurement, Measurement]],
    differs: Collection[Difference],
    across: Collection[str],
) -> None:
    """Raise UsageError if nothing could be matched, or if what must be the same differs and nobody allowed it."""
    if not matched:
        raise UsageError(_nothing_in_common(base, head))
    _refuse((base.name, head.name), refused(differs, across))


def check_alike(name: str, runs: Sequence[Side], across: Collection[str]) -> None:
    """Raise UsageError if known facts that must be the same, but the clock, differ between the runs of a side."""
    first, *others = runs
    for other in others:
        found = refused(differences(first, other, match(first, other, across), silent=True), across)
        wrong = [one for one in found if one.kind != "clock"]  # one arrival without a stamp of the kernel changes it
        _refuse((f"{name}: {first.path}", str(other.path)), wrong)


def _refuse(names: tuple[str, str], wrong: Sequence[Difference]) -> None:
    if wrong:
        kinds = ", ".join(f"--across {kind}" for kind in dict.fromkeys(one.kind for one in wrong))
        facts = "; ".join(str(one) for one in wrong[:6]) + ("; ..." if len(wrong) > 6 else "")
        raise UsageError(f"{names[0]} and {names[1]} are not comparable: {facts}. If that is meant, add {kinds}")


def match(base: Side, head: Side, across: Collection[str]) -> list[tuple[Measurement, Measurement]]:
    """Return the measurements of equal names.

    If none are equal, the variant does not count, and then the load alone where each side has one configuration.
    """
    for kept in ((0, 1, 2, 3, 4), (0, 1, 2, 4)):  # with the variant, and without it
        named = [_named(side, kept) for side in (base, head)]
        found = [(one, named[1][keys]) for keys, one in named[0].items() if keys in named[1]]
        if found and all(len(names) == len(side.measurements) for names, side in zip(named, (base, head), strict=True)):
            return found
    by_load = _by_load(base, head)
    if any(len({one.keys[:-1] for one in side.measurements}) > 1 for side in (base, head)):
        return []
    pairs = [(by_load[0][load], by_load[1][load]) for load in by_load[0] if load in by_load[1]]
    if not pairs and "load" in across and all(len(loads) == 1 for loads in by_load):
        return [(*by_load[0].values(), *by_load[1].values())]  # type: ignore[list-item]
    return pairs


def _scored(
    base: Side, head: Side, matched: Sequence[tuple[Measurement, Measurement]]
) -> dict[tuple[str, ...], tuple[Scored, Scored]]:
    """Return the scores of both sides by the base's configuration; of equal names if no load was measured."""
    cells = [(one.keys[:-1], other.keys[:-1]) for one, other in matched] or [(keys, keys) for keys in base.quality]
    return {
        one: (base.quality[one], head.quality[other])
        for one, other in dict.fromkeys(cells)
        if one in base.quality and other in head.quality
    }


def _quality_rows(
    scored: Mapping[tuple[str, ...], tuple[Scored, Scored]], margins: Sequence[Margin], alpha: float
) -> tuple[list[Row], tuple[Mapping[str, Any], ...]]:
    """Return a row for each gating figure of quality, and what is told of each configuration."""
    rows, about = list[Row](), list[Mapping[str, Any]]()
    for keys, sides in scored.items():
        changes = [*quality_changes(*sides, margins)]
        about.append({"configuration": " ".join(filter(None, keys)), **told(*sides, changes, alpha)})
        rows += [Row((*keys, LOAD), "all", one.margin, one.base, one.head, one.change, gates=True) for one in changes]
    return rows, tuple(about)


def _unscored(base: Side, head: Side) -> list[str]:
    """Return a sentence if only one side was scored."""
    only = [side.name for side in (base, head) if side.quality]
    return [f"only {only[0]} was scored for quality"] if len(only) == 1 else []


def _by_load(base: Side, head: Side) -> tuple[dict[Hashable, Measurement], dict[Hashable, Measurement]]:
    """Return the measurements by load. Other tools name theirs in their own way: there rate and users count."""
    by_name = (base.origin is None) == (head.origin is None)
    found = [{_load_of(one, by_name=by_name): one for one in side.measurements} for side in (base, head)]
    return found[0], found[1]


def _load_of(one: Measurement, *, by_name: bool) -> Hashable:
    rate, users = one.trial.rate, one.trial.users
    return one.keys[-1] if by_name or rate == users else (rate, users)


def _named(side: Side, kept: Sequence[int]) -> dict[tuple[str, ...], Measurement]:
    """Return the measurements by some of their keys."""
    return {tuple(one.keys[place] for place in kept): one for one in side.measurements}


def _rows(
    base: Measurement,
    head: Measurement,
    margins: Sequence[Margin],
    shown: Sequence[Margin],
    pairs: int,
    *,
    from_sent: bool,
) -> Iterator[Row]:
    """Yield the numbers that both sides have: those that gate first."""
    chosen = margins or [_margin(*one, from_sent=from_sent) for one in _gates(base, from_sent=from_sent)]
    gating = {(one.class_name, one.metric, one.statistic): one for one in chosen}
    others = {("all", one.metric, one.statistic): one for one in shown}
    for figure, margin in {**gating, **{key: one for key, one in others.items() if key not in gating}}.items():
        if figure in base.pooled and figure in head.pooled:
            doubt = base.poor_because(margin.metric) or head.poor_because(margin.metric)
            numbers = base.pooled[figure], head.pooled[figure]
            values = _pairs(base, head, figure) if pairs else ()
            change = of_pairs(margin.scale, values) if pairs else _change(base, head, figure, margin.scale)
            if change.method == SAME and (bounded := of_intervals(margin.scale, *numbers)).known:
                change = bounded
            yield Row(base.keys, figure[0], margin, *numbers, change, figure in gating, doubt, values=values)


def _lacking(base: Measurement, head: Measurement) -> Iterator[Row]:
    """Yield the numbers that gate by default and that only one of two runs of ours has: their change is unknown."""
    for metric, statistic in _gates(base, from_sent=False):
        figure, margin = ("all", metric, statistic), default_margin(metric, statistic)
        if (figure in base.pooled) != (figure in head.pooled):
            doubt = base.poor_because(metric) or head.poor_because(metric)
            numbers = base.pooled.get(figure, Measured(math.nan)), head.pooled.get(figure, Measured(math.nan))
            yield Row(base.keys, "all", margin, *numbers, unknown(margin.scale, ONE_SIDED), gates=True, doubt=doubt)


def _margin(metric: str, statistic: str, *, from_sent: bool) -> Margin:
    """Return the default margin of a number, or of the same one from sent."""
    margin = default_margin(metric, statistic)
    return margin.from_sent() if from_sent else margin


def _gates(base: Measurement, *, from_sent: bool) -> list[tuple[str, str]]:
    """Return the numbers that gate unless others are asked for.

    In a closed loop the mean end-to-end time is the inverse of the throughput (Little's law), and is known better.
    """
    names = [("ttft_service_ms" if from_sent else "ttft_ms", "p50"), ("tpot_ms", "p50")]
    streamed = any(("all", *one) in base.pooled for one in names)
    chosen = [("ttft_ms", "p50"), ("tpot_ms", "p50")] if streamed else [("e2e_ms", "p50")]
    chosen.append(("error_rate", SCALAR))
    if base.trial.loop == Loop.CLOSED:
        chosen.append(("e2e_ms", "mean"))
    return chosen


def _pairs(base: Measurement, head: Measurement, figure: Figure) -> tuple[tuple[float, float], ...]:
    """Return a number of each pair of starts."""
    sides = [[start.values.get(figure, math.nan) for start in side.starts] for side in (base, head)]
    return tuple(zip(*sides, strict=True))


def _change(base: Measurement, head: Measurement, figure: Figure, scale: Scale) -> Change:
    """Return how a number changed: over the starts, request by request, or from the intervals of both sides."""
    numbers = base.pooled[figure], head.pooled[figure]
    if any(math.isnan(number.value) for number in numbers):
        return unknown(scale, "only a bound is known")
    few = min(len(side.starts) for side in (base, head)) < LEAST_PAIRS
    if few and (base.values_only or head.values_only):
        return unknown(scale, VALUES_ONLY, of_intervals(scale, *numbers).at)
    each = [[start.values[figure] for start in side.starts if figure in start.values] for side in (base, head)]
    if min(map(len, each)) >= LEAST_PAIRS:
        return unpaired(scale, *each)
    if scale is Scale.RATIO and numbers[0].value > 0 < numbers[1].value:
        relative = _request_by_request(base, head, figure)
        if len(relative):
            return of_requests(numbers[1].value / numbers[0].value, relative)
    found = of_intervals(scale, *numbers)
    if not found.known and max(map(len, each)) > 1:
        return unknown(scale, f"{len(each[0])} and {len(each[1])} starts are too few for an interval", found.at)
    return found


def _request_by_request(base: Measurement, head: Measurement, figure: Figure) -> Floats:
    """Return the ratio in resamples of the requests that both sides sent; empty without the same plan."""
    class_name, metric, statistic = figure
    name, others = (class_name, metric), [*head.starts]
    pairs = []
    for one in base.starts:
        other = next((start for start in others if start.cell.repetition == one.cell.repetition), None)
        if other is None:
            continue
        others.remove(other)
        if one.trial.plan_hash == other.trial.plan_hash is not None and name in one.requests and name in other.requests:
            pairs.append((other.requests[name], one.requests[name]))
    return resampled_ratios(pairs, statistic)


def _judged(rows: Sequence[Row], alpha: float) -> list[Row]:
    """Return the rows with their words; poor data allows none."""
    found = []
    for gates in (True, False):
        own = [row for row in rows if row.gates is gates]
        words = judge([(row.change, row.margin) for row in own], gating=gates, alpha=alpha)
        found += [replace(row, word=_told(row, word)) for row, word in zip(own, words, strict=True)]
    return found


def _told(row: Row, word: Word) -> Word:
    """Return the word that is told: none of poor data, and of quality only whether it is worse."""
    if row.doubt or word is Word.CANNOT_TELL:
        return Word.CANNOT_TELL
    if row.margin.of_quality:
        return Word.WORSE if word is Word.REGRESSED else Word.NO_WORSE
    return word


def _check_asked(rows: Sequence[Row], margins: Sequence[Margin]) -> None:
    """Raise UsageError for a number that is asked for and that no load has."""
    have = {row.margin for row in rows}
    for one in margins:
        if one not in have:
            what = "both runs need `quality`" if one.of_quality else "no load of both runs has this number"
            raise UsageError(f"--fail-on {one.text}: {what}")


def _missing(base: Side, head: Side, matched: Sequence[tuple[Measurement, Measurement]]) -> list[str]:
    """Return a sentence for each measurement that the other side lacks."""
    used = {id(one) for pair in matched for one in pair}
    return [
        f"only {side.name} has {' '.join(filter(None, one.keys))}"
        for side in (base, head)
        for one in side.measurements
        if id(one) not in used
    ]


def _nothing_in_common(base: Side, head: Side) -> str:
    names = [
        ", ".join(" ".join(filter(None, one.keys)) for one in side.measurements[:6]) or "nothing that was measured"
        for side in (base, head)
    ]
    return f"{base.name} and {head.name} have no load in common: {names[0]}; and {names[1]}"
