"""Prompt lengths, made-up prompts, prompt files."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from engines.models.tokenizer import ByteTokenizer
from harness.errors import ScenarioError
from harness.scenario.files.prompts import FilePrompts
from harness.scenario.lengths import Length, ThinkTime
from harness.scenario.workload import TrafficClass
from harness.schedule.prompts import CHARACTERS_PER_TOKEN, WordPrompts, draw_lengths, draw_seconds
from harness.schedule.requests import build
from harness.seeding import generator
from tests.plans import load_of, workload_of


class WordPieces:
    """A tokenizer that splits at spaces and cuts words into pieces of up to five characters."""

    def count(self, text: str) -> int:
        """Pieces of all words; a space belongs to the word after it."""
        return sum(-(-len(word) // 5) for word in text.split(" ") if word)


class NotAdditive:
    """A tokenizer that merges any two characters in a row, across words: counts depend on the neighbours."""

    def count(self, text: str) -> int:
        """Count one token per two characters, rounded up."""
        return -(-len(text) // 2)


def length(**parameters: Any) -> Any:
    """A length distribution as the scenario file states it."""
    return TypeAdapter(Length).validate_python(parameters)


def test_lognormal_lengths_have_the_requested_median_and_p95() -> None:
    """The sample quantiles of 200,000 draws are the parameters."""
    drawn = draw_lengths(length(dist="lognormal", median=600, p95=2000), generator(1), 200_000)
    assert np.median(drawn) == pytest.approx(600, rel=0.01)
    assert np.quantile(drawn, 0.95) == pytest.approx(2000, rel=0.02)


def test_other_lengths_have_their_moments() -> None:
    """Uniform includes both ends, normal has its mean and deviation, lognormal its mean, empirical its weights."""
    uniform = draw_lengths(length(dist="uniform", min=3, max=5), generator(1), 30_000)
    assert set(uniform.tolist()) == {3, 4, 5}
    normal = draw_lengths(length(dist="normal", mean=200, sd=20), generator(1), 30_000)
    assert (normal.mean(), normal.std()) == (pytest.approx(200, abs=1), pytest.approx(20, rel=0.03))
    skewed = draw_lengths(length(dist="lognormal", mean=800, sigma=0.5), generator(1), 200_000)
    assert skewed.mean() == pytest.approx(800, rel=0.01)
    empirical = draw_lengths(length(dist="empirical", values=[10, 20], weights=[3, 1]), generator(1), 30_000)
    assert np.mean(empirical == 10) == pytest.approx(0.75, abs=0.01)


def test_lengths_outside_the_bounds_become_the_bounds() -> None:
    """Draws below `min` or above `max` are set to it, as the expected length assumes."""
    asked = length(dist="lognormal", median=100, p95=400, min=50, max=200)
    drawn = draw_lengths(asked, generator(1), 100_000)
    assert (drawn.min(), drawn.max()) == (50, 200)
    assert drawn.mean() == pytest.approx(asked.expected_tokens, rel=0.01)


def test_think_times_are_in_nanoseconds() -> None:
    """Fixed, exponential and lognormal think times have the requested mean or median."""
    times = TypeAdapter(ThinkTime)
    assert set(draw_seconds(times.validate_python("2s"), generator(1), 3).tolist()) == {2_000_000_000}
    exponential = draw_seconds(times.validate_python({"dist": "exponential", "mean": "5s"}), generator(1), 100_000)
    assert exponential.mean() == pytest.approx(5e9, rel=0.02)
    skewed = draw_seconds(
        times.validate_python({"dist": "lognormal", "median": "5s", "p95": "20s"}), generator(1), 99_999
    )
    assert np.median(skewed) == pytest.approx(5e9, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(index=st.integers(0, 10**6), tokens=st.integers(1, 3000))
def test_with_a_tokenizer_the_length_is_exact(index: int, tokens: int) -> None:
    """Every prompt has exactly the requested tokens, for any tokenizer."""
    for tokenizer, prompts in EXACT:
        assert tokenizer.count(prompts.prompt(index, tokens)) == tokens


@given(index=st.integers(0, 10**6), tokens=st.integers(5, 3000))
def test_without_a_tokenizer_the_length_is_an_estimate(index: int, tokens: int) -> None:
    """Four characters a token, up to one word; the source says that it is estimated."""
    missing = tokens * CHARACTERS_PER_TOKEN - len(ESTIMATED.prompt(index, tokens))
    assert 0 <= missing < 20
    assert ESTIMATED.source == "estimated"


def test_prompts_differ_from_the_start() -> None:
    """20,000 prompts have different first 24 characters at most, and neighbours differ in the first word."""
    starts = [ESTIMATED.prompt(index, 200)[:24] for index in range(20_000)]
    assert len(set(starts)) == len(starts)
    first_words = [start.split()[0] for start in starts]
    assert np.mean([a == b for a, b in pairwise(first_words)]) < 0.02


def test_prompts_depend_on_seed_and_index_alone() -> None:
    """Equal seeds give equal prompts in another object; another seed gives others."""
    again, other = WordPrompts(1), WordPrompts(2)
    assert [ESTIMATED.prompt(i, 50) for i in range(50)] == [again.prompt(i, 50) for i in range(50)]
    assert ESTIMATED.fingerprint == again.fingerprint != other.fingerprint
    assert all(ESTIMATED.prompt(i, 50) != other.prompt(i, 50) for i in range(50))


def heads(prompts: WordPrompts, count: int) -> list[str]:
    """The first three words of the first prompts."""
    return [" ".join(prompts.prompt(index, 60).split()[:3]) for index in range(count)]


@pytest.mark.parametrize("salt", [1, 7, 2**55])
def test_a_salt_gives_every_prompt_another_head(salt: int) -> None:
    """No prompt of one run begins as one of the other does; lengths, and what determines the plan, stay."""
    salted = WordPrompts(1, salt=salt)
    assert salted.fingerprint == ESTIMATED.fingerprint
    assert not set(heads(ESTIMATED, 2000)) & set(heads(salted, 2000))
    assert heads(salted, 100) == heads(WordPrompts(1, salt=salt), 100)
    for tokenizer, _ in EXACT:
        exact = WordPrompts(1, tokenizer, salt)
        assert [tokenizer.count(exact.prompt(index, 40)) for index in range(20)] == [40] * 20


def test_a_salt_changes_common_beginnings_too() -> None:
    """Requests share their prefixes within a run, but not across runs."""
    workload = workload_of(prompt_tokens=60, prefix={"tokens": 40})
    plain, salted = (build(load_of(kind="single_user", requests=9), workload, 1, salt=salt) for salt in (0, 5))
    assert plain.plan_hash == salted.plan_hash
    begun = [{str(plan.request(i).prompt)[:100] for i in range(9)} for plan in (plain, salted)]
    assert [len(one) for one in begun] == [1, 1]
    assert begun[0] != begun[1]


def test_prompts_are_cheap() -> None:
    """A prompt of 600 tokens costs less CPU time than hashing 200 kB does, in the same process."""
    import hashlib

    began = time.process_time()
    for index in range(500):
        ESTIMATED.prompt(index, 600)
    prompts_s = time.process_time() - began
    payload = b"x" * 200_000
    began = time.process_time()
    for _ in range(500):
        hashlib.sha256(payload).digest()
    assert prompts_s < time.process_time() - began


def test_a_file_gives_its_prompts_in_order(tmp_path: Path) -> None:
    """Lines come in order from an offset on, again from the start after the last, with their own output lengths and
    countable prompt lengths.
    """
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Hello", "output_tokens": 7, "id": 1}\n\n{"prompt": [1, 2, 3]}\n')
    prompts = FilePrompts(path, ByteTokenizer())
    in_order = ["Hello", (1, 2, 3)] * 2
    assert [prompts.prompt(i, 0) for i in range(3)] == in_order[prompts.offset : prompts.offset + 3]
    assert prompts.output_tokens.tolist() == [7, 0]
    assert prompts.prompt_tokens.tolist() == [5, 3]
    assert FilePrompts(path).prompt_tokens.tolist() == [0, 3]


def test_the_offset_in_a_file_is_drawn_from_the_seed(tmp_path: Path) -> None:
    """Two loads of one start begin in other places, evenly over the file, so that they share few prompts."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "P{i}"}}\n' for i in range(1000)))
    made = [FilePrompts(path, seed=seed) for seed in range(200)]
    assert all(0 <= one.offset < 1000 for one in made)
    assert np.mean([one.offset for one in made]) == pytest.approx(499.5, abs=70)  # 3.4 standard deviations
    assert [one.prompt(0, 0) for one in made] == [f"P{one.offset}" for one in made]
    assert FilePrompts(path, seed=7).offset == made[7].offset
    assert len({one.fingerprint for one in made}) == 1
    assert made[7].lines(np.arange(3)).tolist() == [(made[7].offset + i) % 1000 for i in range(3)]


@pytest.mark.parametrize("limit", [{"rate": 10, "requests": 300}, {"users": 2, "requests": 300}])
def test_each_class_goes_through_a_file_line_by_line(tmp_path: Path, limit: dict[str, Any]) -> None:
    """In mixed traffic too: the n-th request of a class has the n-th line behind the offset, and its length."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "P{i}", "output_tokens": {i + 1}}}\n' for i in range(97)))
    classes = {
        "read": TrafficClass.model_validate({"weight": 3, "workload": {"prompts": path}}),
        "made": TrafficClass.model_validate({"weight": 7}),
    }
    plan = build(load_of(kind="mixed", **limit), workload_of(), 3, classes=classes)
    offset = plan.prompt_files["read"]["offset"]
    assert plan.prompt_files == {"read": {"lines": 97, "offset": offset}}
    rows = [i for i in range(280) if plan.row(i).class_name == "read"]
    assert len(rows) == 84
    for number, i in enumerate(rows):
        line = (offset + number) % 97
        assert (plan.request(i).prompt, plan.request(i).max_tokens) == (f"P{line}", line + 1)


def test_every_malformed_line_is_named(tmp_path: Path) -> None:
    """Each bad line gives a problem with file, line and fix."""
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(
        b'{"prompt": "ok"}\n{"prompt": \n["a"]\n{"prompt": ""}\n{"promt": "x"}\n'
        b'{"prompt": "x", "output_tokens": 0}\n{"prompt": "\xff"}\n'
    )
    with pytest.raises(ScenarioError) as caught:
        FilePrompts(path)
    problems = caught.value.problems
    assert [problem.line for problem in problems] == [2, 3, 4, 5, 6, 7]
    assert str(problems[0]).startswith(f"{path}:2: workload.prompts: is not JSON (")
    assert problems[3].message == "unknown key 'promt'; did you mean 'prompt'?"
    assert problems[4].message == "'output_tokens' must be a whole number of at least 1, found 0"
    assert "not UTF-8" in problems[5].message


@given(st.binary(max_size=200))
def test_any_file_gives_prompts_or_a_scenario_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No content leads to another exception."""
    path = tmp_path_factory.mktemp("fuzz") / "prompts.jsonl"
    path.write_bytes(content)
    problem = ""
    try:
        count = len(FilePrompts(path))
    except ScenarioError as error:
        count, problem = 0, str(error)
    assert (count > 0) != (str(path) in problem)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_leads_to_the_fix(tmp_path: Path, content: str) -> None:
    """A file without prompts is one problem."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    with pytest.raises(ScenarioError, match=r'the file has no prompts; write one \{"prompt"'):
        FilePrompts(path)


@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "a \\ud83d b", "\\ude00\\ud83d"])
def test_half_a_character_cannot_be_sent(tmp_path: Path, half: str) -> None:
    """The line is named before anything runs; both halves are a character."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(f'{{"prompt": "\\ud83d\\ude00"}}\n{{"prompt": "{half}"}}\n')
    with pytest.raises(ScenarioError, match=r"prompts\.jsonl:2.*half a character"):
        FilePrompts(path)
    path.write_text('{"prompt": "\\ud83d\\ude00"}\n')
    assert FilePrompts(path).prompt(0, 1) == "\U0001f600"


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"prompt": ' + "9" * 5_000 + "}", '{"prompt": [' + "9" * 5_000 + "]}"]
)
def test_oversized_json_is_one_sentence(tmp_path: Path, line: str) -> None:
    """Nested without end, and numbers of thousands of digits."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ScenarioError, match=r"prompts\.jsonl:1"):
        FilePrompts(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is one problem with its path."""
    with pytest.raises(ScenarioError, match="prompts cannot be read: No such file"):
        FilePrompts(tmp_path / "nowhere.jsonl")


def test_json_of_many_lines_is_read_line_by_line(tmp_path: Path) -> None:
    """20,000 lines give 20,000 prompts."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"Prompt {i}"}) for i in range(20_000)))
    assert len(FilePrompts(path)) == 20_000


EXACT = [(tokenizer, WordPrompts(1, tokenizer)) for tokenizer in (ByteTokenizer(), WordPieces(), NotAdditive())]
ESTIMATED = WordPrompts(1)
