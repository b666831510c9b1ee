"""The choice: which row, how surely, why not the others, or why none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.stats import Measured, ratio, t_factor
from harness.errors import ExitCode
from harness.scenario.limits import parse_limit
from harness.store.manifest import CellEntry, StartEntry
from harness.verdict.decision.odds import Lead
from harness.verdict.decision.recommendation import Choice, choose
from harness.verdict.decision.rows import Row, Value, unknown
from harness.verdict.limits.gate import Verdict, exit_code
from harness.verdict.limits.held import LIKELY, SURE, Outcome
from harness.verdict.reason import Level, Reason, Validity

NAN = math.nan


def verdict(
    outcome: Outcome, level: str, *, load: str = "sustained", limit: str = "ttft_ms p95 <= 100", value: float = 120.0
) -> Verdict:
    """Of one limit on one level."""
    keys = ("m", "e", level, "", load)
    sentence = f"ttft_ms p95 is {value:g} ms (limit 100 ms)."
    return Verdict(limit, "ttft_ms", keys, outcome, value, NAN, NAN, 9, sentence, "", parse_limit(limit).value)


def option(
    label: str,
    *outcomes: Outcome,
    speed: tuple[float, float, float] | None = (100.0, 95.0, 105.0),
    memory: float = 1e9,
    front: bool | None = True,
    value: float = 120.0,
    verdicts: Sequence[Verdict] = (),
) -> Row:
    """A row; without an interval where the ends are NaN. One repetition takes a minute."""
    fast = unknown("too few") if speed is None else Value(*speed, unit="tokens/s")
    values = {"speed": fast, "memory_needed_bytes": Value(memory, unit="bytes"), "kl_mean": unknown("not measured")}
    values["gpu_memory_peak_bytes"] = unknown("no GPU")
    found = [verdict(outcome, label, load=f"load{n}", value=value) for n, outcome in enumerate(outcomes)]
    cell = CellEntry(status="complete", start=StartEntry(began_ns=1, ready_ns=60_000_000_001))
    row = Row(("m", "e", label, ""), [cell], plans={"load0": {1: "hash"}}, label=label, values=values, front=front)
    row.verdicts = [*found, *verdicts]
    return row


def lead(one: Row, other: Row) -> Lead:
    """By the intervals of both, as of one repetition."""
    speeds = [row.values["speed"] for row in (one, other)]
    first, second = (Measured(speed.value, speed.low, speed.high) for speed in speeds)
    found = ratio(first, second)
    return Lead(found.value, found.low)


def chosen(*rows: Row) -> Choice:
    """The choice among rows."""
    return choose(rows, lead)


def test_the_fastest_that_holds_is_chosen() -> None:
    """A faster one that violates a limit is out, with by how much."""
    found = chosen(
        option("slow", Outcome.PASS, speed=(50, 49, 51)),
        option("fast", Outcome.PASS),
        option("faster", Outcome.FAIL, speed=(300, 290, 310)),
    )
    assert (found.outcome, found.chosen, found.race.certainty) == ("choice", ("fast",), SURE)
    assert (found.meeting, found.limits, found.undecided, found.race.repetitions) == (2, 1, False, None)
    (out,) = found.out
    assert (out.label, out.cause, out.limit, out.load) == ("faster", "fail", "ttft_ms p95 <= 100", "load0")
    assert out.missed == pytest.approx(0.2)


def test_the_only_one_that_holds_is_chosen_whatever_its_speed() -> None:
    """Others that could not be judged may hold, too."""
    found = chosen(option("one", Outcome.PASS, speed=None), option("other", Outcome.FAIL))
    assert (found.chosen, found.meeting, found.undecided) == (("one",), 1, False)
    found = chosen(option("one", Outcome.PASS), option("other", Outcome.INVALID), option("third", Outcome.CANNOT_TELL))
    assert (found.chosen, found.undecided) == (("one",), True)


def test_a_lead_beyond_chance_by_odds_is_likely() -> None:
    """And the repetitions that would settle it are told, with their time for the two rows."""
    found = chosen(option("a", Outcome.PASS), option("b", Outcome.PASS, speed=(95, 89, 101)))
    assert (found.outcome, found.chosen, found.race.certainty) == ("choice", ("a",), LIKELY)
    assert found.race.repetitions is not None
    assert found.race.seconds == found.race.repetitions * 2 * 60


def test_a_limit_that_is_met_likely_under_two_loads_is_one_limit() -> None:
    """As the count of all limits has it."""
    verdicts = [replace(verdict(Outcome.PASS, "a", load=load), certainty=LIKELY) for load in ("load0", "load1")]
    assert chosen(option("a", verdicts=verdicts)).likely_limits == 1


def test_speeds_that_cannot_be_told_apart_are_a_tie() -> None:
    """All are named, and which is smaller."""
    found = chosen(option("a", Outcome.PASS), option("b", Outcome.PASS, speed=(101, 96, 106), memory=5e8))
    assert (found.outcome, found.chosen, found.smallest) == ("tie", ("b", "a"), ("b",))
    assert found.race.certainty == ""


@pytest.mark.parametrize("speed", [(900.0, NAN, NAN), (100.0, 95.0, 105.0), (100.5, 100.4, 100.6)])
def test_no_row_is_called_slower_without_an_interval_or_with_the_same_number(speed: tuple[float, float, float]) -> None:
    """Only a lead that is known and that one would see is one."""
    found = chosen(option("a", Outcome.PASS, speed=speed), option("b", Outcome.PASS, speed=(100, 99.9, 100.1)))
    assert (found.outcome, set(found.chosen)) == ("tie", {"a", "b"})


def test_a_lead_without_an_interval_needs_three_repetitions_at_least() -> None:
    """Fewer give no interval of their ratios."""
    found = chosen(option("a", Outcome.PASS, speed=(150.0, NAN, NAN)), option("b", Outcome.PASS))
    assert (found.race.repetitions, found.race.at_least, found.race.seconds) == (3, True, 3 * 2 * 60)
    assert Lead(1.5, NAN, 3, paired=True).lacks_interval is False


def test_an_unknown_speed_neither_wins_nor_loses() -> None:
    """Also one that a doubt makes invalid."""
    invalid = option("b", Outcome.PASS)
    invalid.values["speed"] = Value(900, 890, 910, invalid=True)
    for other in (option("b", Outcome.PASS, speed=None), invalid):
        found = chosen(option("a", Outcome.PASS), other)
        assert (found.outcome, found.chosen, found.race.repetitions) == ("tie", ("a", "b"), None)


@pytest.mark.parametrize(
    ("lead", "certainty"),
    [
        (Lead(1.5, 1.2), SURE),
        (Lead(1.5, 0.99), LIKELY),
        (Lead(1.02, 0.5), ""),
        (Lead(1.005, 1.004), ""),
        (Lead(1.5, NAN), ""),
        (Lead(), ""),
    ],
)
def test_certainty_follows_the_interval_of_the_ratio(lead: Lead, certainty: str) -> None:
    """Sure beyond it, likely from odds of four to one; a difference below one per cent is none."""
    assert lead.certainty == certainty


def test_odds_are_those_of_a_normal_error() -> None:
    """An interval that ends at one leaves 2.5 %, one standard error 16 %."""
    assert Lead(1.5, 1.0).odds == pytest.approx(0.975)
    assert Lead(1.2, 1.2**-0.96).odds == pytest.approx(0.841, abs=0.001)


def test_repetitions_settle_what_they_promise() -> None:
    """After as many, an interval of the same spread ends above one; after one less it does not."""
    spread = 0.05
    for k, paired in ((1, False), (3, True), (5, True)):
        half = spread / math.sqrt(k) * (t_factor(k) if paired else 1.959964)
        needed = Lead(1.04, 1.04 * math.exp(-half), k, paired).needed
        assert needed is not None
        assert t_factor(needed) * spread / math.sqrt(needed) < math.log(1.04)
        assert t_factor(needed - 1) * spread / math.sqrt(needed - 1) > math.log(1.04)
    assert Lead(1.02, 0.5).needed is None
    assert Lead(1.005, 0.9).needed is None


def test_none_qualifies_and_the_closest_is_named() -> None:
    """That which misses by least in its worst limit; those that could not be judged are no closest."""
    found = chosen(
        option("far", Outcome.FAIL, value=300.0),
        option("near", Outcome.FAIL, Outcome.PASS, value=105.0),
        option("unknown", Outcome.CANNOT_TELL),
    )
    assert (found.outcome, found.closest, found.chosen) == ("none", "near", ())
    assert [one.missed for one in found.out] == [pytest.approx(2.0), pytest.approx(0.05), None]


def test_nothing_could_be_judged() -> None:
    """Then none is closest."""
    found = chosen(option("a", Outcome.INVALID), option("b", Outcome.CANNOT_TELL), option("c"))
    assert (found.outcome, found.closest) == ("none", None)
    assert [one.cause for one in found.out] == ["invalid", "cannot_tell", ""]


def test_a_limit_of_zero_has_no_share() -> None:
    """How far it is missed is told by the value alone."""
    broken = verdict(Outcome.FAIL, "a", limit="error_rate <= 0", value=0.2)
    found = chosen(option("a", verdicts=[broken]))
    assert (found.closest, found.out[0].missed) == ("a", None)


def test_a_limit_of_unknown_size_has_no_share() -> None:
    """That is a multiple of a number known by one end only."""
    unknown_bound = replace(verdict(Outcome.FAIL, "a"), bound=NAN)
    found = chosen(option("a", verdicts=[unknown_bound]), option("b", Outcome.FAIL))
    assert (found.closest, [one.missed for one in found.out]) == ("b", [None, pytest.approx(0.2)])
    assert chosen(option("a", verdicts=[unknown_bound])).closest is None


def test_without_limits_the_front_is_told() -> None:
    """Which is fastest, which smallest; rows that are dominated are not in it."""
    found = chosen(option("big"), option("small", speed=(60, 59, 61), memory=1e8), option("bad", front=False))
    assert (found.outcome, found.chosen) == ("front", ("big", "small"))
    assert (found.race.first, found.race.certainty, found.smallest) == (("big",), SURE, ("small",))


def test_rows_that_cannot_be_compared_are_candidates_where_no_other_is() -> None:
    """A row without a speed never is."""
    found = chosen(option("a", front=None), option("b", front=False), option("c", front=None, speed=None))
    assert found.chosen == ("a",)
    assert chosen(option("a", front=None, speed=None)).outcome == "unknown"


def test_rows_with_limits_of_their_own_have_no_common_number_of_them() -> None:
    """Each holds one limit, and none two."""
    limits = (("a", "ttft_ms p95 <= 100"), ("b", "ttft_ms p95 <= 50"))
    rows = [option(name, verdicts=[verdict(Outcome.PASS, name, limit=limit)]) for name, limit in limits]
    assert chosen(*rows).limits is None


def test_a_row_whose_load_failed_is_undecided() -> None:
    """Though its verdicts pass; where requests failed and a limit on errors allows it, the limit judges."""
    late, errors = (Reason(code, Level.INVALID, "Too bad.") for code in ("client_late", "errors"))
    for reason, outcome in ((late, "none"), (errors, "none")):
        row = option("a", Outcome.PASS)
        row.validity = {"load0": Validity.of([reason])}
        found = chosen(row, option("b", Outcome.FAIL))
        assert (found.outcome, found.out[0].cause) == (outcome, "invalid")
        assert found.out[0].about == "the load load0 was not the planned one: Too bad."
    judged = verdict(Outcome.PASS, "a", load="load0", limit="error_rate <= 0.9", value=0.6)
    row = option("a", verdicts=[replace(judged, metric="error_rate")])
    row.validity = {"load0": Validity.of([errors])}
    assert chosen(row, option("b", Outcome.FAIL)).chosen == ("a",)


outcomes = st.lists(st.sampled_from(list(Outcome)), max_size=4)


@given(st.lists(outcomes, min_size=1, max_size=5))
def test_the_choice_agrees_with_the_gate(rows: Sequence[list[Outcome]]) -> None:
    """With `decide: any` the exit code is 0 exactly where rows are recommended, whatever the verdicts."""
    options = [option(f"q{number}", *found) for number, found in enumerate(rows)]
    verdicts = [one for option in options for one in option.verdicts]
    found = chosen(*options)
    if verdicts:
        code = exit_code(verdicts, [], decide="any", failed_cells=0)
        assert (code is ExitCode.HOLDS) == (found.outcome in ("choice", "tie"))
        assert {one.label for one in found.out}.isdisjoint(found.chosen)
    else:
        assert found.outcome == "front"
