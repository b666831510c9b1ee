"""Recorded traffic: layouts, thinning, and the plans made of it."""

# The sentences are kept whole.
# ruff: noqa: E501

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ScenarioError
from harness.scenario.files.traces import read_trace
from harness.scenario.model import Scenario
from harness.scenario.reader import load
from harness.schedule.cells import Cell, identity
from harness.schedule.matrix import expand
from harness.schedule.requests import Schedule, build
from harness.schedule.timing import Window
from harness.units import Range
from tests.plans import load_of, workload_of

SECOND_NS = 1_000_000_000
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,4808,10\r\n"
    "2023-11-16 18:17:04.0319600,3180,8\r\n\r\n"
    "2023-11-16 18:17:04.0319601,110,27"
)
MOONCAKE = "".join(
    json.dumps({"timestamp": at, "input_length": 7, "output_length": 5, "hash_ids": [1]}) + "\n"
    for at in (500, 500, 3500)
)
OURS = "due_s,prompt_tokens,output_tokens,note\n2.5,10,20,b\n0.000000001,30,40,a\n"


def written(folder: Path, text: str, name: str = "trace") -> Path:
    """A file with that text."""
    path = folder / name
    path.write_bytes(text.encode())
    return path


def plan(path: Path, seed: int = 1, **keys: object) -> Schedule:
    """The plan of a trace."""
    return build(load_of(kind="trace", file=str(path), **keys), workload_of(), seed)


def test_the_layouts_of_the_public_traces_are_read(tmp_path: Path) -> None:
    """Clock times and milliseconds count from the first request, to the nanosecond."""
    azure = read_trace(written(tmp_path, AZURE))
    assert azure.due_ns.tolist() == [0, 52_000_000, 52_000_100]
    assert (azure.prompt_tokens.tolist(), azure.output_tokens.tolist()) == ([4808, 3180, 110], [10, 8, 27])
    mooncake = read_trace(written(tmp_path, MOONCAKE))
    assert (mooncake.due_ns.tolist(), mooncake.output_tokens.tolist()) == ([0, 0, 3 * SECOND_NS], [5, 5, 5])


def test_our_own_layout_counts_from_its_start_and_is_sorted(tmp_path: Path) -> None:
    """As CSV and as JSON Lines alike."""
    trace = read_trace(written(tmp_path, OURS))
    assert (trace.due_ns.tolist(), trace.prompt_tokens.tolist()) == ([1, 2_500_000_000], [30, 10])
    rows = [{"due_s": at, "prompt_tokens": 10, "output_tokens": 20} for at in (2.5, 1e-9)]
    lines = "\n".join(json.dumps(row) for row in rows)
    assert read_trace(written(tmp_path, lines)).due_ns.tolist() == [1, 2_500_000_000]


def test_clock_times_may_have_a_zone(tmp_path: Path) -> None:
    """Two zones, one instant; and midnight is crossed."""
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
        f"{at},1,1\n"
        for at in ("2024-05-10 00:00:00.009930+00:00", "2024-05-10T02:00:00.00993+0200", "2024-05-11 00:00:00Z")
    )
    assert read_trace(written(tmp_path, text)).due_ns.tolist() == [0, 0, 86_400 * SECOND_NS - 9_930_000]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ["contains no requests"]),
        ("a,b\n1,2\n", [":1: load.file: does not have the columns of a trace; write `due_s, prompt_tokens, output_tokens`, or "]),
        (
            "due_s,prompt_tokens,output_tokens\n1,2\nx,1,1\n-1,1,1\n1,0,1\n1,1,1.5\nnan,1,1\n",
            [
                ":2: load.file: has no `output_tokens`",
                ":3: load.file: `due_s` is not a time: 'x'",
                ":4: load.file: `due_s` is not a time: '-1'",
                ":5: load.file: `prompt_tokens` must be a whole number of at least 1, found '0'",
                ":6: load.file: `output_tokens` must be a whole number of at least 1, found '1.5'",
                ":7: load.file: `due_s` is not a time: 'nan'",
            ],
        ),
        ('{"x": 1}\n', [":1: load.file: does not have the keys of a trace"]),
        (MOONCAKE + "{\n[1]\n", [":4: load.file: is not JSON", ":5: load.file: is not a JSON object; write one a line"]),
        (AZURE.replace("2023-11-16 18:17:04.0319600", "2023-13-16 18:17:04"), [":3: load.file: `TIMESTAMP` is not a time"]),
    ],
)  # fmt: skip
def test_malformed_lines_are_named(tmp_path: Path, text: str, sentences: list[str]) -> None:
    """Each bad line gives a problem with its file and line."""
    with pytest.raises(ScenarioError) as caught:
        read_trace(written(tmp_path, text))
    assert len(caught.value.problems) == len(sentences)
    for problem, sentence in zip(caught.value.problems, sentences, strict=True):
        assert sentence in str(problem)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: ("{" + text).encode())))
def test_any_file_gives_a_trace_or_a_scenario_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No content leads to another exception."""
    path = tmp_path_factory.mktemp("fuzz") / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(ScenarioError, match=r"trace\.csv"):
        read_trace(path)


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 9999), st.integers(1, 9999)), min_size=1))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]
) -> None:
    """In order of time, exact to the nanosecond."""
    lines = [f"{at // SECOND_NS}.{at % SECOND_NS:09d},{asked},{replied}" for at, asked, replied in rows]
    text = "\n".join(["due_s,prompt_tokens,output_tokens", *lines])
    trace = read_trace(written(tmp_path_factory.mktemp("trace"), text))
    found = zip(trace.due_ns.tolist(), trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True)
    assert list(found) == sorted(rows, key=lambda row: row[0])


def test_a_plan_has_the_times_and_lengths_of_its_trace(tmp_path: Path) -> None:
    """Times are stretched, the warm-up is labelled, and lengths are as recorded by default."""
    path = written(tmp_path, AZURE)
    schedule = plan(path, time_scale=100, warmup="5s")
    assert (schedule.count, schedule.window, schedule.continues) == (3, Window(5 * SECOND_NS, None), False)
    rows = [schedule.row(i) for i in range(3)]
    assert [row.due_ns for row in rows] == [0, 5_200_000_000, 5_200_010_000]
    assert [(row.phase, row.prompt_tokens, row.output_tokens) for row in rows] == [
        ("warmup", 4808, 10), ("measure", 3180, 8), ("measure", 110, 27)
    ]  # fmt: skip
    assert schedule.request(2).exact
    assert not plan(path, exact=False).request(2).exact


def test_a_sample_keeps_the_shape_of_bursts(tmp_path: Path) -> None:
    """A tenth of each burst, no gap moved; a smaller sample is part of a larger one, another seed another choice."""
    lines = [f"{10 * (i // 1000)}.{i % 1000:03d},5,5" for i in range(5000)]
    path = written(tmp_path, "\n".join(["due_s,prompt_tokens,output_tokens", *lines]))
    due_ns, less, other = (
        one.due_ns for one in (plan(path, sample=0.1), plan(path, sample=0.05), plan(path, 2, sample=0.1))
    )
    assert due_ns is not None
    assert less is not None
    assert other is not None
    counts = np.bincount(due_ns // (10 * SECOND_NS))
    assert counts == pytest.approx(np.full(5, 100), abs=40)
    assert set(due_ns.tolist()) <= set(read_trace(path).due_ns.tolist())
    assert set(less.tolist()) < set(due_ns.tolist())
    assert due_ns.tolist() != other.tolist()


def test_a_sample_or_a_warmup_that_leaves_nothing_is_reported(tmp_path: Path) -> None:
    """With the file, the key and what to do."""
    path = written(tmp_path, OURS)
    with pytest.raises(ScenarioError, match=r"load\.sample: `sample: 1e-09` leaves none of its 2 requests; raise it"):
        plan(path, sample=1e-9)
    with pytest.raises(ScenarioError, match=r"load\.warmup: is 3 s, longer than the trace \(2\.5 s\); shorten it"):
        plan(path, warmup="3s")


def scenario_with(path: Path, **keys: object) -> Scenario:
    """A scenario of one trace."""
    item = {"kind": "trace", "file": str(path), **keys}
    return Scenario.model_validate({"engines": [{"engine": "simulated"}], "load": [item]})


def test_the_content_of_the_file_is_part_of_the_plan(tmp_path: Path) -> None:
    """Another content is another plan and another trial, even where a sample shows no difference."""
    path = written(tmp_path, OURS)
    hashes, identities = set(), set()
    for text in (OURS, OURS.replace("2.5,", "2.6,"), OURS + "\n"):
        written(tmp_path, text)
        (cell,) = expand(scenario_with(path))
        assert isinstance(cell, Cell)
        hashes.add(plan(path).plan_hash)
        identities.add(identity(cell, cell.trials[0]))
    assert len(hashes) == len(identities) == 3
    assert len({plan(path, time_scale=scale).plan_hash for scale in (1, 2)}) == 2


def test_an_estimate_reads_the_trace(tmp_path: Path) -> None:
    """Requests, time and tokens before anything runs."""
    item = load_of(kind="trace", file=str(written(tmp_path, OURS)), time_scale=4, sample=0.5, timeout="10s")
    assert item.expected_requests() == Range(1, 1)
    assert item.expected_time_s() == Range(10, 20)


def test_a_scenario_names_a_trace_beside_it(tmp_path: Path) -> None:
    """Its path is relative to the scenario, and its mistakes are reported with those of the scenario."""
    written(tmp_path, OURS, "t.csv")
    written(tmp_path, "due_s,prompt_tokens,output_tokens\n1,x,1\n", "wrong.csv")
    scenario = tmp_path / "s.yaml"
    scenario.write_text("engines: [{engine: simulated}]\nload: [{kind: trace, file: t.csv}]\n")
    (item,) = load(scenario, env={}).load
    assert item.kind == "trace"
    assert item.file == tmp_path / "t.csv"
    scenario.write_text("engines: [{engine: simulated}]\nload: [{kind: trace, file: wrong.csv}]\n")
    with pytest.raises(ScenarioError, match=r"wrong\.csv:2: load\.file: `prompt_tokens` must be a whole number"):
        load(scenario, env={})
    scenario.write_text(
        "engines: [{engine: simulated}]\nload: [{kind: trace, file: no.csv}, {kind: trace, file: t.csv, rate: 2}]\n"
    )
    with pytest.raises(ScenarioError) as caught:
        load(scenario, env={})
    assert [problem.key for problem in caught.value.problems] == ["load.0.file", "load.1.rate"]
