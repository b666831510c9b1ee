"""Results of each backend, where a platform in front of several says which answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.analysis.summary import summarise
from harness.records import Record
from harness.scenario.reader import load
from tests.fabricated import streamed, trial_of, value


def answered(*names: str | None, each: int = 12) -> list[Record]:
    """Requests that these answered in turn, the first the fastest."""
    records = [streamed(n, 10 * n, ttft_ms=20 * (1 + n % len(names))) for n in range(each * len(names))]
    return [replace(record, backend=names[n % len(names)]) for n, record in enumerate(records)]


def test_each_backend_has_results_of_its_own() -> None:
    """Beside those of all, under its name."""
    found = summarise([trial_of(answered("vllm", "llama.cpp", None), end_s=1.0)])
    assert set(found["class"]) == {"all", "backend:vllm", "backend:llama.cpp"}
    assert value(found, "ttft_ms", "p50", **{"class": "backend:vllm"})["value"] == 20
    assert value(found, "ttft_ms", "p50", **{"class": "backend:llama.cpp"})["value"] == 40


@pytest.mark.parametrize(
    "names", [("vllm",), ("vllm", None), ("http://a:1", "http://b:1"), tuple(f"b{n}" for n in range(9))]
)
def test_when_nothing_is_split(names: tuple[str | None, ...]) -> None:
    """One backend, servers that the scenario lists itself, or more names than there are engines."""
    assert set(summarise([trial_of(answered(*names), end_s=1.0)])["class"]) == {"all"}


def test_what_the_server_says_of_itself_is_summed_up() -> None:
    """Of the requests that succeeded and have such a figure; without any there is no row."""
    records = [
        replace(streamed(n, 10 * n), reported_total_ms=float(n), reported_memory_peak_bytes=None if n else 2e9)
        for n in range(5)
    ]
    records[4] = replace(records[4], status="stream_error")
    found = summarise([trial_of(records, end_s=1.0)])
    assert value(found, "reported_total_ms", "max")["value"] == 3
    assert value(found, "reported_memory_peak_bytes", "mean")["value"] == 2e9
    silent = summarise([trial_of([streamed(n, 10 * n) for n in range(5)], end_s=1.0)])
    assert not silent["metric"].str.startswith("reported_").any()


def test_limits_may_name_backends(tmp_path: Path) -> None:
    """Dots in their names included."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "engines: [{engine: simulated}]\nload: [{kind: single_user, requests: 3}]\n"
        'limits: ["backend:llama.cpp.ttft_ms p95 <= 500", "backend:vllm.error_rate <= 1%"]\n'
    )
    assert len(load(path, env={}).limits) == 2
