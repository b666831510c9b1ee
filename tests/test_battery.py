"""The battery itself: its cases are runnable and half of them held out, its server tells the truth, its rates count."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.battery import truth
from benchmarks.battery.__main__ import main
from benchmarks.battery.cases import CASES, IDENTICAL, Case
from benchmarks.battery.outcome import Number, Outcome
from benchmarks.battery.play import play
from benchmarks.battery.rates import AT_LEAST, AT_MOST, Rate, missed, rates_of, table
from benchmarks.battery.server import COMPILERS, build, truth_server
from benchmarks.battery.truth import Truth, tolerance
from harness.scenario.reader import load
from tests.fabricated import frame, streamed

S = 1_000_000_000
DOUBTS = {
    *("load_missing", "errors", "client_late", "client_slow", "arrivals", "not_steady", "warm_up", "overload"),
    *("token_counts", "lengths", "prompts", "books", "not_streamed", "machine", "stall", "hysteresis", "limit_open"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_is_a_scenario(case: Case, tmp_path: Path) -> None:
    """One load; and what it expects are known codes."""
    path = tmp_path / "case.yaml"
    path.write_text(case.scenario(8000))
    assert len(load(path).load) == 1
    assert set(case.expected) <= DOUBTS


def test_half_of_the_cases_are_held_out() -> None:
    """As many healthy and as many sick ones on either side, each under a name of its own."""
    cases = [case for case in CASES if case is not IDENTICAL]
    for sick in (False, True):
        sides = [case.held_out for case in cases if bool(case.expected) is sick]
        assert sum(sides) * 2 == len(sides)
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The truth server."""
    if not any(shutil.which(name) for name in COMPILERS):
        pytest.skip("needs a C++ compiler")
    return build(tmp_path_factory.mktemp("server"))


def asked(port: int, tokens: int = 4, path: str = "/v1/completions") -> tuple[int, str, list[int]]:
    """The status and body of a reply, and when it was sent and had come (ns)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sent_ns = time.monotonic_ns()
    connection.request("POST", path, json.dumps({"prompt": "some words", "max_tokens": tokens}))
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body, [sent_ns, time.monotonic_ns()]


def test_the_log_lies_between_what_the_client_sees(program: Path, tmp_path: Path) -> None:
    """Sent before came; never early against its schedule; last token before the end of the reply."""
    log = tmp_path / "log"
    with truth_server(program, log, {"ttft_ms": 20, "itl_ms": 2}) as server:
        seen = [asked(server.port)[2] for _ in range(3)]
        asked(server.port, path="/v1/completions?other")
        assert server.await_load(20)
    rows = np.loadtxt(log, ndmin=2)
    assert len(rows) == 3
    for (sent_ns, end_ns), (came, first, last, tokens, status) in zip(seen, rows, strict=True):
        assert sent_ns - 1e6 <= came  # the kernel's stamp is of the wall clock, brought over to the monotonic one
        assert came + 20e6 - 1e6 <= first
        assert came + 26e6 - 1e6 <= last <= end_ns
        assert (tokens, status) == (4, 200)


def test_faults_are_served_on_demand(program: Path, tmp_path: Path) -> None:
    """A usage of twice the tokens, prompts cut, replies cut, tokens in one chunk, errors."""
    faults = {"ttft_ms": 1, "itl_ms": 1, "usage_factor": 2, "prompt_cut": 1, "reply_share": 0.5, "chunk_tokens": 3}
    with truth_server(program, tmp_path / "log", faults) as server:
        _, body, _ = asked(server.port, 8)
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    texts = [choice["text"] for one in events for choice in one["choices"]]
    assert [len(text.split()) for text in texts] == [3, 1]
    assert events[-1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}
    with truth_server(program, tmp_path / "log", {"ttft_ms": 1, "errors": 1}) as server:
        assert [asked(server.port)[0] for _ in range(3)] == [200, 500, 500]  # the first is the run's probe


def test_an_unknown_setting_of_the_server_is_refused(program: Path, tmp_path: Path) -> None:
    """It would be a case without its fault."""
    with pytest.raises(ValueError, match="invalid literal"), truth_server(program, tmp_path / "log", {"sots": 1}):
        pass


@pytest.mark.slow
def test_a_case_is_played_and_compared(program: Path, tmp_path: Path) -> None:
    """Each request of the run is found in the server's log; what the run shows stands beside its truth."""
    case = Case("tiny", "{kind: single_user, requests: 16}", {"ttft_ms": 5, "itl_ms": 1})
    found = play(case, program, tmp_path, 1)
    assert (found.problem, found.exit_code) == ("", 0)
    assert found.verdict in ("valid", "warn")
    compared = {key for key, number in found.numbers.items() if number.truth and np.isfinite(number.shown)}
    assert {"ttft_ms p50", "tpot_ms p50", "e2e_ms p50", "completed_rps value"} <= compared


def matched(log: list[list[float]]) -> Any:
    """Two requests, of which the second is measured, beside a log."""
    records = [streamed(0, 0.0, phase="warmup"), streamed(1, 1000.0)]
    return truth._matched(frame(records), np.array(log), t0_ns=10.0 * S)


def test_truth_comes_from_the_measured_requests_after_the_probes() -> None:
    """A probe before T0 is left out; the rest is matched in the order of arrival."""
    probe: list[float] = [5 * S, 6 * S, 7 * S, 3, 200]
    warm_up = [10 * S, 10.5 * S, 11 * S, 6, 200]
    found = matched([[11 * S, 11.05 * S, 11.15 * S, 11, 200], probe, warm_up])
    latencies = truth._latencies(found)
    assert latencies["ttft_ms p95"].low == pytest.approx(50)
    assert latencies["tpot_ms p50"].low == pytest.approx(10)
    assert latencies["e2e_ms p50"].low == pytest.approx(150)
    assert "ttft_ms p99" not in latencies
    rates = truth._rates(found, (0.9 * S, 1.4 * S), users=1)
    assert rates["completed_rps value"].off_by(4.0) == 0  # the reply of the warm-up ends in the window, too
    assert rates[truth.LOAD].low == pytest.approx((0.1 + 0.15) / 0.5)
    with pytest.raises(ValueError, match="1 requests, the run sent 2"):
        matched([probe, warm_up])


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("ttft_ms p50", 50.0, 2.5),
        ("ttft_ms p99", 50.0, 5.0),
        ("ttft_ms p50", 10.0, 1.0),
        ("tpot_ms p95", 10.0, 0.5),
        ("completed_rps value", 100.0, 3.0),
    ],
)
def test_the_tolerance(key: str, value: float, allowed: float) -> None:
    """5 %, p99 10 %, rates 3 %; at least 1 ms, but for times per token."""
    assert tolerance(key, value) == pytest.approx(allowed)


def test_bounds_of_rates_are_exact() -> None:
    """0 of 22 only says below 13 %: 1 - 0.05^(1/22)."""
    assert Rate("", 0, 22, AT_MOST).bound == pytest.approx(1 - 0.05 ** (1 / 22))
    assert Rate("", 22, 22, AT_LEAST).bound == pytest.approx(0.05 ** (1 / 22))
    assert Rate("", 5, 5, AT_MOST).bound == 1
    assert str(Rate("", 0, 0)) == "not measurable here"


def outcome(verdict: str, code: str = "", **changes: Any) -> Outcome:
    """A healthy run with one number; wrong if so named."""
    wrong = changes.pop("wrong", False)
    numbers = {"ttft_ms p95": Number(53.0, 52.0, 54.0, Truth.exactly(50.0 if wrong else 53.0), wrong)}
    reasons = [{"code": code, "level": "warn", "metrics": ["ttft_ms"], "effects": []}] if code else []
    found = Outcome("a case", False, False, verdict=verdict, first=code, reasons=reasons, numbers=numbers, exit_code=0)
    return replace(found, **({"foreign_cores": 0.01} | changes))


def test_rates_count_what_they_say() -> None:
    """Three right runs of which one is doubted, two wrong ones of which one is not, one sick one with its doubt."""
    runs = [
        *(outcome("valid"), outcome("valid", foreign_cores=0.5), outcome("warn", "stall")),
        *(outcome("valid", wrong=True), outcome("warn", "client_late", wrong=True)),
        outcome("warn", "stall", sick=True, right_first=True, effects={"a": True, "b": False}),
        outcome("valid", sick=True, late=True),  # without an effect
        *(outcome("valid", case=IDENTICAL.name, exit_code=code) for code in (0, 0, 4)),
    ]
    counts = [(rate.hits, rate.of) for rate in rates_of(runs)]
    assert counts == [(1, 3), (0, 3), (1, 2), (1, 2), (2, 4), (1, 1), (1, 2), (5, 5), (0, 5), (1, 3)]
    assert "| sick: right doubt first | >= 95 % | 1 of 1, 100% (>= 5%) | not measurable here |" in table(runs)


def test_a_target_missed_on_one_side_is_missed() -> None:
    """One doubt in 20 meets the target together, but it is one of 10 held out."""
    runs = [outcome("valid", held_out=number % 2 == 0) for number in range(19)]
    runs.append(outcome("warn", "stall", held_out=True, foreign_cores=0.5))
    assert not any(rate.missed for rate in rates_of(runs))
    assert missed(runs)
    assert "**missed**" in table(runs)
    assert not missed(runs[:-1])


def test_a_name_that_no_case_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing runs, which is no success."""
    monkeypatch.setattr("sys.argv", ["battery", "--only", "usres"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main() == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "no case has such a name: usres" in capsys.readouterr().err
