"""Result files of other tools at the command line: compared, imported, skipped if they cannot be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import VIRTUAL_TIME, scenario

from tests.forked import harness

pytestmark = pytest.mark.slow
DATA = Path(__file__).parent / "data" / "foreign"
DETAILED, VALUES = str(DATA / "vllm_bench_detailed.json"), str(DATA / "vllm_bench.json")


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    """The same run of vLLM's client with first tokens twice as late."""
    data = json.loads(Path(DETAILED).read_text())
    data["ttfts"] = [2 * one for one in data["ttfts"]]
    file = tmp_path / "slower.json"
    file.write_text(json.dumps(data))
    return file


def test_a_file_stands_wherever_a_run_does(slower: Path, tmp_path: Path) -> None:
    """With requests it can regress; which tool it is from, and what that means, is said."""
    ended = harness("compare", DETAILED, str(slower), cwd=tmp_path)
    text = " ".join(ended.out.replace("\u202f", " ").split())
    assert ended.code == 5, ended.out + ended.err
    assert "REGRESSED TTFT p50 from sent 33.4 ms → 66.8 ms" in text
    assert "Load generator not verified" in text
    assert "count from sending" in text


def test_values_only_cannot_tell_and_says_why(tmp_path: Path) -> None:
    """However large the change is."""
    ended = harness("compare", VALUES, DETAILED, "--json", cwd=tmp_path)
    found = json.loads(ended.out)
    assert (ended.code, found["word"]) == (6, "cannot tell")
    origins = [found[side]["origin"] for side in ("base", "head")]
    assert [(one["tool"], one["values_only"]) for one in origins] == [
        ("vllm bench serve", True),
        ("vllm bench serve", False),
    ]
    assert not any(one["load_generator_verified"] for one in origins)
    shown = harness("compare", VALUES, DETAILED, cwd=tmp_path)
    assert "values only: a file has no rows of requests" in " ".join(shown.out.split())


def test_every_file_of_a_comparison_says_that_the_load_generator_is_not_verified(tmp_path: Path) -> None:
    """The page has no curves of theirs, and is made all the same."""
    ended = harness("compare", DETAILED, VALUES, "--format", "html,md,json", "--out", "c", cwd=tmp_path)
    assert ended.code == 6, ended.err
    for name, words in (("html", "not verified"), ("md", "not verified"), ("json", '"load_generator_verified": false')):
        assert words in (tmp_path / "c" / f"comparison.{name}").read_text(encoding="utf-8")


def test_damaged_files_are_named_and_the_others_are_compared(slower: Path, tmp_path: Path) -> None:
    """The exit code says that something was left out; alone, or as the baseline, one is an error."""
    damaged, other = tmp_path / "half.json", tmp_path / "other.json"
    damaged.write_text(Path(DETAILED).read_text()[:5000])
    other.write_text('{"hello": 1}')
    ended = harness("compare", DETAILED, str(damaged), str(slower), str(other), cwd=tmp_path)
    assert ended.code == 2
    assert "REGRESSED" in ended.out
    first, second = ended.err.splitlines()
    assert f"{damaged}: it is damaged or half-written" in first
    assert f"{other}: it is no result of a tool that can be read" in second
    for arguments in ((DETAILED, str(damaged)), (str(damaged), DETAILED)):
        alone = harness("compare", *arguments, cwd=tmp_path)
        assert (alone.code, alone.out, len(alone.err.splitlines())) == (2, "", 1)


def test_imported_files_are_found_as_runs_are(slower: Path, tmp_path: Path) -> None:
    """By name, age and label; what cannot be read is named and skipped, and the original is kept."""
    damaged = tmp_path / "half.json"
    damaged.write_text("{")
    ended = harness("import", DETAILED, str(damaged), str(DATA / "aiperf"), "--label", "of=vllm", cwd=tmp_path)
    assert ended.code == 2
    assert ended.err.count("load generator not verified; stored in runs/") == 2
    assert f"{damaged}: it is damaged or half-written" in ended.err
    assert harness("import", str(slower), "--json", cwd=tmp_path).code == 0
    (copy,) = tmp_path.glob("runs/*-vllm_bench_detailed/vllm_bench_detailed.json")
    assert copy.read_bytes() == Path(DETAILED).read_bytes()
    for head in ("slower", "latest"):
        assert harness("compare", "vllm_bench_detailed", head, cwd=tmp_path).code == 5
    by_label = harness("compare", "of=vllm", "latest~1", "--json", cwd=tmp_path)
    assert json.loads(by_label.out)["base"]["origin"]["tool"] == "AIPerf"
    assert {path.name for path in tmp_path.glob("runs/*-aiperf/*")} == {
        "foreign.json",
        "profile_export.jsonl",
        "profile_export_aiperf.json",
    }


def test_a_future_import_is_one_sentence(tmp_path: Path) -> None:
    """A newer version of harness wrote its entry."""
    assert harness("import", DETAILED, "--out", "mine", cwd=tmp_path).code == 0
    entry = tmp_path / "mine" / "foreign.json"
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"format": 99}))
    ended = harness("compare", "mine", DETAILED, cwd=tmp_path)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "is of a newer version of harness" in ended.err
    assert harness("import", DETAILED, "--out", "mine", cwd=tmp_path).code == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("import", "nowhere.json"), "nowhere.json: there is no such file"),
        (("import", DETAILED, VALUES, "--out", "x"), "--out is for one file"),
        (("import", DETAILED, "--label", "x"), "--label x: write KEY=VALUE"),
        (("compare", DETAILED, "x" * 5000), "name the folder of a run"),
        (("compare", DETAILED, str(DATA / "aiperf")), "have no load in common"),
        (("compare", DETAILED, str(DATA / "aiperf"), "--across", "load"), "If that is meant, add --across driver"),
    ],
)
def test_a_slip_is_one_sentence(arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    """With what to write instead."""
    ended = harness(*arguments, cwd=tmp_path)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert sentence in ended.err


def test_a_run_of_ours_is_compared_with_the_file_of_another_tool(tmp_path: Path) -> None:
    """By rate, once the driver may differ; both from sent. What the file does not say is no difference."""
    engine = {"engine": "simulated", "options": {"ttft_ms": 60.0, "tpot_ms": 2.0}}
    load = [{"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 60, "timeout": "5s"}]
    workload = {"prompt_tokens": 32, "output_tokens": 8}
    path = scenario(tmp_path, name="s", engines=[engine], load=load, workload=workload, seed=7)
    ran = harness("run", str(path), "--out", "runs/own", "--format", "json", "-q", cwd=tmp_path, env=VIRTUAL_TIME)
    assert ran.code == 0, ran.err
    theirs = str(shutil.copy(DATA / "sglang_details.jsonl", tmp_path))
    refused = harness("compare", "own", theirs, cwd=tmp_path)
    assert (refused.code, refused.out) == (2, "")
    assert "inprocess and SGLang bench_serving. If that is meant, add --across driver" in refused.err
    other = tmp_path / "other.jsonl"
    other.write_text(Path(theirs).read_text().replace('"random_output_len": 8', '"random_output_len": 16'))
    unlike = harness("compare", "own", str(other), "--across", "driver", cwd=tmp_path)
    assert "workload.output_tokens.value (sustained): 8 and 16. If that is meant, add --across load" in unlike.err
    ended = harness("compare", "own", theirs, "--across", "driver", "--fail-on", "ttft p50 +10%", cwd=tmp_path)
    assert ended.code == 0, ended.out + ended.err
    assert "IMPROVED  TTFT p50 from sent" in ended.out.replace("\u202f", " ")


def test_a_run_is_exported_in_llm_ds_form(tmp_path: Path) -> None:
    """And compared with itself in that form: both count from due."""
    path = scenario(tmp_path)
    arguments = ("--out", "runs/own", "-q", "--format", "json", "--export", "benchmark-report:br.yaml")
    assert harness("run", str(path), *arguments, cwd=tmp_path, env=VIRTUAL_TIME).code == 0
    assert json.loads((tmp_path / "br.yaml").read_text())["version"] == "0.2.1"
    ended = harness("compare", "own", "br.yaml", "--across", "driver", "--json", cwd=tmp_path)
    found = json.loads(ended.out)
    assert ended.code == 6
    ttft = next(row for row in found["rows"] if row["metric"] == "ttft_ms")
    assert ttft["base"]["value"] == ttft["head"]["value"]


def test_an_export_of_several_loads_says_which_files_it_wrote(tmp_path: Path) -> None:
    """The form holds one load a file."""
    load = [{"kind": "sustained", "rate": [10, 20], "requests": 5, "timeout": "5s"}]
    arguments = ("--out", "runs/own", "-q", "--format", "json", "--export", "benchmark-report:br.json")
    ended = harness("run", str(scenario(tmp_path, load=load)), *arguments, cwd=tmp_path, env=VIRTUAL_TIME)
    assert "wrote br_0.json to br_1.json, a file for each load" in ended.err
    assert {path.name for path in tmp_path.glob("br*")} == {"br_0.json", "br_1.json"}
