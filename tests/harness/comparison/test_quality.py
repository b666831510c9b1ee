"""Quality of two sides: paired on the same text, judged by a margin, and unknown where the references differ."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from harness.comparison.change import one_sided_factor
from harness.comparison.comparison import Comparison, compare
from harness.comparison.judgement import Word
from harness.comparison.plain import as_data
from harness.comparison.quality import Scored, change_of, quality_changes, told
from harness.errors import ExitCode, UsageError
from harness.quality.figures import difference
from harness.scenario.compare import ALPHA
from harness.scenario.margins import OF_QUALITY, default_margin, parse_margin
from harness.store.manifest import QualityEntry
from harness.verdict.thresholds import GRADES
from reports.comparison import lines, verdict
from tests.harness.comparison.test_comparison import measured, side

CHUNKS, EACH = 64, 256
KEYS = ("", "vllm", "", "")


def scored(kl: float, agreement: float, seed: int = 1, chunks: int = CHUNKS, **columns: Any) -> Scored:
    """Scores of a text whose chunks differ in difficulty: log-normal divergences of this mean, and this agreement."""
    random, n = np.random.default_rng(seed), chunks * EACH
    hard = np.repeat(np.random.default_rng(0).lognormal(-0.125, 0.5, chunks), EACH)
    divergence = kl * hard * random.lognormal(-0.5, 1.0, n)
    reference = np.random.default_rng(3).gamma(2.0, 1.0, n)
    found = {
        "chunk": np.repeat(np.arange(chunks), EACH),
        "position": np.tile(np.arange(EACH, 2 * EACH), chunks),
        "token": np.random.default_rng(4).integers(0, 50, n),
        "nll_reference": reference,
        "nll": reference + divergence,
        "kl": divergence,
        "kl_lower_bound": divergence,
        "top1_same": random.random(n) < 1 - (1 - agreement) * hard,
    }
    return Scored(QualityEntry(positions=n, chunks=chunks, reference_level="f16"), found | columns)


def compared(base: Scored, head: Scored, *margins: str) -> Comparison:
    """Two runs of equal speed with these scores."""
    sides = [replace(side(measured()), quality={KEYS: one}) for one in (base, head)]
    return compare(sides[0], sides[1], [parse_margin(text) for text in margins])


def words(found: Comparison) -> dict[str, Word]:
    """Word of each figure of quality."""
    return {row.margin.metric: row.word for row in found.gating if row.margin.of_quality}


@pytest.mark.parametrize(
    ("head", "of_kl", "of_top1", "whole", "code"),
    [
        ((1e-4, 0.99), Word.NO_WORSE, Word.NO_WORSE, Word.UNCHANGED, ExitCode.HOLDS),
        ((1e-5, 0.999), Word.NO_WORSE, Word.NO_WORSE, Word.UNCHANGED, ExitCode.HOLDS),
        ((5e-3, 0.95), Word.WORSE, Word.WORSE, Word.REGRESSED, ExitCode.REGRESSED),
        ((1e-4, 0.95), Word.NO_WORSE, Word.WORSE, Word.REGRESSED, ExitCode.REGRESSED),
        ((3e-4, 0.975), Word.NO_WORSE, Word.CANNOT_TELL, Word.CANNOT_TELL, ExitCode.CANNOT_TELL),
    ],
)
def test_quality_enters_the_verdict(
    head: tuple[float, float], of_kl: Word, of_top1: Word, whole: Word, code: ExitCode
) -> None:
    """The numbers of the loads are the same in all: quality alone makes the difference."""
    found = compared(scored(1e-4, 0.99), scored(*head, seed=2))
    assert words(found) == {"kl_mean": of_kl, "top1_agreement": of_top1}
    assert (found.word, found.exit_code()) == (whole, code)


def test_faster_but_worse_regressed() -> None:
    """The figure that is worse is the one that the verdict names."""
    fast = side(measured({"ttft_ms p50": (40.0, 39.5, 40.5)}))
    found = compare(
        replace(side(measured()), quality={KEYS: scored(1e-4, 0.99)}), replace(fast, quality={KEYS: scored(0.02, 0.9)})
    )
    assert {row.margin.metric: row.word for row in found.gating}["ttft_ms"] is Word.IMPROVED
    word, why, _ = verdict(as_data(found))
    assert (word, "same top token" in why or "mean KL" in why) == ("REGRESSED", True)


def test_the_default_margins_are_what_a_near_lossless_step_loses() -> None:
    """The first grade of the words for a distance from the reference (docs/quality.md)."""
    margins = {name: default_margin(name, "value").size for name in OF_QUALITY}
    assert margins == pytest.approx({"kl_mean": GRADES[0].kl, "top1_agreement": 1 - GRADES[0].top1})


def test_margins_of_quality_replace_those_of_quality_alone() -> None:
    """The numbers of the loads gate as before; a margin on these leaves quality in the gate."""
    sides = scored(1e-4, 0.99), scored(1e-4, 0.976, seed=2)
    found = compared(*sides, "top1 -3pp")
    assert words(found) == {"top1_agreement": Word.NO_WORSE}
    assert len([row for row in found.gating if not row.margin.of_quality]) == 3
    found = compared(*sides, "ttft p50 +10%")
    assert [row.margin.metric for row in found.gating] == ["ttft_ms", "kl_mean", "top1_agreement"]


def test_the_difficulty_of_the_text_cancels() -> None:
    """The same positions are hard for both: the interval of the difference is narrower than those of the sides."""
    base = scored(0.02, 0.9)
    head = replace(base, columns={**base.columns, "kl": np.asarray(base.columns["kl"]) * 1.1})
    change = change_of("kl_mean", base, head)
    low, high = change.interval()
    (of_base,) = [one.base for one in quality_changes(base, head) if one.margin.metric == "kl_mean"]
    assert change.value == pytest.approx(0.1 * of_base.value)
    assert high - low < 0.3 * (of_base.high - of_base.low)


@settings(max_examples=20)
@given(some.integers(0, 2**32 - 1), some.sampled_from(OF_QUALITY))
def test_swapped_sides_negate_the_change(seed: int, metric: str) -> None:
    """With the same uncertainty."""
    one, other = scored(1e-3, 0.97, seed, chunks=4), scored(2e-3, 0.96, seed + 1, chunks=4)
    there, back = change_of(metric, one, other), change_of(metric, other, one)
    assert (back.at, back.below) == (pytest.approx(-there.at), pytest.approx(there.below))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """One end in 95 % of 400 texts, whose chunks differ."""
    held, texts = {"kl": 0, "top1_same": 0}, 400
    truth = {"kl": 0.002, "top1_same": -0.02}
    random = np.random.default_rng(11)
    for _ in range(texts):
        hard = np.repeat(random.lognormal(-0.125, 0.5, 16), 64)
        chunk = np.repeat(np.arange(16), 64)
        kl = [mean * hard * random.lognormal(-0.5, 1.0, 1024) for mean in (0.001, 0.003)]
        same = [random.random(1024) < 1 - miss * hard for miss in (0.02, 0.04)]
        sides = [{"chunk": chunk, "kl": kl[side], "top1_same": same[side]} for side in (0, 1)]
        for name, true in truth.items():
            found = difference(sides[1], sides[0], name)
            held[name] += found.value + one_sided_factor(found.chunks - 1, ALPHA) * found.error >= true
    assert held["kl"] / texts == pytest.approx(0.95, abs=0.035)
    assert held["top1_same"] / texts >= 0.92


def test_agreement_that_never_differs_is_not_known_for_sure() -> None:
    """Of 512 positions none differs: up to 12 / 512 may (rule of three, a design effect of 4)."""
    one = scored(1e-5, 1.0, chunks=2)
    change = change_of("top1_agreement", one, one)
    assert (change.at, change.below) == (0.0, pytest.approx(12 / 512 / 1.644854))
    assert words(compared(one, one))["top1_agreement"] is Word.CANNOT_TELL


def other_tokens(one: Scored) -> Scored:
    """The same scores of another text."""
    return replace(one, columns={**one.columns, "token": np.asarray(one.columns["token"]) + 1})


def other_reference(one: Scored) -> Scored:
    """The same scores against a reference that finds the text harder."""
    return replace(one, columns={**one.columns, "nll_reference": np.asarray(one.columns["nll_reference"]) + 0.01})


def failed(one: Scored) -> Scored:
    """No scores."""
    return Scored(QualityEntry(status="failed", reason="its process was killed"))


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (other_tokens, "not scored on the same tokens"),
        (other_reference, "not scored against the same reference"),
        (failed, "head was not scored: its process was killed"),
    ],
)
def test_what_is_not_comparable_is_no_pass(head: Any, why: str) -> None:
    """Cannot tell, with the reason, also where the numbers look the same."""
    one = scored(1e-4, 0.99)
    found = compared(one, head(one))
    assert set(words(found).values()) == {Word.CANNOT_TELL}
    assert found.exit_code() is ExitCode.CANNOT_TELL
    assert why in dict(lines(as_data(found)))["QUALITY"]


def test_a_divergence_of_which_a_bound_is_known_leaves_the_agreement() -> None:
    """It does not gate by itself; asked for, nobody can tell."""
    one = scored(1e-4, 0.99)
    bounded = replace(one, columns={**one.columns, "kl": np.full(CHUNKS * EACH, math.nan)})
    assert words(compared(bounded, bounded)) == {"top1_agreement": Word.NO_WORSE}
    assert words(compared(bounded, bounded, "kl +0.01")) == {"kl_mean": Word.CANNOT_TELL}


def test_how_much_text_would_settle_it() -> None:
    """With that much, the same difference is told; nothing is said where it is told already."""
    base, head = scored(3e-4, 0.985), scored(3e-4, 0.9695, seed=2)
    (open_,) = [one for one in quality_changes(base, head) if one.margin.metric == "top1_agreement"]
    needed = told(base, head, [open_], ALPHA)["tokens_needed"]
    assert needed > CHUNKS * 2 * EACH
    more = math.sqrt(needed / (CHUNKS * 2 * EACH))
    beyond = abs(open_.change.at - open_.margin.worse)
    assert beyond >= one_sided_factor(math.inf, ALPHA) * open_.change.below / more
    sure = compared(base, scored(0.1, 0.6, seed=2))
    assert sure.quality[0]["tokens_needed"] is None


def test_scores_alone_are_compared() -> None:
    """Two runs without load, as `harness quality` stores them."""
    sides = [replace(side(), quality={KEYS: one}) for one in (scored(1e-4, 0.99), scored(5e-3, 0.95, seed=2))]
    found = compare(sides[0], sides[1])
    assert (found.word, found.starts) == (Word.REGRESSED, (1, 1))
    assert compare(sides[0], sides[0]).word is Word.NO_WORSE


def test_scores_of_one_side_are_told_and_decide_nothing() -> None:
    """But a margin on them is refused."""
    one = replace(side(measured(), name="new"), quality={KEYS: scored(1e-4, 0.99)})
    found = compare(side(measured()), one)
    assert (found.word, found.missing) == (Word.UNCHANGED, ["only new was scored for quality"])
    with pytest.raises(UsageError, match=r"--fail-on kl \+0\.01: both runs need `quality`"):
        compare(side(measured()), one, [parse_margin("kl +0.01")])
