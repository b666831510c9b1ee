"""Who counted tokens, and whether the counts agree."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.reading import read
from harness.analysis.tokens import tokens_of
from harness.records import Record
from harness.verdict.reason import Level
from harness.verdict.tokens import token_reasons
from tests.fabricated import FabricatedTrial, cell_entry, failed, streamed, trial_entry


def told(records: list[Record], **changes: Any) -> tuple[dict[str, Any], dict[str, Level]]:
    """The facts of these records, and the reasons that they give."""
    trial = trial_entry(**changes)
    reading = read(FabricatedTrial(cell_entry(), trial, records))
    tokens = tokens_of(trial, reading)
    reasons = token_reasons(trial, reading, tokens)
    return tokens, {reason.code: reason.level for reason in reasons}


def replies(n: int = 20, **changes: Any) -> list[Record]:
    """Replies of 100 tokens each, as the server's usage says."""
    return [streamed(i, i * 100, tokens=100, **changes) for i in range(n)]


def test_replies_are_counted_by_their_source() -> None:
    """Measured ones that succeeded, each with who counted it; some with nobody."""
    records = [
        *replies(3),
        *(streamed(i, i * 100, token_source="chunks") for i in range(3, 5)),
        streamed(5, 500, token_source=None, output_tokens=None),
        streamed(6, 600, phase="warmup"),
        failed(7, 700, "timeout", 1000),
    ]
    tokens, reasons = told(records)
    assert tokens["counted_by"] == {"usage": 3, "chunks": 2, "nobody": 1}
    assert reasons == {"token_counts": Level.VALID}


@pytest.mark.parametrize(("total", "level"), [(100, None), (99, Level.WARN), (95, Level.INVALID), (106, Level.INVALID)])
def test_chunks_against_the_total(total: int, level: Level | None) -> None:
    """1 % in between is doubted, 5 % voids what is made of tokens; the same is nothing."""
    tokens, reasons = told(replies(output_tokens=total))
    assert tokens["chunks"]["median_share"] == pytest.approx(100 / total - 1)
    assert reasons.get("token_counts") == level


def test_chunks_are_not_compared_with_themselves() -> None:
    """Where the engine's own counts are the total there is no second opinion."""
    assert told(replies(token_source="engine"))[0]["chunks"] is None


@pytest.mark.parametrize(
    ("by_text", "hidden", "level"),
    [(100, None, None), (99, None, None), (91, None, None), (89, None, Level.WARN), (50, 50, None)],
)
def test_texts_against_the_total(by_text: int, hidden: int | None, level: Level | None) -> None:
    """The token that ends a reply and hidden reasoning have no text; any other difference is doubted, never more."""
    tokens, reasons = told(replies(retokenized_tokens=by_text, reasoning_tokens=hidden))
    assert reasons.get("token_counts") == level
    if hidden is None:
        assert tokens["text"]["replies"] == 20
        assert tokens["text"]["worst_share"] == pytest.approx(0 if by_text >= 99 else by_text / 100 - 1)
    else:
        assert tokens["text"] is None


def test_a_few_texts_are_told_and_not_judged() -> None:
    """Nine replies are no reason to doubt."""
    tokens, reasons = told(replies(9, retokenized_tokens=50))
    assert (tokens["text"]["replies"], reasons) == (9, {})


@pytest.mark.parametrize(
    ("got", "pinned", "share", "doubted"),
    [
        (100, ["default"], 1.0, False),
        (99, ["default"], 1.0, False),
        (60, ["default"], 0.9, True),
        (60, [], None, True),  # cut short by the context
    ],
)
def test_replies_as_long_as_asked(got: int, pinned: list[str], share: float | None, doubted: bool) -> None:
    """Below 99 % of those whose length the plan fixed, or that ended by `length` too soon, it says so."""
    records = [*replies(18), *(streamed(i, i * 100, tokens=got, requested_output_tokens=100) for i in range(18, 20))]
    tokens, reasons = told(records, pinned_outputs=pinned)
    fidelity = tokens["length_fidelity"]
    assert (None if fidelity is None else fidelity["share"]) == share
    assert ("lengths" in reasons) == doubted


@pytest.mark.parametrize(
    ("asked", "counted", "source", "doubted"),
    [
        (58, 15, "tokenizer", True),
        (1000, 512, "tokenizer", True),
        (1000, 905, "tokenizer", False),
        (16, 52, "tokenizer", False),  # a chat's template around it
        (8, 7, "tokenizer", False),
        (100, 200, "tokenizer", True),
        (100, 70, "estimated", False),
        (100, 40, "estimated", True),
        (100, 0, "tokenizer", False),  # a server that does not count prompts
    ],
)
def test_prompts_as_long_as_planned(asked: int, counted: int, source: str, doubted: bool) -> None:
    """More than a tenth off beyond what a template adds is doubted; where the plan estimated them, half."""
    lengths = {"requested_prompt_tokens": asked, "prompt_tokens": counted}
    tokens, reasons = told(replies(3, **lengths), prompt_length_source={"default": source})
    assert ("prompts" in reasons) == doubted
    if counted:
        assert tokens["prompts"]["median_share"] == pytest.approx(counted / asked - 1)
    else:
        assert tokens["prompts"] is None


def test_prompts_that_the_plan_itself_counted_are_not_compared() -> None:
    """Nor are later turns, which carry the conversation before them."""
    ours = replies(5, token_source="tokenizer", prompt_tokens=20)
    later = replies(5, turn=1, prompt_tokens=500)
    assert told([*ours, *later])[0]["prompts"] is None
