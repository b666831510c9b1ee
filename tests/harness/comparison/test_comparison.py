"""Two sides become one comparison: what is matched, what is refused, and which word the whole has."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.analysis.stats import Measured
from harness.comparison.comparison import compare
from harness.comparison.differences import MUST_MATCH, Difference, differences, refused
from harness.comparison.judgement import Word
from harness.comparison.measured import Measurement, Start
from harness.comparison.plain import as_data
from harness.comparison.sides import Side, joined
from harness.errors import ExitCode, UsageError
from harness.scenario.margins import parse_margin
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from reports.comparison import settling
from tests.fabricated import S

GOOD = {"ttft_ms p50": (60.0, 59.0, 61.0), "tpot_ms p50": (10.0, 9.95, 10.05), "error_rate value": (0.0, 0.0, 0.004)}


def measured(
    numbers: dict[str, tuple[float, float, float]] | None = None,
    *,
    keys: tuple[str, ...] = ("", "vllm", "", "", "rate-4"),
    loop: str = "open",
    starts: int = 1,
    poor: tuple[tuple[str, tuple[str, ...]], ...] = (),
    **cell: Any,
) -> Measurement:
    """A measurement with these numbers: value and ends of the 95 % interval."""
    figures = {("all", *name.split()): Measured(*ends) for name, ends in (GOOD | (numbers or {})).items()}
    entry = CellEntry(engine=keys[1], level=keys[2] or None, **cell)
    trial = TrialEntry(load=keys[-1], loop=loop)
    each = {figure: number.value for figure, number in figures.items()}
    return Measurement(keys, (Start(entry, trial, {}, each),) * starts, figures, dict.fromkeys(figures, 100), poor)


def side(*measurements: Measurement, name: str = "a", **manifest: Any) -> Side:
    """A stored run that measured this."""
    stored = Manifest.model_validate({"name": name, "created_utc": "2026-11-30T07:00:00+00:00", **manifest})
    return Side(name, Path(name), stored, measurements)


@pytest.mark.parametrize(
    ("numbers", "word", "code"),
    [
        ({}, Word.UNCHANGED, ExitCode.HOLDS),
        ({"ttft_ms p50": (80.0, 79.0, 81.0)}, Word.REGRESSED, ExitCode.REGRESSED),
        ({"ttft_ms p50": (50.0, 49.0, 51.0)}, Word.IMPROVED, ExitCode.HOLDS),
        ({"ttft_ms p50": (62.0, 50.0, 74.0)}, Word.CANNOT_TELL, ExitCode.CANNOT_TELL),
        ({"ttft_ms p50": (50.0, 49.0, 51.0), "tpot_ms p50": (12.0, 11.9, 12.1)}, Word.REGRESSED, ExitCode.REGRESSED),
        ({"ttft_ms p50": (math.nan, 100.0, math.inf)}, Word.CANNOT_TELL, ExitCode.CANNOT_TELL),
        ({"error_rate value": (0.05, 0.03, 0.08)}, Word.REGRESSED, ExitCode.REGRESSED),
        ({"error_rate value": (0.001, 0.0, 0.01)}, Word.CANNOT_TELL, ExitCode.CANNOT_TELL),
    ],
)
def test_the_worst_gating_number_has_the_word(
    numbers: dict[str, tuple[float, float, float]], word: Word, code: ExitCode
) -> None:
    """Regressed, then cannot tell, then the others; a number of which only a bound is known decides nothing."""
    found = compare(side(measured()), side(measured(numbers)))
    assert (found.word, found.exit_code()) == (word, code)
    warned = ExitCode.HOLDS if code is ExitCode.CANNOT_TELL else code
    assert found.exit_code(inconclusive_fails=False) == warned


def test_tails_are_shown_and_decide_nothing_unless_asked() -> None:
    """p95 is three times as long: a word beside it, and not that of the whole."""
    tail = {"ttft_ms p95": (90.0, 88.0, 92.0)}, {"ttft_ms p95": (270.0, 264.0, 276.0)}
    sides = side(measured(tail[0])), side(measured(tail[1]))
    found = compare(*sides)
    assert found.word is Word.UNCHANGED
    assert next(row for row in found.rows if row.margin.statistic == "p95").word is Word.REGRESSED
    asked = compare(*sides, [parse_margin("ttft p95 +10%")])
    assert (asked.word, len(asked.gating)) == (Word.REGRESSED, 1)
    assert compare(*sides, [parse_margin("ttft p95 +300%")]).word is Word.UNCHANGED


def test_a_closed_loop_gates_on_the_inverse_of_its_throughput() -> None:
    """The mean end-to-end time; without tokens, the median of it alone."""
    numbers = {"e2e_ms mean": (250.0, 249.0, 251.0)}
    found = compare(side(measured(numbers, loop="closed")), side(measured(numbers, loop="closed")))
    assert [row.margin.metric for row in found.gating] == ["ttft_ms", "tpot_ms", "error_rate", "e2e_ms"]
    embedding = measured({"e2e_ms p50": (5.0, 4.9, 5.1)})
    kept = {figure: number for figure, number in embedding.pooled.items() if figure[1] in ("e2e_ms", "error_rate")}
    embedding = replace(embedding, pooled=kept)
    assert [row.margin.metric for row in compare(side(embedding), side(embedding)).gating] == ["e2e_ms", "error_rate"]


def test_a_number_that_one_side_lacks_is_not_passed_over() -> None:
    """A head that no longer streams has neither TTFT nor TPOT: that errors stay the same is no verdict."""
    head = measured()
    kept = {figure: number for figure, number in head.pooled.items() if figure[1] == "error_rate"}
    found = compare(side(measured()), side(replace(head, pooled=kept)))
    words = {row.margin.metric: row.word for row in found.gating}
    assert words == {"ttft_ms": Word.CANNOT_TELL, "tpot_ms": Word.CANNOT_TELL, "error_rate": Word.UNCHANGED}
    assert found.exit_code() is ExitCode.CANNOT_TELL
    row = next(row for row in as_data(found)["rows"] if row["metric"] == "ttft_ms")
    assert (row["base"]["value"], row["head"]["value"]) == (60.0, None)
    assert row["method"] == "only one side has this number"


def test_poor_data_has_no_word() -> None:
    """Neither a regression nor its absence is claimed from it, and the exit code says so."""
    poor = measured({"ttft_ms p50": (90.0, 89.0, 91.0)}, poor=(("the load was not the planned one", ()),))
    found = compare(side(measured()), side(poor))
    assert {row.word for row in found.gating} == {Word.CANNOT_TELL}
    assert found.exit_code() is ExitCode.INVALID
    of_tpot = measured({"ttft_ms p50": (90.0, 89.0, 91.0)}, poor=(("chunks came in bundles", ("tpot_ms",)),))
    words = {row.margin.metric: row.word for row in compare(side(measured()), side(of_tpot)).gating}
    assert (words["ttft_ms"], words["tpot_ms"]) == (Word.REGRESSED, Word.CANNOT_TELL)


def test_four_starts_of_each_side_give_the_interval() -> None:
    """What starts change is in it, and no request of one start is taken for another start."""

    def of_starts(*values: float) -> Measurement:
        one = measured()
        each = [{**one.starts[0].values, ("all", "ttft_ms", "p50"): value} for value in values]
        starts = tuple(replace(one.starts[0], values=own) for own in each)
        return replace(one, starts=starts)

    found = compare(side(of_starts(60, 50, 70, 61)), side(of_starts(75, 66, 90, 72)))
    row = next(row for row in found.rows if row.margin.metric == "ttft_ms")
    assert row.change.method == "from 4 and 4 starts, not paired"
    assert row.change.interval()[0] < 1.05 < row.change.interval()[1]
    assert found.starts == (4, 4)


@pytest.mark.parametrize(("low", "word"), [(0.9963, Word.UNCHANGED), (0.83, Word.CANNOT_TELL)])
@pytest.mark.parametrize("pairs", [4, 0])
def test_a_share_that_no_start_changes_is_told_by_its_requests(low: float, word: Word, pairs: int) -> None:
    """All requests meet the SLO in each start: of 1,000 that is within a point for sure, of 20 it is not."""
    whole = joined("a", [side(measured({"attainment value": (1.0, low, 1.0)}))] * 4)
    found = compare(whole, whole, [parse_margin("attainment -1pp")], pairs=pairs)
    (row,) = found.gating
    assert (row.word, row.change.method) == (word, "from the intervals of both sides")


@pytest.mark.parametrize(
    ("kind", "base", "head"),
    [
        ("hardware", {"provenance": {"must_match": {"cpu": "A"}}}, {"provenance": {"must_match": {"cpu": "B"}}}),
        ("load", {"scenario": {"load": [{"rate": 4}]}}, {"scenario": {"load": [{"rate": 8}]}}),
        ("load", {"scenario": {"workload": {"stream": True}}}, {"scenario": {"workload": {"stream": False}}}),
    ],
)
def test_what_must_match_is_refused_with_both_values(kind: str, base: dict[str, Any], head: dict[str, Any]) -> None:
    """Unless it is meant: then it is listed among what differs."""
    sides = side(measured(), **base), side(measured(), name="b", **head)
    with pytest.raises(UsageError, match=f"a and b are not comparable: .* and .*If that is meant, add --across {kind}"):
        compare(*sides)
    assert [one.kind for one in compare(*sides, across={kind}).differs] == [kind]


def test_engines_and_levels_are_compared_on_purpose() -> None:
    """One configuration a run is matched by its load."""
    sides = (
        side(measured(keys=("m", "vllm", "fp8", "", "rate-4"), model="m")),
        side(measured(keys=("m", "llama-server", "q8_0", "", "rate-4"), model="m")),
    )
    with pytest.raises(UsageError, match="--across engine, --across quantization"):
        compare(*sides)
    assert compare(*sides, across={"engine", "quantization"}).word is Word.UNCHANGED


def test_versions_and_options_are_under_test() -> None:
    """They are listed and refuse nothing; a fact of several loads stands once."""

    def of_version(version: str, slots: int) -> Side:
        info = {"name": "vllm", "version": version, "options": {"max_num_seqs": slots}}
        return side(*(measured(keys=("", "vllm", "", "", load), engine_info=info) for load in ("rate-4", "rate-8")))

    found = compare(of_version("0.11", 8), of_version("0.12", 16))
    assert {(one.kind, one.what, one.base, one.head, one.load) for one in found.differs} == {
        ("version", "vllm version", "0.11", "0.12", ""),
        ("options", "max_num_seqs", "8", "16", ""),
    }
    assert not refused(found.differs, ())


def test_nothing_in_common_is_a_sentence_with_both() -> None:
    """And so is a number that no load has."""
    with pytest.raises(UsageError, match="a and b have no load in common: vllm rate-4; and vllm rate-8"):
        compare(side(measured()), side(measured(keys=("", "vllm", "", "", "rate-8")), name="b"))
    with pytest.raises(UsageError, match=r"ttft p99 \+10%: no load of both runs has this number"):
        compare(side(measured()), side(measured()), [parse_margin("ttft p99 +10%")])


def test_what_one_side_alone_measured_is_named() -> None:
    """Nothing is left out in silence."""
    more = measured(keys=("", "vllm", "", "", "rate-8"))
    assert compare(side(measured(), more), side(measured(), name="b")).missing == ["only a has vllm rate-8"]


def test_unknown_numbers_are_null_in_the_data() -> None:
    """JSON has no NaN and no infinity."""
    found = as_data(compare(side(measured()), side(measured({"ttft_ms p50": (math.nan, 100.0, math.inf)}))))
    row = next(row for row in found["rows"] if row["metric"] == "ttft_ms")
    assert row["head"] == {"value": None, "low": 100.0, "high": None}
    assert (row["change"], row["low"], row["least_seen"]) == (None, None, None)
    assert row["method"] == "only a bound is known"


def test_kinds_of_differences_are_those_that_can_be_allowed() -> None:
    """Every kind is allowed by its name alone."""
    for kind in MUST_MATCH:
        found = [Difference(kind, "x", "1", "2")]
        assert refused(found, ()) == found
        assert refused(found, {kind}) == []
    assert differences(side(measured()), side(measured()), [(measured(), measured())]) == []


def test_more_pairs_take_the_time_of_the_configurations_that_are_compared() -> None:
    """Not of others of their run; and a file of another tool cannot be made again."""
    cells = [
        {"id": name, "start": {"began_ns": begun_s * S}, "trials": [{"ended_ns": (begun_s + 60) * S}]}
        for begun_s, name in enumerate(("old", "new", "other"))
    ]
    base, head = (side(measured(id=name), cells=cells) for name in ("old", "new"))
    data = as_data(compare(base, head))
    assert [data[one]["seconds"] for one in ("base", "head")] == [60.0, 60.0]
    assert str(settling(data)).startswith("6 pairs of starts in turns, about 12 min: ")
    assert settling(data | {"head": data["head"] | {"origin": {"tool": "AIPerf"}}}) is None
