"""Result files of other load generators: each is read right, and every damaged one is one sentence."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.comparison.comparison import VALUES_ONLY, compare
from harness.comparison.foreign.base import ForeignRun, Rows
from harness.comparison.foreign.imports import import_result
from harness.comparison.foreign.reading import read_foreign
from harness.comparison.foreign.sides import foreign_side, side_of
from harness.comparison.judgement import Word
from harness.comparison.labels import by_label
from harness.comparison.opening import open_side
from harness.errors import RunUnreadable
from harness.scenario.margins import parse_margin

DATA = Path(__file__).parents[2] / "data" / "foreign"
SINGLE = ("vllm_bench.json", "vllm_bench_detailed.json", "guidellm.json", "sglang.jsonl", "sglang_details.jsonl")
REPORTS = ("benchmark_report_vllm.yaml", "benchmark_report_aiperf.yaml")
EVERY = (*SINGLE, *REPORTS, "aiperf")


def rows_of(run: ForeignRun) -> Rows:
    """The requests of a result with one load."""
    (load,) = run.loads
    assert load.rows is not None
    return load.rows


@pytest.mark.parametrize(
    ("file", "tool", "version", "model", "load", "requests", "failed", "has_rows"),
    [
        ("vllm_bench.json", "vllm bench serve", None, "tiny", "rate-20-most-8", 40, 3, False),
        ("vllm_bench_detailed.json", "vllm bench serve", None, "tiny", "rate-20-most-8", 40, 3, True),
        ("aiperf", "AIPerf", "0.13.0", "tiny", "rate-20", 20, 2, True),
        ("aiperf/profile_export.jsonl", "AIPerf", "0.13.0", "tiny", "rate-20", 20, 2, True),
        ("guidellm.json", "GuideLLM", "0.8.1", "tiny", "rate-20", 12, 1, True),
        ("sglang.jsonl", "SGLang bench_serving", None, None, "users-4", 37, None, False),
        ("sglang_details.jsonl", "SGLang bench_serving", None, None, "rate-20", 40, 3, True),
        (REPORTS[0], "llm-d benchmark_report of vllm-benchmark", None, None, "rate-20-most-8", 40, 3, False),
        (REPORTS[1], "llm-d benchmark_report of aiperf", None, None, "unknown-load", 20, 2, False),
    ],
)
def test_tool_load_and_requests_are_as_the_file_says(
    file: str,
    tool: str,
    version: str | None,
    model: str | None,
    load: str,
    requests: int,
    failed: int | None,
    has_rows: bool,
) -> None:
    """And what it does not say is unknown: no version, no model, no failures."""
    found = read_foreign(DATA / file)
    (one,) = found.loads
    assert (found.tool, found.version, found.model) == (tool, version, model)
    assert (one.name, one.requests, one.failed, one.rows is not None) == (load, requests, failed, has_rows)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        (
            "vllm_bench.json",
            {
                "ttft_service_ms p50": 36.36139,
                "tpot_ms p50": 2.0327472,
                "icl_ms p99": 18.57675,
                "error_rate value": 0.075,
            },
        ),
        ("vllm_bench.json", {"e2e_service_ms p95": 99.218969, "output_tokens_per_s value": 144.307354}),
        ("aiperf", {"ttft_service_ms p50": 32.125705, "tpot_ms mean": 2.0399243, "completed_rps value": 21.564165}),
        (
            "guidellm.json",
            {"e2e_service_ms p50": 50.867796, "ttft_service_ms mean": 32.948451, "tpot_ms p50": 2.0376614},
        ),
        ("sglang.jsonl", {"ttft_service_ms p50": 34.822741, "e2e_service_ms p99": 68.376381, "tpot_ms p50": 2.8450139}),
        (REPORTS[0], {"ttft_service_ms p50": 36.36139, "tpot_ms p50": 2.0327472, "completed_rps value": 18.038419}),
        (REPORTS[1], {"ttft_service_ms p95": 42.94224, "tpot_ms p50": 1.9604517, "e2e_service_ms max": 68.149762}),
    ],
)
def test_values_are_those_of_the_file_in_our_units(file: str, values: dict[str, float]) -> None:
    """Read off the files by hand; seconds of one tool are milliseconds here."""
    (load,) = read_foreign(DATA / file).loads
    for name, value in values.items():
        metric, statistic = name.split()
        assert load.values[metric, statistic] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize(
    ("file", "first", "ttft", "e2e", "tpot"),
    [
        ("vllm_bench_detailed.json", 0, 24.438000, 38.609756, 14.171756 / 7),
        ("aiperf", 0, 27.374698, 47.557255, 20.182557 / 7),
        ("guidellm.json", 0, 22.719145, 36.235332, 1.930884),
        ("sglang_details.jsonl", 0, 29.953732, 43.813984, 13.860252 / 7),
    ],
)
def test_each_request_has_its_latencies(file: str, first: int, ttft: float, e2e: float, tpot: float) -> None:
    """To the last token also where the tool's own E2E ends later; (last - first) / (tokens - 1) everywhere."""
    values = rows_of(read_foreign(DATA / file)).values
    found = [values[name][first] for name in ("ttft_service_ms", "e2e_service_ms", "tpot_ms")]
    assert found == pytest.approx([ttft, e2e, tpot], rel=1e-4)


@pytest.mark.parametrize("file", ["vllm_bench_detailed.json", "aiperf", "guidellm.json", "sglang_details.jsonl"])
def test_a_failed_request_has_no_latency_and_counts_as_an_error(file: str) -> None:
    """The tools write zeros, nothing, or a row apart."""
    rows = rows_of(read_foreign(DATA / file))
    for column in rows.values.values():
        assert [math.isnan(value) for value in column] == list(rows.failed)
    assert list(rows.sent_s) == sorted(rows.sent_s)
    assert all(end >= begin for begin, end in zip(rows.sent_s, rows.ended_s, strict=True))


@pytest.mark.parametrize("file", EVERY)
def test_it_is_told_where_numbers_mean_something_else(file: str) -> None:
    """From sending, over the whole run; interpolated only where the tool made the percentiles."""
    found = read_foreign(DATA / file)
    notes = " ".join(found.notes)
    assert "count from sending" in notes
    assert "whole run" in notes
    interpolated = found.loads[0].rows is None
    assert ("interpolated" in notes) is interpolated
    assert all(len(sentence.split()) <= 20 for sentence in notes.split(". "))


@pytest.mark.parametrize(
    ("file", "low", "value", "high"),
    [("vllm_bench_detailed.json", 20, 33.378608, 40), ("sglang_details.jsonl", 20, 31.114332, 40)],
)
def test_requests_give_intervals_by_our_statistics(file: str, low: float, value: float, high: float) -> None:
    """The server drew its first tokens from 20 to 40 ms; of 37 the median is an observed value."""
    (one,) = foreign_side(file, DATA / file).measurements
    found = one.pooled["all", "ttft_service_ms", "p50"]
    assert found.value == pytest.approx(value, rel=1e-6)
    assert low < found.low < found.value < found.high < high
    assert one.n["all", "ttft_service_ms", "p50"] == 37


def slower(file: str, folder: Path, factor: float) -> Path:
    """A copy of a JSON result whose latencies are longer by a factor."""
    data = json.loads((DATA / file).read_text())
    for key, value in data.items():
        if key.endswith("_ms"):
            data[key] = value * factor
        elif key == "ttfts":
            data[key] = [one * factor for one in value]
        elif key in ("itls",):
            data[key] = [[gap * factor for gap in one] for one in value]
    copy = folder / f"slower-{file}"
    copy.write_text(json.dumps(data))
    return copy


@pytest.mark.parametrize("file", ["vllm_bench_detailed.json", "sglang_details.jsonl"])
def test_with_requests_a_file_can_regress(file: str, tmp_path: Path) -> None:
    """First tokens twice as late are beyond 37 requests' doubt; an unpaired comparison, for the plans are unknown."""
    base, head = foreign_side("a", DATA / file), foreign_side("b", slower(file, tmp_path, 2.0))
    found = compare(base, head)
    assert found.word is Word.REGRESSED
    assert {row.change.method for row in found.gating if row.margin.metric == "ttft_service_ms"} == {
        "from the intervals of both sides"
    }


@pytest.mark.parametrize("file", ["vllm_bench.json", "sglang.jsonl"])
def test_values_alone_never_regress(file: str, tmp_path: Path) -> None:
    """Not even ten times as slow: one run a side says nothing of chance."""
    found = compare(foreign_side("a", DATA / file), foreign_side("b", slower(file, tmp_path, 10.0)))
    assert found.word is Word.CANNOT_TELL
    assert Word.REGRESSED not in {row.word for row in found.rows}
    ttft = next(row for row in found.rows if row.margin.metric == "ttft_service_ms")
    assert (ttft.change.method, ttft.change.value) == (VALUES_ONLY, pytest.approx(10.0))


def test_values_of_four_runs_a_side_are_enough(tmp_path: Path) -> None:
    """SGLang adds a line for each run; Welch's interval is that over the runs."""
    line = json.loads((DATA / "sglang.jsonl").read_text())
    sides = []
    for name, factor in (("base", 1.0), ("head", 1.5)):
        runs = [{**line, "median_ttft_ms": 30 * factor + place / 10} for place in range(4)]
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in runs))
        sides.append(foreign_side(name, file))
    found = compare(*sides)
    assert (found.starts, found.word) == ((4, 4), Word.REGRESSED)


def test_margins_from_due_ask_for_the_number_from_sent() -> None:
    """`ttft p99.9` is not in SHOWN: it is made from the requests."""
    margin = parse_margin("ttft p90 +10%")
    side = foreign_side("a", DATA / "aiperf", {("ttft_service_ms", "p90")})
    (row,) = compare(side, side, [margin]).gating
    assert (row.margin.metric, row.margin.statistic, row.margin.text) == ("ttft_service_ms", "p90", margin.text)


@pytest.mark.parametrize("file", SINGLE)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_half_written_file_is_one_sentence(file: str, share: float, tmp_path: Path) -> None:
    """That names the file, and says what is wrong."""
    whole = (DATA / file).read_bytes()
    cut = tmp_path / file
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RunUnreadable, match=r"damaged or half-written|it is empty") as raised:
        read_foreign(cut)
    assert str(cut) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "it is no text"),
        (b"[1, 2]", "it is no JSON object"),
        (b'{"hello": 1}', "it is no result of a tool that can be read: vllm bench serve, AIPerf"),
        (b"{}", "it is no result of a tool"),
        (b'{"version": "0.3", "run": {}, "results": {}}', "its version is 0.3; 0.2 and 0.2.x can be read"),
        (b'{"version": "0.2.1", "run": {}, "results": {}}', "latencies of an unknown tool mean is not known"),
        (b'{"metadata": {"guidellm_version": "2.0", "version": 3}, "benchmarks": [{}]}', "its metadata.version is 3"),
        (b'{"metadata": {"guidellm_version": "2.0", "version": 2}, "benchmarks": []}', "it has no benchmarks"),
        (b'{"aiperf_version": "9", "schema_version": "2.0"}', "its schema_version is 2.0"),
        (b'{"aiperf_version": "0.13.0"}', "it has no latency"),
        (b'{"model_id": "m", "num_prompts": 4, "completed": 9, "request_throughput": 1}', "are no numbers of requests"),
        (b'{"model_id": "m", "num_prompts": 4, "completed": 0, "request_throughput": 0}', "it has no latency"),
    ],
)
def test_foreign_and_future_files_are_one_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    """With the versions that can be read."""
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(RunUnreadable, match=r"x\.json: ") as raised:
        read_foreign(file)
    assert sentence in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_damaged_line_is_left_out_and_told(tmp_path: Path) -> None:
    """The other runs of the file count."""
    line = (DATA / "sglang.jsonl").read_text()
    file = tmp_path / "s.jsonl"
    file.write_text(line + line[:200] + "\n" + line)
    found = read_foreign(file)
    assert len(found.loads) == 2
    assert "Line 2 is damaged and left out." in found.notes


def test_requests_that_are_not_all_of_the_summarys_are_not_used(tmp_path: Path) -> None:
    """AIPerf's second file was cut off: its values alone count, and no interval is made of a part."""
    copy = tmp_path / "aiperf"
    shutil.copytree(DATA / "aiperf", copy)
    rows = copy / "profile_export.jsonl"
    rows.write_text(rows.read_text()[:20000])
    (load,) = read_foreign(copy).loads
    assert load.rows is None
    rows.write_bytes(b"")
    found = read_foreign(copy)
    assert found.loads[0].rows is None
    assert "profile_export.jsonl is left out: it is empty." in found.notes


def test_requests_of_aiperf_alone_have_no_tpot(tmp_path: Path) -> None:
    """What it divides by is among the options, and so is the load: both stand in the summary."""
    found = read_foreign(Path(shutil.copy(DATA / "aiperf" / "profile_export.jsonl", tmp_path)))
    assert (found.version, found.model, found.loads[0].name) == (None, None, "unknown-load")
    assert set(rows_of(found).values) == {"ttft_service_ms", "e2e_service_ms"}
    assert "The file does not say its load." in found.notes


def changed_aiperf(folder: Path, **keys: Any) -> Path:
    """AIPerf's results with other keys of the summary; those of `endpoint` among its options."""
    copy = folder / "aiperf"
    shutil.copytree(DATA / "aiperf", copy)
    file = copy / "profile_export_aiperf.json"
    data = json.loads(file.read_text())
    data["input_config"]["endpoint"] |= keys.pop("endpoint", {})
    file.write_text(json.dumps(data | keys))
    return copy


def test_options_of_aiperf_decide_what_its_numbers_are(tmp_path: Path) -> None:
    """With a count for each chunk it divides by the tokens after the first chunk; else who counts is said."""
    found = read_foreign(changed_aiperf(tmp_path, endpoint={"per_chunk_usage": True}, was_cancelled=True))
    assert "tpot_ms" not in {name for name, _ in found.loads[0].values} | set(rows_of(found).values)
    assert found.loads[0].values["tpot_adj_ms", "mean"] == pytest.approx(2.0399243)
    assert "The run was cancelled before its end." in found.notes
    shutil.rmtree(tmp_path / "aiperf")
    found = read_foreign(changed_aiperf(tmp_path, endpoint={"use_server_token_count": False}))
    assert "Output tokens are counted by AIPerf's tokenizer, not by the server." in found.notes


def test_a_sample_of_guidellms_requests_is_not_taken_for_all(tmp_path: Path) -> None:
    """Its own values stand then, with what they mean; unfinished requests are told."""
    data = json.loads((DATA / "guidellm.json").read_text())
    (one,) = data["benchmarks"]
    del one["requests"]["successful"][3:]
    one["metrics"]["request_totals"]["incomplete"] = 4
    file = tmp_path / "g.json"
    file.write_text(json.dumps(data))
    found = read_foreign(file)
    assert found.loads[0].rows is None
    notes = " ".join(found.notes)
    assert "once for each of its tokens" in notes
    assert "4 requests were unfinished" in notes


def test_a_ramp_of_vllm_is_no_load_of_that_rate(tmp_path: Path) -> None:
    """Its rate is written as infinite, and requests are not sent at once."""
    data = json.loads((DATA / "vllm_bench.json").read_text())
    data |= {"request_rate": "inf", "max_concurrency": None}
    file = tmp_path / "v.json"
    file.write_text(json.dumps(data))
    assert read_foreign(file).loads[0].name == "all-at-once"
    file.write_text(json.dumps(data | {"ramp_up_strategy": "linear", "ramp_up_start_rps": 1, "ramp_up_end_rps": 9}))
    assert read_foreign(file).loads[0].name == "unknown-load"


JSON = some.recursive(
    some.none() | some.booleans() | some.floats() | some.integers() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("file", ["vllm_bench_detailed.json", "guidellm.json", "sglang_details.jsonl", "aiperf"])
@given(data=some.data())
def test_a_wrong_value_anywhere_is_at_most_one_sentence(
    file: str, data: some.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A result is read, with the value unknown, or refused; and what is read can be compared."""
    path = DATA / file if file != "aiperf" else DATA / file / "profile_export_aiperf.json"
    stored = json.loads(path.read_text())
    place: Any = stored
    while True:
        keys: Any = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(some.sampled_from(keys))
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner) or data.draw(some.booleans()):
            break
        place = inner
    place[key] = data.draw(JSON)
    file_ = tmp_path_factory.mktemp("wrong") / "x.json"
    file_.write_text(json.dumps(stored))
    try:
        found = read_foreign(file_)
    except RunUnreadable as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    side = side_of("x", file_, found)
    compare(side, side)


def test_an_import_has_its_labels(tmp_path: Path) -> None:
    """So imports are grouped by a label as runs are, and none is said to have no label."""
    for branch in ("main", "x"):
        import_result(DATA / "vllm_bench_detailed.json", tmp_path / branch, {"branch": branch})
    groups, without = by_label([open_side(str(tmp_path / branch)) for branch in ("main", "x")], "branch")
    assert ([*groups], without) == (["main", "x"], [])
