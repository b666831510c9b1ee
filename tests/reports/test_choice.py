"""The sentences of a choice."""

from __future__ import annotations

from typing import Any

import pytest

from harness.verdict.decision.recommendation import Choice, Out, Race
from harness.verdict.decision.rows import Value, unknown
from reports.choice import against, worded

SPEED = Value(680.0, 640.0, 720.0, unit="tokens/s")
FAST = Out(
    "fast", "fail", "ttft_ms p95 is 120 ms (sure; 95 % interval 110 to 130 ms).", "ttft_ms p95 <= 100", "steady", 0.2
)
OPEN = Out("open", "cannot_tell", "ttft_ms p95 has no value: none came.", "ttft_ms p95 <= 100", "steady")


def row(label: str, speed: Value = SPEED, *, front: bool | None = True) -> dict[str, Any]:
    """A row of the decision table that is 2.9 times as fast as the reference and needs 2 GiB."""
    values = {
        "speed": speed,
        "speed_ratio": Value(2.9, 2.4, 3.4, unit="ratio"),
        "memory_needed_bytes": Value(2.0**31, unit="bytes", source="while it loads"),
        "kl_mean": Value(0.0301, 0.0279, 0.0342, unit="nats"),
    }
    return {"label": label, "front": front, "values": {name: one.as_dict() for name, one in values.items()}}


def sentence(choice: Choice, *rows: dict[str, Any]) -> str:
    """Of a table with the reference f16 and these rows."""
    shown = [*rows, row("f16", front=False)]
    table = {"reference": {"label": "f16"}, "rows": shown, "recommendation": choice.as_dict()}
    return str(worded(table)["recommendation"]["sentence"])


def race(*labels: str, certainty: str = "sure") -> Race:
    """Three repetitions would settle it in five minutes where it is not sure."""
    return Race(labels, certainty) if certainty == "sure" else Race(labels, certainty, 3, False, 299.0)


FIGURES = "2.90 x f16, 680 tokens/s [640, 720]"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (
            Choice("choice", ("a",), race("a", certainty="likely"), 3, 2),
            f"Recommended: a (likely), {FIGURES}. Fastest of the 3 configurations that meet both limits. "
            "3 repetitions would settle the choice, about 5 min.",
        ),
        (
            Choice("choice", ("a",), race("a"), 2, 1, undecided=True),
            f"Recommended: a (sure), {FIGURES}. "
            "Fastest of the 2 configurations shown to meet the limit (others are inconclusive).",
        ),
        (
            Choice("choice", ("a",), race("a"), 1, 3),
            f"Recommended: a, {FIGURES}. It is the only configuration that meets all 3 limits.",
        ),
        (
            Choice("choice", ("a",), Race(("a",), "likely"), 1, 2, undecided=True, likely_limits=1),
            f"Recommended: a (likely), {FIGURES}. It is the only configuration shown to meet both limits "
            "(others are inconclusive). It meets 1 limit likely, not surely.",
        ),
        (
            Choice("tie", ("a", "b"), race("a", "b", certainty=""), 2, 1, smallest=("b",)),
            "Recommended: a or b. They meet the limit. "
            f"Which is faster cannot be told: a {FIGURES}; b {FIGURES}. "
            "3 repetitions would settle which is faster, about 5 min. Least memory: b, 2.00 GiB while it loads.",
        ),
        (
            Choice("front", ("a", "b"), race("a"), smallest=("b",), nearest=("a",)),
            f"No limits decide between a and b (Pareto-optimal). Fastest: a, {FIGURES}. "
            "Least memory: b, 2.00 GiB while it loads. Nearest to the reference: a, KL 0.0301 nats.",
        ),
        (Choice("front", ("a",), race("a")), f"Recommended: a, {FIGURES}. It dominates every other configuration."),
        (Choice("unknown"), "No recommendation: no configuration has a known speed."),
        (
            Choice("none", closest="fast", out=(FAST, OPEN)),
            "No recommendation: no configuration meets every limit. Closest: fast, which violates "
            "ttft_ms p95 <= 100 under steady by 20 %: ttft_ms p95 is 120 ms.",
        ),
        (
            Choice("none", out=(OPEN,)),
            "No recommendation: every configuration has at least one limit that could not be checked.",
        ),
        (
            Choice("none", out=(FAST, OPEN)),
            "No recommendation: every configuration violates a limit, or has one that could not be checked.",
        ),
    ],
)  # fmt: skip
def test_each_outcome_has_its_sentence(choice: Choice, said: str) -> None:
    """A finding, how sure it is, and what would settle it."""
    rows = [row("a"), *([row("b")] if "b" in choice.chosen else [])]
    assert sentence(choice, *rows) == said


def test_rows_without_a_speed_are_not_ranked() -> None:
    """Nor called slower."""
    tie = Choice("tie", ("a", "b"), Race(("a", "b")), 2, None)
    nothing = [row(label, unknown("not streamed")) for label in tie.chosen]
    assert sentence(tie, *nothing) == (
        "Recommended: a or b. They meet all their limits. No speed was measured, so they cannot be ranked."
    )
    wide = [row("a", Value(680.0, 50.0, 1310.0)), row("b", Value(680.0, 640.0, bound="lower"))]
    assert "a 2.90 x f16, 680~ tokens/s; b 2.90 x f16, 680~ tokens/s." in sentence(tie, *wide)
    assert "b unknown" in sentence(tie, row("a"), nothing[1])
    slow = Choice("tie", ("a", "b"), Race(("a", "b"), "", 3, True, 9000.0), 2, None)
    assert "At least 3 repetitions are needed to tell which is faster, about 2.5 h." in sentence(
        slow, row("a"), row("b")
    )


def test_rows_that_cannot_be_compared_are_not_called_dominated() -> None:
    """The only one that can be compared dominates none."""
    alone = Choice("front", ("a",), race("a"))
    table = {"reference": None, "rows": [row("a"), row("b", front=None)], "recommendation": alone.as_dict()}
    assert worded(table)["recommendation"]["sentence"] == (
        "Recommended: a, 680 tokens/s [640, 720]. No other configuration can be compared with it."
    )
    assert "every other configuration that can be compared." in sentence(alone, row("a"), row("b", front=None))


def test_rows_that_violate_a_limit_are_rejected_and_the_others_undecided() -> None:
    """Each with its worst limit; how far a limit is missed beyond its own size is told in multiples."""
    far = Out("far", "fail", "ttft_ms p95 is 350 ms; near.", "ttft_ms p95 <= 100", "steady", 2.5, 1)
    coarse = Out("coarse", "fail", "kl_mean is 0.2 nats.", "kl_mean <= 0", "quality")
    out = (FAST, OPEN, far, coarse, Out("gone", "stopped", "failed: killed"), Out("base", ""))
    table = {"reference": None, "rows": [], "recommendation": Choice("none", out=out).as_dict()}
    rejected, undecided = against(worded(table)["recommendation"]["out"])
    assert rejected == (
        "Rejected: fast: violates ttft_ms p95 <= 100 under steady by 20 %: ttft_ms p95 is 120 ms; "
        "far: violates ttft_ms p95 <= 100 under steady by 2.5 x the limit: ttft_ms p95 is 350 ms, and 1 more; "
        "coarse: violates kl_mean <= 0: kl_mean is 0.2 nats; gone: failed: killed."
    )
    assert undecided == (
        "Undecided: open: ttft_ms p95 <= 100 under steady: ttft_ms p95 has no value: none came; "
        "base: no limit was checked."
    )
