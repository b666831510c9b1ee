"""The scorecard itself: its gates, its proxy of known stretch, what it stores, and its tables."""

from __future__ import annotations

import asyncio
import json
import math
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks.scorecard import __main__ as scorecard
from benchmarks.scorecard import table
from benchmarks.scorecard.accuracy import accuracy, measured
from benchmarks.scorecard.arms import ARMS, HOGS_SAME, SERVED_SAME, SERVED_SLOWER, Arm, Planned, planned
from benchmarks.scorecard.embedded import Stretched
from benchmarks.scorecard.outcome import CANNOT_TELL, E2E, ERRORS, REGRESSED, TPOT, TTFT, Number, Outcome, load, save
from benchmarks.scorecard.outcome import read_outcome as read
from benchmarks.scorecard.play import GateFailed, hogs
from benchmarks.scorecard.proxy import stretched
from benchmarks.scorecard.theirs import normalized, rule_of_one_says, rule_says
from engines.base import EngineSpec, ModelReference
from harness.scenario import reader

VALUES: list[list[float | None]] = [[10.0, 11.2], [10.0, 11.0], [12.0, 13.0], [8.0, 9.0]]


def number(word: str = "unchanged", **changed: Any) -> Number:
    """A gating ratio of four pairs."""
    made = Number(word, True, True, 0.03, 1.0, 0.99, 1.01, 1.02, None, "", VALUES)
    return replace(made, **changed)


def outcome(arm: Arm = SERVED_SAME, place: int = 1, word: str = "unchanged", **changed: Any) -> Outcome:
    """A gate whose gating numbers all have the word."""
    each = number(word, **changed)
    one = Planned(arm, place)
    numbers = {TPOT: each, TTFT: each, E2E: each, ERRORS: number(ratio=False, values=[[0.0, 0.0]] * 4)}
    return Outcome(arm.name, one.key, one.seed, word, 5 if word == REGRESSED else 0, 4, 70.0, numbers)


def test_every_gate_has_its_own_seed_and_name() -> None:
    """The arms take turns, so that a slow drift of the machine is in all of them."""
    gates = [*planned()]
    assert len(gates) == sum(arm.gates for arm in ARMS) == 70
    assert len({one.seed for one in gates}) == len({one.key for one in gates}) == len(gates)
    assert [one.arm for one in gates[: len(ARMS)]] == [*ARMS]
    assert [one.key for one in planned(2, "hogs")] == []
    assert len([*planned(2, "busy loops")]) == 2


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.served], ids=lambda arm: arm.name)
def test_every_served_arm_is_a_scenario(arm: Arm, tmp_path: Path) -> None:
    """One load; the embedded arms need a plug-in that is not installed here."""
    path = tmp_path / "scenario.yaml"
    path.write_text(arm.scenario(1001))
    found = reader.load(path)
    assert found.seed == 1001
    assert len(found.load) == 1


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30), st.floats(1, 3))
def test_stretched_gaps_do_not_add_up_errors(gaps: list[int], stretch: float) -> None:
    """The last piece is as far from the first as the stretch says, to the nanosecond; the first one stays."""
    at, came = 10**15, [10**15]
    for gap in gaps:
        at += gap
        came.append(at)
    passed = [stretched(came[0], one, stretch) for one in came]
    assert passed[0] == came[0]
    assert passed == sorted(passed)
    assert abs((passed[-1] - passed[0]) - stretch * sum(gaps)) <= 1
    assert [stretched(came[0], one, 1.0) for one in came] == came


def test_proxy_holds_no_event_before_its_time() -> None:
    """Against the stamps of the server in the same run: an event never comes earlier than stretched."""
    found = accuracy(1.5, events=12, gap_s=0.004)
    assert len(found.late_ms) == 11
    assert min(found.late_ms) >= -1.5 * found.first_ms  # a first one that came late shortens what follows
    assert "Proxy at 1.5" in str(found)


def test_embedded_server_answers_through_the_proxy() -> None:
    """The load generator gets the proxy's address; neither process is left after the end."""
    options = {"n_parallel": 1, "n_ctx": 256, "stretch": 1.1}

    async def started() -> list[psutil.Process]:
        engine = Stretched(EngineSpec("stretched", ModelReference("tiny"), "q8_0", options))
        try:
            info = await engine.start()
            url = engine.endpoint().url
            assert not any(page.startswith(url) for page in info.metrics_urls)
            with urllib.request.urlopen(f"{url}/health", timeout=60) as reply:
                assert reply.status == 200
            return [psutil.Process(pid) for pid in info.pids]
        finally:
            await engine.stop()

    processes = asyncio.run(started())
    assert len(processes) == 2
    assert not any(one.is_running() for one in processes)


def test_error_of_the_proxy_is_that_of_distances() -> None:
    """Stamps of both ends: 20 ms of the server that came as 22.5 are 0.5 ms late for a stretch of 1.1."""
    found = measured(1.1, [0, 10_000_000, 20_000_000], [5, 11_000_005, 22_500_005])
    assert found.first_ms == pytest.approx(5e-6)
    assert found.late_ms == pytest.approx([0.0, 0.5])
    assert found.tpot == pytest.approx(22.5 / 22)


def test_noise_of_pairs_is_that_of_their_logarithms() -> None:
    """The standard deviation of log(head / base); unknown with one pair, and pairs without a number do not count."""
    steps = [math.log(head / base) for base, head in number().known]
    mean = sum(steps) / 4
    assert number().deviation == pytest.approx(math.sqrt(sum((one - mean) ** 2 for one in steps) / 3))
    assert math.isnan(number(values=[[1.0, 2.0], [None, 2.0]]).deviation)
    assert number().ratio_of_means == pytest.approx(44.2 / 40)
    assert table.deviation([0.03, 0.04, math.nan]) == pytest.approx(math.sqrt(0.00125))


@pytest.mark.parametrize(("seen", "rightly"), [(1.05, True), (None, True), (1.02, False)])
def test_cannot_tell_is_right_where_the_margin_could_not_be_seen(seen: float | None, rightly: bool) -> None:
    """Least seen above the margin of 3 %."""
    assert outcome(word=CANNOT_TELL, least_seen=seen).rightly_open is rightly


@given(st.integers(1, 40).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_bounds_of_a_count_are_those_of_clopper_and_pearson(counts: tuple[int, int]) -> None:
    """Against scipy's."""
    theirs = binomtest(*counts).proportion_ci(0.95, "exact")
    assert table.bounds(*counts) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_outcomes_are_stored_and_read_whole(tmp_path: Path) -> None:
    """Numbers, words and unknown values; nothing is there before the first."""
    path = tmp_path / "scorecard.json"
    assert load(path) == []
    made = [outcome(), outcome(SERVED_SLOWER, 2, REGRESSED, least_seen=None, values=[[1.0, None]])]
    save(made, path)
    assert load(path) == made
    path.write_text('{"format": 99}')
    with pytest.raises(SystemExit, match="another version"):
        load(path)


def test_stored_gates_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command goes on: a gate that failed is made again, one that ended is not."""
    asked: list[str] = []

    def play(one: Planned, folder: Path) -> Outcome:
        asked.append(one.key)
        if len(asked) == 2:
            raise GateFailed(f"{one.key}: exit code 3")
        return outcome(one.arm, one.number)

    monkeypatch.setattr(scorecard, "play", play)
    wanted = [*planned(3, "served, no change")]
    assert [one.key for one in scorecard.make(wanted, tmp_path)] == [wanted[0].key, wanted[2].key]
    assert len(scorecard.make(wanted, tmp_path)) == 3
    assert asked == [wanted[0].key, wanted[1].key, wanted[2].key, wanted[1].key]


def test_comparison_of_a_gate_is_read(tmp_path: Path) -> None:
    """Each number with its pairs; those of classes are left out."""
    row: dict[str, Any] = {"metric": "tpot_ms", "statistic": "p50", "class": "all", "scale": "ratio", "values": VALUES}
    row |= {"word": REGRESSED, "gates": True, "margin": 0.03, "change": 1.1, "low": 1.08, "high": 1.12}
    row |= {"least_seen": 1.02, "pairs_needed": 7, "doubt": ""}
    data = {"word": REGRESSED, "pairs": 4, "rows": [row, {**row, "class": "chat", "statistic": "p95"}]}
    (tmp_path / "comparison.json").write_text(json.dumps(data))
    found = read(tmp_path, SERVED_SLOWER.name, "key", 7, 5, 66.0)
    assert (found.word, found.pairs, found.exit_code, [*found.numbers]) == (REGRESSED, 4, 5, [TPOT])
    assert found.numbers[TPOT].values == VALUES
    assert found.pairs_needed == 7


def test_table_counts_words_with_their_bounds() -> None:
    """One of three gates regressed, one passed, one rightly cannot tell."""
    made = [outcome(), outcome(place=2, word=REGRESSED), outcome(place=3, word=CANNOT_TELL, least_seen=1.2)]
    assert table.counted(1, 3) == "1 (1 to 91 %)"
    row = table.verdicts(made).splitlines()[2]
    assert row == f"| {SERVED_SAME.name} | 3 | " + "1 (1 to 91 %) | " * 3 + "1 | 0 |"
    assert "| 4.0 |" in table.noise(made)
    assert "not measured" in str(table.targets([])[0])
    assert table.seconds([]) == "No gate was made."


def test_targets_judge_false_alarms_and_what_is_found() -> None:
    """One false alarm of 20 is allowed, two are not; 18 of 20 must be found; busy loops must not add any."""

    def met(alarms: int, found: int, beside: int) -> list[bool | None]:
        words = {SERVED_SAME: (alarms, 20), SERVED_SLOWER: (found, 20), HOGS_SAME: (beside, 10)}
        made = [
            outcome(arm, place, REGRESSED if place <= hits else "unchanged")
            for arm, (hits, of) in words.items()
            for place in range(1, of + 1)
        ]
        return [one.met for one in table.targets(made)]

    assert met(1, 18, 1) == [True, None, True, None, True]
    assert met(2, 17, 3) == [False, None, False, None, False]


def test_others_are_counted_beside_ours() -> None:
    """Results of inference-doctor at both thresholds, and the rule of thumb over all starts and over the first."""
    made = [outcome(word=REGRESSED), outcome(place=2, values=[[10.0, 10.5]] * 4)]
    said = {made[0].key: ["INCONCLUSIVE", "FAIL"], made[1].key: ["PASS", "INCONCLUSIVE"]}
    row = table.others(made, said, "0.4.1").splitlines()[2]
    assert row == f"| {SERVED_SAME.name} | 1 of 2 | 0 / 1 / 1 | 1 / 0 / 1 | 1 | 1 |"
    assert rule_says(made[0])
    assert rule_of_one_says(made[0])
    assert not rule_says(made[1])


def test_start_is_written_in_their_form() -> None:
    """Failed requests are none or unknown, never a guess."""
    numbers = {**outcome().numbers, "output_tokens_per_s value": number(values=[[40.0, 37.0]] * 4)}
    found = normalized(numbers, 1, 1)
    assert found["schema_version"] == "1"
    assert found["metrics"]["tpot_ms"] == {"median": 11.0, "p95": None}
    assert found["metrics"]["e2el_ms"]["mean"] == 11.0
    assert found["metrics"]["output_token_throughput"] == 37.0
    assert found["metrics"]["requests"] == {"failed": 0}
    failed = {**numbers, ERRORS: replace(numbers[ERRORS], values=[[0.0, 0.1]] * 4)}
    assert normalized(failed, 1, 1)["metrics"]["requests"] == {"failed": None}


def test_busy_loops_end_with_their_block() -> None:
    """No process of theirs is left, and none is needed for an arm without them."""
    ours = psutil.Process()
    before = {child.pid for child in ours.children()}
    with hogs(2):
        assert len({child.pid for child in ours.children()} - before) == 2
    assert {child.pid for child in ours.children()} <= before
    with hogs(0):
        assert {child.pid for child in ours.children()} <= before
