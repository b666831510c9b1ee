"""Layouts of public traces: BurstGPT, and Mooncake's with texts, sessions and shared blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.models.tokenizer import ByteTokenizer
from harness.errors import ScenarioError
from harness.scenario.files.traces import Trace, read_trace
from harness.schedule.requests import build
from tests.plans import load_of, workload_of

BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


def read(folder: Path, content: str) -> Trace:
    """The trace of a file with that text."""
    path = folder / "trace"
    path.write_text(content, encoding="utf-8")
    return read_trace(path)


def lines(*rows: Mapping[str, Any]) -> str:
    """The rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_failed_requests_of_burstgpt_are_skipped_and_counted(tmp_path: Path) -> None:
    """Times are seconds from the first request that is left; the note has the number."""
    trace = read(tmp_path, BURSTGPT + "5,ChatGPT,72,18,90,API log\n5.5,GPT-4,9,0,9,API log\n7.25,GPT-4,17.0,6,23,A\n")
    assert trace.due_ns.tolist() == [0, 2_250_000_000]
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == ([72, 17], [18, 6])
    assert trace.notes == ("trace: 1 of 3 requests are skipped: they failed (0 tokens)",)
    with pytest.raises(ScenarioError, match="contains no requests but 1 that failed"):
        read(tmp_path, BURSTGPT + "5,ChatGPT,72,0,72,API log\n")


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 999), st.integers(1, 999)), min_size=1, unique=True),
    random=st.randoms(use_true_random=False),
    mark=st.sampled_from(["", "\ufeff"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quote=st.sampled_from(["", '"']),
    separator=st.sampled_from([",", "\t", ";"]),
    case=st.sampled_from([str, str.upper, str.lower]),
)
def test_a_table_means_the_same_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory,
    rows: Any,
    random: Any,
    mark: Any,
    end: Any,
    quote: Any,
    separator: Any,
    case: Any,
) -> None:
    """In any order of rows, with a byte order mark, other line ends, quotes, separators and case of the header."""
    names = ["Timestamp", "Model", "Request tokens", "Response tokens"]
    table = [[case(name) for name in names], *([str(at), "m", str(a), str(b)] for at, a, b in rows)]
    body = table[1:]
    random.shuffle(body)
    text = mark + end.join(separator.join(f"{quote}{cell}{quote}" for cell in row) for row in [table[0], *body])
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_bytes(text.encode())
    trace = read_trace(path)
    first = min(at for at, _, _ in rows)
    found = zip(trace.due_ns.tolist(), trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
    assert sorted(found) == sorted(((at - first) * 10**9, asked, replied) for at, asked, replied in rows)
    assert (np.diff(trace.due_ns) >= 0).all()


def test_a_text_is_the_prompt(tmp_path: Path) -> None:
    """Its length is the tokenizer's, or unknown; a reply without length has the workload's."""
    path = tmp_path / "trace.jsonl"
    path.write_text(
        lines({"timestamp": 9, "text_input": "say hello", "output_length": 5}, {"timestamp": 0, "text_input": "é"})
    )
    load, workload = load_of(kind="trace", file=str(path)), workload_of(output_tokens=7)
    plan = build(load, workload, 1)
    assert [(plan.request(i).prompt, plan.request(i).max_tokens) for i in (0, 1)] == [("é", 7), ("say hello", 5)]
    assert plan.row(0).prompt_tokens is None
    assert plan.prompt_sources == {"default": "file"}
    assert build(load, workload, 1, tokenizer=ByteTokenizer()).row(1).prompt_tokens == 9


def test_requests_without_times_are_due_at_once(tmp_path: Path) -> None:
    """A note says so; only some without times are a mistake."""
    row = {"input_length": 67, "output_length": 5}
    trace = read(tmp_path, lines(row, row))
    assert trace.due_ns.tolist() == [0, 0]
    assert "have no `timestamp`; all are due at once" in trace.notes[0]
    with pytest.raises(ScenarioError, match=r":2: .*has no `timestamp`, unlike the requests before it"):
        read(tmp_path, lines(row | {"timestamp": 3}, row))


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"session_id": "a", "timestamp": 5}, "follows another request of its session and has no `delay`"),
        ({"session_id": "a", "delay": -1}, "`delay` is not a time: -1"),
        ({"session_id": ["a"], "timestamp": 5}, "`session_id` must be a text or a number"),
        ({"timestamp": 5, "hash_ids": "x"}, "`hash_ids` must be a list of whole numbers"),
        ({"timestamp": 5, "text_input": ""}, "`text_input` must be a text, and not empty"),
        ({"timestamp": 5, "text_input": "\ud83d"}, "`text_input` contains half a character (\\ud83d)"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, second: dict[str, Any], sentence: str) -> None:
    """With their line."""
    base = {"input_length": 67, "output_length": 5}
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path, lines(base | {"timestamp": 0, "session_id": "a"}, base | second))
    (problem,) = caught.value.problems
    assert problem.line == 2
    assert sentence in problem.message


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(-3, 5), min_size=1, max_size=4), min_size=2, max_size=5),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_shared_ids_are_shared_beginnings(
    tmp_path_factory: pytest.TempPathFactory, ids: list[list[int]], exact: bool, random: Any
) -> None:
    """Prompts have their lengths, begin alike for as many blocks as their ids do, and differ in the next block."""
    rows = [
        {"timestamp": at, "input_length": 64 * len(one) + 20, "output_length": 5, "hash_ids": one}
        for at, one in enumerate(ids)
    ]
    random.shuffle(rows)
    path = tmp_path_factory.mktemp("blocks") / "trace.jsonl"
    path.write_text(lines(*rows))
    tokenizer = ByteTokenizer() if exact else None
    plan = build(load_of(kind="trace", file=str(path), block_tokens=64), workload_of(), 1, tokenizer=tokenizer)
    prompts = [str(plan.request(i).prompt) for i in range(len(ids))]
    if exact:
        assert [len(prompt) for prompt in prompts] == [64 * len(one) + 20 for one in ids]
    for i, first in enumerate(ids):
        for j, second in enumerate(ids[:i]):
            same = next(
                (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
            )
            common = next(n for n in range(10**6) if prompts[i][n : n + 1] != prompts[j][n : n + 1])
            if exact:
                assert 64 * same <= common < 64 * (same + 1)
            assert same or common < 40
    assert plan.shares_prompts
