"""A whole run with vLLM: started from our environment, generating in its own (`make test-vllm`)."""

from __future__ import annotations

import re
from pathlib import Path

import needs
import psutil
import pytest
from command import harness, manifest, records, scenario

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_cell_runs_in_the_environment_that_has_vllm(tmp_path: Path) -> None:
    """In process there: fp32 is measured, its processes' memory too; what was asked of the CPU's build in vain is a
    skip with its reason; the run's parent has no vLLM, and nothing stays.
    """
    block = {
        "engine": "vllm",
        "python": needs.vllm_python(),
        "quantization": ["fp32", "awq"],
        "options": {"enforce_eager": True, "kv_cache_space_gib": 1},
    }
    path = scenario(
        tmp_path,
        model="tiny",
        engines=[block],
        workload={"prompt_tokens": 16, "output_tokens": {"dist": "fixed", "value": 8, "exact": True}},
        load=[{"kind": "single_user", "requests": 5, "timeout": "60s"}],
    )
    ended = harness("run", str(path), "--out", "run", "--format", "md", "--quiet", cwd=tmp_path, timeout_s=1500)
    found = manifest(tmp_path / "run")
    cells = {cell["level"]: cell for cell in found["cells"]}
    assert cells["fp32"]["status"] == "complete", (ended.out, ended.err, cells)
    assert cells["awq"]["status"] == "skipped", cells["awq"]
    assert "needs a checkpoint that is quantized to it" in cells["awq"]["reason"]
    engine = cells["fp32"]["engine_info"]
    assert (engine["level"], engine["device"], engine["context_tokens"]) == ("fp32", "cpu", 1024)
    rows = records(tmp_path / "run", cells["fp32"]["trials"][0])
    assert [row["output_tokens"] for row in rows] == [8] * 5
    log = (tmp_path / "run" / cells["fp32"]["path"] / "log.txt").read_text()
    pids = {int(pid) for pid in re.findall(r"\((?:EngineCore|Worker)\w* pid=(\d+)\)", log)}
    assert len(pids) >= 2
    assert not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
