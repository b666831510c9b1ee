"""The sentence: which row, why not the others, or why none."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ExitCode
from harness.scenario.limits import parse_limit
from harness.verdict.decision_rows import Value, known, unknown
from harness.verdict.gate import Verdict, exit_code
from harness.verdict.held import Outcome
from harness.verdict.recommendation import Option, recommend, text

SPEED = "one user's speed (p50) under single_user"


def verdict(
    outcome: Outcome, level: str, *, load: str = "sustained", limit: str = "ttft_ms p95 <= 100", value: float = 120.0
) -> Verdict:
    """Of one limit on one level."""
    keys = ("m", "e", level, "", load)
    sentence, bound = f"ttft_ms p95 is {value:g} ms (limit 100 ms).", parse_limit(limit).value
    return Verdict(limit, "ttft_ms", keys, outcome, value, math.nan, math.nan, 9, sentence, "", bound)


def option(
    label: str,
    *outcomes: Outcome,
    speed: tuple[float, float, float] | None = (100.0, 95.0, 105.0),
    memory: float = 1e9,
    front: bool = True,
    value: float = 120.0,
) -> Option:
    """A row; without an interval where the ends are NaN."""
    fast: Value = unknown("too few") if speed is None else known(*speed, unit="tokens/s")
    verdicts = [verdict(outcome, label, load=f"load{n}", value=value) for n, outcome in enumerate(outcomes)]
    return Option(label, verdicts, fast, known(memory, unit="bytes"), unknown("not measured"), "", front)


def test_the_fastest_that_holds_is_taken() -> None:
    """A faster one that breaks a limit is out, with how far."""
    found = recommend(
        [
            option("slow", Outcome.PASS, speed=(50, 49, 51)),
            option("fast", Outcome.PASS),
            option("faster", Outcome.FAIL, speed=(300, 290, 310)),
        ],
        SPEED,
    )
    assert (found["outcome"], found["chosen"]) == ("choice", ["fast"])
    assert found["sentence"].startswith("Take fast: of 2 that hold the limit it is the fastest; ")
    assert "100 tokens/s (95 to 105)" in found["sentence"]
    (out,) = found["out"]
    assert out["why"] == "breaks `ttft_ms p95 <= 100` under load0 (ttft_ms p95 is 120 ms, missed by 20 %)"


def test_the_only_one_that_holds_is_taken() -> None:
    """Whatever its speed."""
    found = recommend([option("one", Outcome.PASS, speed=None), option("other", Outcome.FAIL)], SPEED)
    assert found["sentence"] == "Take one: it alone holds the limit."


def test_a_rival_that_could_not_be_judged_is_not_beaten() -> None:
    """The choice says that it is the one of which it is known."""
    undecided = [option("other", Outcome.INVALID), option("third", Outcome.CANNOT_TELL)]
    found = recommend([option("one", Outcome.PASS, speed=None), *undecided], SPEED)
    assert found["sentence"] == "Take one: it alone is known to hold the limit."
    found = recommend([option("fast", Outcome.PASS), option("slow", Outcome.PASS, speed=(9, 8, 10)), *undecided], SPEED)
    assert found["sentence"].startswith("Take fast: of 2 known to hold the limit it is the fastest; ")


def test_speeds_that_overlap_cannot_be_told_apart() -> None:
    """Both are named, and which is smaller."""
    found = recommend([option("a", Outcome.PASS), option("b", Outcome.PASS, speed=(101, 96, 106), memory=5e8)], SPEED)
    assert (found["outcome"], found["chosen"]) == ("tie", ["b", "a"])
    assert "b and a hold the limit; which is faster cannot be told" in found["sentence"]
    assert "b takes the least memory, 477 MiB" in found["sentence"]


def test_a_speed_without_an_interval_proves_nothing() -> None:
    """It is named beside the others."""
    nan = math.nan
    found = recommend([option("a", Outcome.PASS, speed=(900, nan, nan)), option("b", Outcome.PASS)], SPEED)
    assert (found["outcome"], found["chosen"]) == ("tie", ["a", "b"])


def test_none_qualifies_and_the_closest_is_named() -> None:
    """That which misses by least in its worst limit; those that could not be judged are no closest."""
    found = recommend(
        [
            option("far", Outcome.FAIL, value=300.0),
            option("near", Outcome.FAIL, Outcome.PASS, value=105.0),
            option("unknown", Outcome.CANNOT_TELL),
        ],
        SPEED,
    )
    assert (found["outcome"], found["closest"], found["chosen"]) == ("none", "near", [])
    assert found["sentence"] == (
        "None qualifies: closest is near, which breaks `ttft_ms p95 <= 100` under load0 "
        "(ttft_ms p95 is 105 ms, missed by 5 %)."
    )


def test_nothing_could_be_judged() -> None:
    """Then nobody is closest."""
    found = recommend([option("a", Outcome.INVALID), option("b", Outcome.CANNOT_TELL)], SPEED)
    assert (found["outcome"], found["closest"]) == ("none", None)
    assert found["sentence"].startswith("None can be chosen yet: no row breaks a limit")
    assert [one["why"] for one in found["out"]] == [
        "`ttft_ms p95 <= 100` under load0 is invalid",
        "cannot tell `ttft_ms p95 <= 100` under load0: ttft_ms p95 is 120 ms (limit 100 ms)",
    ]


def test_a_limit_of_zero_has_no_share() -> None:
    """How far it is missed is told by the value alone."""
    broken = verdict(Outcome.FAIL, "a", limit="error_rate <= 0", value=0.2)
    one = Option("a", [broken], unknown("x"), unknown("x"), unknown("x"), "", False)
    assert "missed" not in recommend([one], SPEED)["sentence"]


def test_without_limits_the_front_is_told() -> None:
    """In one sentence: who is fastest, who smallest; rows that are beaten are not in it."""
    found = recommend(
        [option("big"), option("small", speed=(60, 59, 61), memory=1e8), option("bad", front=False)], SPEED
    )
    assert (found["outcome"], found["chosen"]) == ("front", ["big", "small"])
    assert "big is the fastest, 100 tokens/s (95 to 105)" in found["sentence"]
    assert "small takes the least memory, 95.4 MiB" in found["sentence"]
    assert "bad" not in found["sentence"]


def test_rows_without_a_speed_are_not_called_beaten() -> None:
    """Where only one row was measured, nothing could beat another."""
    unmeasured = option("none", front=False, speed=None)
    assert "no other row has a valid speed" in recommend([option("a"), unmeasured], SPEED)["sentence"]
    told = recommend([option("a"), option("bad", front=False), unmeasured], SPEED)["sentence"]
    assert "every other row with a valid speed is beaten" in told


def test_rows_with_limits_of_their_own_are_not_said_to_hold_those_of_others() -> None:
    """Each holds one limit, and nobody two."""
    rows = [
        Option(name, [verdict(Outcome.PASS, name, limit=limit)], known(9.0), unknown("x"), unknown("x"), "", True)
        for name, limit in (("a", "ttft_ms p95 <= 100"), ("b", "ttft_ms p95 <= 50"))
    ]
    assert "hold all their limits;" in recommend(rows, SPEED)["sentence"]


def test_nothing_measured_is_said() -> None:
    """No front, no limits, no recommendation."""
    assert recommend([option("a", front=False)], SPEED)["outcome"] == "unknown"


outcomes = st.lists(st.sampled_from(list(Outcome)), max_size=4)


@given(st.lists(outcomes, min_size=1, max_size=5))
def test_the_choice_agrees_with_the_gate(rows: list[list[Outcome]]) -> None:
    """With `decide: any` the exit code is 0 exactly where rows are recommended, whatever the verdicts."""
    options = [option(f"q{number}", *found) for number, found in enumerate(rows)]
    verdicts = [one for option in options for one in option.verdicts]
    found = recommend(options, SPEED)
    if verdicts:
        code = exit_code(verdicts, [], decide="any", failed_cells=0)
        assert (code is ExitCode.HOLDS) == (found["outcome"] in ("choice", "tie"))
        assert {one["label"] for one in found["out"]}.isdisjoint(found["chosen"])
    else:
        assert found["outcome"] == "front"


def test_numbers_have_as_many_digits_as_the_interval_allows() -> None:
    """And bytes a binary unit."""
    assert text(known(1749.2, 1425.0, 1926.0, unit="tokens/s")) == "1750 tokens/s (1420 to 1930)"
    assert text(known(0.0301, 0.0279, 0.0342, unit="nats")) == "0.0301 nats (0.0279 to 0.0342)"
    assert text(known(2.0**31, unit="bytes")) == "2 GiB"
    assert text(unknown("nobody asked")) == "unknown (nobody asked)"
