"""`harness compare` on stored runs, from the command line to the exit code."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from command import VIRTUAL_TIME, scenario

import harness
from tests.forked import harness as command

pytestmark = pytest.mark.slow
LOAD = [{"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 150, "timeout": "5s"}]
RUNS = {"base": {}, "same": {}, "slow": {"ttft_ms": 72.0}, "fast": {"ttft_ms": 45.0}}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/` of one engine at several speeds, in the order of RUNS, each with its name as a label."""
    folder = tmp_path_factory.mktemp("compared")
    for name, options in RUNS.items():
        engine = {"engine": "simulated", "options": {"ttft_ms": 60.0, "tpot_ms": 2.0, **options}}
        path = scenario(folder, name="s", engines=[engine], load=LOAD, seed=7)
        arguments = ("run", str(path), "--out", f"runs/{name}", "--label", f"kind={name}", "--format", "json", "-q")
        ended = command(*arguments, cwd=folder, env=VIRTUAL_TIME)
        assert ended.code == 0, ended.err
    return folder


@pytest.mark.parametrize(
    ("runs", "code", "words"),
    [
        (("base", "same"), 0, ("UNCHANGED", "0 %")),
        (("base", "slow"), 5, ("REGRESSED", "TTFT p50", "60.", "72.", "+20.0 %", "exit 5")),
        (("base", "fast"), 0, ("IMPROVED", "−25.0 %")),
        (("slow", "base"), 0, ("IMPROVED",)),
        (("runs/base", "kind=slow"), 5, ("REGRESSED",)),
        (("latest~3", "latest~1"), 5, ("REGRESSED",)),
        (("base", "same", "slow"), 5, ("UNCHANGED", "REGRESSED")),
    ],
)
def test_the_word_is_the_exit_code(stored: Path, runs: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    """Runs are named by folder, name, label or age; of several the worst code counts."""
    ended = command("compare", *runs, cwd=stored)
    assert ended.code == code, ended.out + ended.err
    text = ended.out.replace("\u202f", " ")
    assert all(word in text for word in words), ended.out
    assert "two runs, not two builds" in text


def test_the_same_requests_are_compared_one_by_one(stored: Path) -> None:
    """So 150 of them tell 20 % within a tenth of a per cent, and p95 gates where it is asked for."""
    ended = command("compare", "base", "slow", "--fail-on", "ttft p95 +10%", "--json", cwd=stored)
    assert ended.code == 5, ended.err
    found = json.loads(ended.out)
    (row,) = [row for row in found["rows"] if row["gates"]]
    assert (row["metric"], row["statistic"], row["method"]) == ("ttft_ms", "p95", "request by request")
    assert row["low"] <= row["change"] <= row["high"]
    assert row["change"] == pytest.approx(1.2, rel=0.01)
    assert (found["word"], found["exit_code"], found["starts"]) == ("regressed", 5, [1, 1])
    assert [(one["what"], one["base"], one["head"]) for one in found["differs"]] == [("ttft_ms", "60.0", "72.0")]
    assert command("compare", "base", "slow", "--fail-on", "ttft p95 +30%", cwd=stored).code == 0


@pytest.fixture(scope="module")
def files(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files of a comparison that tells a regression."""
    folder = tmp_path_factory.mktemp("files") / "c"
    ended = command("compare", "base", "slow", "--format", "html,md,json,csv,junit", "--out", str(folder), cwd=stored)
    assert ended.code == 5, ended.err
    return folder


def test_files_for_a_comment_and_for_programs(files: Path) -> None:
    """Markdown begins with the verdict; JSON and CSV have every number."""
    text = (files / "comparison.md").read_text().replace("\u202f", " ")
    assert text.startswith("## REGRESSED TTFT p50")
    assert "| sustained" in text
    data = json.loads((files / "comparison.json").read_text())
    with (files / "comparison.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [row["metric"] for row in rows] == [row["metric"] for row in data["rows"]]
    assert float(rows[0]["change"]) == data["rows"][0]["change"]


def test_the_page_and_the_test_cases(files: Path) -> None:
    """The page loads nothing and has its pictures; JUnit has a case for each gating number."""
    page = (files / "comparison.html").read_text()
    assert "REGRESSED" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    for title in (
        "Changes that gate",
        "Changes that do not gate",
        "TTFT, sustained",
        "end to end, sustained",
        "Over time",
    ):
        assert title in page
    suite = ET.fromstring((files / "comparison.xml").read_text())
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "regressed"
    assert "TTFT p50 60" in str(failure.get("message"))


def test_a_narrow_terminal_keeps_the_verdicts(stored: Path) -> None:
    """Columns that explain are left out first."""
    ended = command("compare", "base", "slow", cwd=stored, env={"COLUMNS": "60"})
    assert ended.code == 5
    assert all(
        len(line) <= 60 for line in ended.out.splitlines() if "─" in line or ("TTFT" in line and "→" not in line)
    )
    assert sum("regressed" in line for line in ended.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("base",), "name a baseline and a run, such as `harness compare base latest`"),
        (("base", "nowhere"), "there is no run 'nowhere'"),
        (("base", "latest~9"), "latest~9: runs/ has 4 runs"),
        (("base", "slow", "--fail-on", "ttft +10%"), "--fail-on: `ttft_ms` needs a statistic"),
        (("base", "slow", "--across", "hardwere"), "--across hardwere: did you mean `hardware`"),
        (("base", "slow", "--format", "pdf"), "--format pdf: known are html, md, json, csv, junit"),
        (("base", "slow", "--inconclusive", "maybe"), "--inconclusive maybe: write fail or warn"),
    ],
)
def test_a_slip_is_one_sentence(stored: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """With what to write instead."""
    ended = command("compare", *arguments, cwd=stored)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err, ended.err
    assert len(ended.err.splitlines()) == 1


def test_from_python(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as a data frame; runs are named or given."""
    monkeypatch.chdir(stored)
    found = harness.compare("base", harness.load("slow"), fail_on={"ttft_p95": "+10%"})
    assert (found.verdict, found.exit_code) == ("regressed", 5)
    (row,) = found.table[found.table["gates"]].to_dict("records")
    assert (row["metric"], row["statistic"]) == ("ttft_ms", "p95")
    assert row["head_value"] / row["base_value"] == pytest.approx(row["change"])
    assert found.differs["what"].tolist() == ["ttft_ms"]
    assert "REGRESSED" in repr(found)


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three variants, four starts of each."""
    folder = tmp_path_factory.mktemp("variants")
    each = {"one": {"ttft_ms": 40}, "same": {"ttft_ms": 40}, "slow": {"ttft_ms": 60}}
    path = scenario(folder, engines=[{"engine": "simulated", "variants": each}], load=LOAD, repetitions=4)
    ended = command("run", str(path), "--out", "run", "--format", "json", "-q", cwd=folder, env=VIRTUAL_TIME)
    assert ended.code == 0, ended.err
    return folder


def test_configurations_of_one_run_are_compared(variants: Path) -> None:
    """Each with the first, or with the one that is named; starts that took turns are pairs."""
    ended = command("compare", "run", "--by", "variant", "--json", cwd=variants)
    assert ended.code == 5, ended.err
    found = json.loads(ended.out)
    assert [(one["base"]["name"], one["head"]["name"], one["word"]) for one in found] == [
        ("one", "same", "unchanged"),
        ("one", "slow", "regressed"),
    ]
    ended = command("compare", "run", "--by", "variant", "--against", "slow", "--json", cwd=variants)
    assert ended.code == 0, ended.err
    assert [(one["head"]["name"], one["word"]) for one in json.loads(ended.out)] == [
        ("one", "improved"),
        ("same", "improved"),
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--by", "varient"), "--by varient: did you mean `variant`"),
        (("--by", "engine"), "--by engine: run has one engine, simulated; there is nothing to compare"),
        (("--by", "variant", "--against", "slower"), "--against slower: did you mean `slow`"),
        (("--against", "slow"), "--by compares the configurations of one run"),
        ((), "or what to compare within it: `harness compare run --by variant`"),
    ],
)
def test_what_cannot_be_compared_within_a_run(variants: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """One sentence with what to write instead."""
    ended = command("compare", "run", *arguments, cwd=variants)
    assert (ended.code, sentence in ended.err, len(ended.err.splitlines())) == (2, True, 1), ended.err


def changed(stored: Path, tmp_path: Path, **keys: Any) -> Path:
    """A copy of a run with other keys of its manifest."""
    copy = tmp_path / "copy"
    shutil.copytree(stored / "runs" / "slow", copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | keys))
    return copy


def test_another_machine_is_refused_unless_it_is_meant(stored: Path, tmp_path: Path) -> None:
    """Both values are named, and the option that allows it."""
    machine = json.loads((stored / "runs" / "slow" / "manifest.json").read_text())["provenance"]["must_match"]
    copy = changed(stored, tmp_path, provenance={"must_match": machine | {"cpu": "Z80"}})
    ended = command("compare", "base", str(copy), cwd=stored)
    assert ended.code == 2
    assert f"cpu: {machine['cpu']} and Z80. If that is meant, add --across hardware" in ended.err
    assert command("compare", "base", str(copy), "--across", "hardware", cwd=stored).code == 5


def test_a_run_that_cannot_be_read_is_one_sentence(stored: Path, tmp_path: Path) -> None:
    """A future version, and a manifest that is none."""
    ended = command("compare", "base", str(changed(stored, tmp_path, format=999)), cwd=stored)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    ended = command("compare", str(broken), "base", cwd=stored)
    assert (ended.code, len(ended.err.splitlines())) == (2, 1), ended.err
    assert str(broken) in ended.err
