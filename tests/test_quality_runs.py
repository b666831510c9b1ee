"""Quality through the command line, on a real engine: levels told apart, limits judged, and what a crash costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import needs
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from command import HELD, VIRTUAL_TIME, manifest, wait_until

from tests.forked import harness, running
from tests.relay import reached

pytestmark = pytest.mark.slow

SCENARIO = """\
model: tiny
engines: [{engine: ENGINE, quantization: [LEVELS]}]
load: [{kind: single_user, requests: 2}]
quality: {reference: f16, tokens: TOKENS, chunk: 128}
limits: ["kl_mean <= 0.001"]
"""


def written(folder: Path, levels: str, tokens: int, engine: str = "llama-server") -> Path:
    """The scenario, as a file."""
    path = folder / "levels.yaml"
    path.write_text(SCENARIO.replace("ENGINE", engine).replace("LEVELS", levels).replace("TOKENS", str(tokens)))
    return path


def figures(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The pooled figures of quality by (level, metric)."""
    summary = pd.read_csv(run / "summary.csv")
    rows = summary[(summary["load"] == "quality") & (summary["repetition"] == "pooled")]
    return {(row["level"], row["metric"]): row for row in rows.to_dict("records")}  # type: ignore[misc]


def check_levels(run: Path) -> None:
    """q8_0 diverges less from f16 than q4_0, the intervals do not overlap, and the noise is below both."""
    found = figures(run)
    q8, q4 = found["q8_0", "kl_mean"], found["q4_0", "kl_mean"]
    assert q8["high"] < q4["low"]
    floor = next(iter(manifest(run)["quality"].values()))["noise_floor"]["kl_mean"]
    assert floor < q8["low"]
    assert found["q8_0", "ppl"]["unit"] == "perplexity"


def test_a_matrix_with_quality(tmp_path: Path) -> None:
    """Loads and figures of each cell in one run: limits judged once a cell, the reference scored though not measured,
    its scores deleted.
    """
    run = tmp_path / "run"
    command = ("run", str(written(tmp_path, "q8_0, q4_0", 512)), "--out", str(run), "--format", "md,csv,junit")
    ended = harness(*command, cwd=tmp_path, timeout_s=280)
    assert ended.code in (1, 4), ended.err  # q4_0 breaks the limit; a busy machine may spoil a trial as well
    check_levels(run)
    told = manifest(run)
    assert list(told["quality"]) == ["tiny-llama-server-f16"]
    for cell in told["cells"]:
        assert (cell["status"], cell["quality"]["status"], cell["trials"][0]["status"]) == ("complete",) * 3
        table = pq.read_table(run / "cells" / cell["id"] / "quality.parquet")
        assert len(table) == cell["quality"]["positions"] == 4 * 64
    assert not list((run / "quality").rglob("*.f32"))
    page = (run / "report.md").read_text()
    assert "Quality vs. reference" in page
    junit = (run / "junit.xml").read_text()
    assert junit.count("kl_mean &lt;= 0.001") == 2
    assert junit.count('message="kl_mean is 0.002') == 1


def test_a_process_killed_while_scoring_costs_the_figures_only(tmp_path: Path) -> None:
    """The loads' results stay, the reason is told, the run goes on to its end and leaves nothing behind."""
    run, never = tmp_path / "run", tmp_path / "never"
    path = written(tmp_path, "q8_0", 256, "held")
    hold = f"{{level: q8_0, requests: 20, until: {never}, head: 'POST /completion '}}"
    path.write_text(path.read_text().replace("engine: held", f"engine: held, options: {{hold: {hold}}}"))
    with running("run", str(path), "--out", str(run), "--format", "md", cwd=tmp_path, env=HELD) as process:
        wait_until(reached(never).exists, process)
        for child in psutil.Process(process.pid).children():
            child.kill()  # while its engine is asked about 128 positions, one after the other
        process.communicate(timeout=200)
    (cell,) = manifest(run)["cells"]
    assert cell["trials"][0]["status"] == "complete"
    assert "killed by SIGKILL" in cell["quality"]["reason"]
    assert (run / cell["trials"][0]["path"] / "records.parquet").exists()
    assert "not scored" in (run / "report.md").read_text()
    assert not list((run / "quality").rglob("*.f32"))


def test_an_engine_that_cannot_score_says_so(tmp_path: Path) -> None:
    """Its loads are measured; alone, without loads, the command fails with the same sentence."""
    path = tmp_path / "simulated.yaml"
    path.write_text("engines: [{engine: simulated}]\nload: [{kind: single_user, requests: 2}]\nquality: {}\n")
    run, alone = tmp_path / "run", tmp_path / "alone"
    harness("run", str(path), "--out", str(run), "--format", "json", cwd=tmp_path, env=VIRTUAL_TIME)
    (cell,) = manifest(run)["cells"]
    assert cell["trials"][0]["status"] == "complete"
    assert "simulated does not return the log-probabilities of a text" in cell["quality"]["reason"]
    ended = harness("quality", str(path), "--out", str(alone), cwd=tmp_path, env=VIRTUAL_TIME)
    assert ended.code == 3
    assert "simulated does not return the log-probabilities of a text" in ended.out


@pytest.mark.engines
def test_without_load(tmp_path: Path) -> None:
    """`harness quality` stores a run of scores only, here with the default 32,768 tokens in one go a chunk."""
    needs.library("llama_cpp")
    run = tmp_path / "run"
    levels = ("--model", "tiny", "--engine", "llama-cpp", "--levels", "q8_0,q4_0", "--reference", "f16")
    ended = harness("quality", *levels, "--out", str(run), "--quiet", cwd=tmp_path, timeout_s=280)
    assert ended.code == 0, ended.err
    check_levels(run)
    found = figures(run)
    assert found["q8_0", "top1_agreement"]["low"] > found["q4_0", "top1_agreement"]["high"]
    assert found["q8_0", "kl_mean"]["n"] == 16_384
    assert found["q8_0", "kl_mean"]["high"] < 0.001
    assert "quality only" in ended.out
    assert all(not cell["trials"] for cell in manifest(run)["cells"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name either a scenario file or a --model"),
        (("--model", "tiny", "--engine", "nothing"), "unknown engine"),
        (
            ("--model", "tiny", "--levels", "q8_0", "--text", "absent.txt"),
            "--text names absent.txt, which is not a file",
        ),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """One sentence, exit code 2, nothing stored."""
    ended = harness("quality", *arguments, cwd=tmp_path)
    assert ended.code == 2
    assert sentence in ended.err
    assert not list(tmp_path.iterdir())
