"""The answer: verdict, subject and lines of a run, in the words of the table above them."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from harness.analysis.costs import with_costs
from harness.cli.commands.report import report_data
from harness.results import derive
from harness.store.manifest import CellEntry, Price
from reports import answer, tiles
from reports.costs import costs_in_words
from reports.data import KEYS, ReportData, keys_of
from reports.format import amount
from reports.sweeps import Estimate, Load, Sweep, loads_of
from tests.fabricated import FabricatedTrial, again, cell_entry, noisy, trial_entry
from tests.reports.conftest import manifest
from tests.reports.sweep_of_rates import sweep_of


def told(data: ReportData, label: str) -> list[str]:
    """The lines of a label, their parts joined."""
    return [" | ".join(line.parts).replace("\u202f", " ") for line in answer.lines(data) if line.label == label]


def one_trial(*, limits: list[str], **changes: Any) -> ReportData:
    """A run of a single trial, on good data."""
    trial = FabricatedTrial(cell_entry(**changes), trial_entry(limits=limits), noisy(1))
    run = manifest([again(trial.cell, trials=[trial.trial], engine_info={"version": "1.2"})])
    data = report_data(derive(run, [trial]))
    valid = [one | {"verdict": "valid", "reasons": []} for one in data.validity]
    return replace(data, validity=valid, exit_code=0)


@pytest.fixture(scope="module")
def alone() -> ReportData:
    """One trial, one limit, which holds."""
    return one_trial(limits=["ttft_ms p95 <= 500"])


def test_the_subject_is_named(alone: ReportData, full: ReportData) -> None:
    """Model, quantizations and engine with its version."""
    assert answer.subject(alone) == "tiny · f16 · simulated 1.2"
    assert answer.subject(full) == "tiny · f16, q4 and q8 · simulated 1.2"


def test_a_server_is_named_by_its_address(alone: ReportData) -> None:
    """And by its dialect: `http` tells nobody what was measured."""
    info = {"version": "vLLM 0.9", "options": {"url": "http://127.0.0.1:8000", "dialect": "openai-chat"}}
    cells = [again(cell, engine="http", level=None, engine_info=info) for cell in alone.manifest.cells]
    served = replace(alone, manifest=again(alone.manifest, cells=cells))
    assert answer.subject(served) == "tiny · vLLM 0.9 @ http://127.0.0.1:8000 (openai-chat)"


def test_a_server_whose_certificate_was_not_checked_is_named_so(alone: ReportData) -> None:
    """In the first line of every report; the model is the one that the server names."""
    options = {"url": "https://h", "dialect": "openai-chat", "tls": {"verify": False}}
    info = {"version": None, "model": "served", "options": options}
    cells = [again(cell, engine="http", level=None, model=None, engine_info=info) for cell in alone.manifest.cells]
    served = replace(alone, manifest=again(alone.manifest, cells=cells))
    assert answer.subject(served) == "served @ https://h (openai-chat, TLS not verified)"


def test_totals_count_what_was_sent(alone: ReportData) -> None:
    """A request that was never sent is neither measured nor failed."""
    assert answer.totals(alone) == ["1 load", "600 requests", "0 failed"]
    (facts,) = alone.facts
    stopped = replace(alone, facts=[facts | {"statuses": {"ok": 29, "timeout": 1, "not_sent": 170}}])
    assert answer.totals(stopped) == ["1 load", "30 requests", "1 failed", "170 never sent"]
    assert answer.totals(replace(alone, facts=[])) == ["nothing measured"]


def test_the_time_is_that_from_the_first_start_to_the_last_end(alone: ReportData) -> None:
    """The time to start engines is part of it, that between two sessions is not."""
    (cell,) = alone.manifest.cells
    trials = [
        again(
            cell.trials[0],
            id=f"{session}",
            session=session,
            start={"began_ns": begun - 2_000_000_000},
            begun_ns=begun,
            ended_ns=begun + 61_000_000_000,
        )
        for session, begun in ((1, 10_000_000_000), (2, 900_000_000_000))
    ]
    started = again(cell, trials=trials)
    facts = [alone.facts[0] | {"trial": f"{session}"} for session in (1, 2)]
    data = replace(alone, manifest=again(alone.manifest, cells=[started]), facts=facts)
    assert answer.totals(data)[-1] == "2:06"


def test_the_verdict_is_that_of_the_limits(alone: ReportData) -> None:
    """It counts limits, not limits times loads; without limits there is none."""
    (verdict,) = alone.verdicts
    failed = [verdict | {"outcome": "fail", "load": load} for load in ("a", "b")]
    other = verdict | {"limit": "error_rate <= 0.01"}
    assert answer.verdict(alone) == ("PASS", "1 limit", "good")
    assert answer.verdict(replace(alone, verdicts=[*failed, other], exit_code=1)) == ("FAIL", "1 of 2 limits", "bad")
    assert answer.verdict(replace(alone, verdicts=[])) == ("", "", "")


@pytest.mark.parametrize(
    ("code", "word"), [(3, "FAILED"), (4, "POOR DATA"), (130, "INTERRUPTED"), (6, "CANNOT TELL"), (0, "PASS")]
)
def test_an_exit_code_has_its_word(alone: ReportData, code: int, word: str) -> None:
    """Where no limit explains it."""
    assert answer.verdict(replace(alone, exit_code=code))[0] == word


def test_one_configuration_is_enough_where_the_scenario_says_so(full: ReportData) -> None:
    """Exit code 0 beside a violated limit is explained."""
    assert "one configuration meets every limit" in answer.headline(replace(full, exit_code=0))
    assert "one configuration" not in answer.headline(full)


def test_a_choice_that_succeeded_beside_a_failed_configuration_is_no_violated_limit(full: ReportData) -> None:
    """The run failed in part; the limits hold where one configuration is enough."""
    first, *others = (one | {"outcome": "pass" if one["level"] == "f16" else "fail"} for one in full.verdicts)
    scenario = full.manifest.scenario | {"decide": "any"}
    run = replace(full, manifest=again(full.manifest, scenario=scenario), verdicts=[first, *others], exit_code=3)
    word, why, _ = answer.verdict(run)
    assert (word, why) == ("FAILED", f"part of the run has no result; {answer.HOLDS}")
    none = replace(run, verdicts=[one | {"outcome": "fail"} for one in full.verdicts])
    assert answer.verdict(none)[0] == "FAIL"


def test_the_headline_has_verdict_then_data_then_exit_code(alone: ReportData) -> None:
    """In one line, for pages and pull requests."""
    assert answer.headline(alone) == "PASS 1 limit · data: good · exit code 0"


@pytest.mark.parametrize(("status", "words"), [("failed", "the run failed"), ("interrupted", "interrupted")])
def test_the_headline_says_how_a_run_ended(full: ReportData, status: str, words: str) -> None:
    """In words, not by the name of its status."""
    ended = replace(full, manifest=again(full.manifest, status=status))
    assert f" · {words} · " in answer.headline(ended)


def test_a_limit_is_one_line_with_its_worst_case(full: ReportData) -> None:
    """In the words of the table and in the limit's own unit; what is violated comes first."""
    first, second, third = told(full, "LIMITS")
    assert first.startswith("✗ TTFT p95 <= 150 ms | q4 · sustained: 168 ms")
    assert first.endswith("✓ f16 · sustained")
    assert second.startswith("✗ errors <= 1 % | q4 · sustained: 120 of 600 (20.0 %)")
    assert third.startswith("? kl_mean <= 0.01 nats | f16: kl_mean has no value")


def test_a_limit_without_errors_counts_the_requests() -> None:
    """Nobody asks in which load there were none."""
    data = one_trial(limits=["error_rate <= 1%"])
    assert told(data, "LIMITS") == ["✓ errors <= 1 % | 0 of 600 | "]


def test_a_certainty_stands_behind_the_number(alone: ReportData) -> None:
    """Where the judge tells one."""
    sure = [one | {"certainty": "sure"} for one in alone.verdicts]
    assert told(replace(alone, verdicts=sure), "LIMITS")[0].startswith("✓ TTFT p95 <= 500 ms | 117 ms (sure)")


def test_a_limit_that_was_not_judged_says_why_beside_its_number(alone: ReportData) -> None:
    """The number alone would read as met."""
    spoiled = [one | {"outcome": "invalid", "sentence": "Half of them failed"} for one in alone.verdicts]
    (line,) = told(replace(alone, verdicts=spoiled), "LIMITS")
    assert line.startswith("! TTFT p95 <= 500 ms | 117 ms")
    assert line.endswith(" Half of them failed. | ")


def test_a_sweep_has_its_knee(sweep: ReportData, full: ReportData) -> None:
    """Between which rates it lies, and why; two loads are no sweep."""
    (line,) = told(sweep, "KNEE")
    assert line.startswith("between 4 and 8 req/s: TTFT p95 grows ")
    assert told(full, "KNEE") == []


def test_costs_are_told_at_the_cheapest_load_with_their_price(sweep: ReportData) -> None:
    """Within the limits: 8/s is cheaper, and breaks one. Without a price nobody knows one."""
    assert told(sweep, "COST") == []
    price = Price(instance="g5.xlarge", pricing="on_demand", usd_per_hour=1.006, date="2026-11", source="published")
    rows = pd.DataFrame(list(with_costs(sweep.summary.to_dict("records"), price)))  # type: ignore[arg-type]
    priced = replace(sweep, summary=rows, manifest=again(sweep.manifest, price=price))
    (line,) = told(priced, "COST")
    found = re.fullmatch(
        r"\$0\.0\d+ per 1,000 requests and \$1\.\d+ per million output tokens at 4/s · "
        r"g5\.xlarge at \$1\.006 an hour \(on demand, as of 2026-11\)",
        line,
    )
    assert found, line


def test_each_configuration_has_its_cost() -> None:
    """One that breaks a limit under every load says so, and hides none of the others."""
    price = Price(instance="g5.xlarge", pricing="on_demand", usd_per_hour=1.006, date="2026-11", source="published")
    two = sweep_of("f16", "q8", seconds=20.0)
    rows = pd.DataFrame(list(with_costs(two.summary.to_dict("records"), price)))  # type: ignore[arg-type]
    keys = [keys_of(cell, trial.load) for cell, trial in two.trials() if cell.level == "f16"]
    fails = [dict(zip(KEYS, one, strict=True)) | {"outcome": "fail"} for one in keys]
    priced = replace(two, summary=rows, manifest=again(two.manifest, price=price), verdicts=fails)
    first, second = costs_in_words(priced)
    assert re.match(r"f16: \$[^·]* at \d+/s, which breaks a limit · g5\.xlarge", first), first
    assert re.match(r"q8: \$[^·]* at \d+/s · g5\.xlarge", second), second


def swept(axis: str, *points: tuple[float, float, float]) -> str:
    """What is said of the knee of a sweep of (load, TTFT p95, SLO attainment)."""
    loads = []
    for x, p95, met in points:
        known = {("ttft_ms", "p95"): Estimate(p95, p95, p95), ("attainment", "value"): Estimate(met, met, met)}
        loads.append(Load(("cell", f"{x}"), f"{x:g}", axis, "sustained", x, cell_entry(), trial_entry(), known))
    return answer.knee_in_words(Sweep(axis, "sustained", {("cell",): loads}), ("cell",)).replace("\u202f", " ")


def test_a_knee_is_told_in_words() -> None:
    """Latency that doubles, requests that miss the SLO, or how far there is none."""
    nan = float("nan")
    assert swept("rate", (1, 96, 1.0), (4, 95, 1.0), (8, 746, 0.8)) == "between 4 and 8 req/s: TTFT p95 grows 7.8 times"
    missed = swept("users", (1, 100, 1.0), (2, 101, 1.0), (4, 110, 0.6))
    assert missed == "between 2 and 4 users: SLO attainment falls to 60 %"
    flat = swept("rate", (1, 100, nan), (2, 110, nan), (4, 120, nan))
    assert flat == "none up to 4 req/s: TTFT p95 is 1.2 times that at 1 req/s"


def test_pages_and_the_terminal_tell_the_same_knee(sweep: ReportData) -> None:
    """Bursts are no points of it, however they differ from the rates."""
    alone = replace(sweep, verdicts=[])
    assert told(alone, "KNEE")[0].startswith("between 4 and 8 req/s: ")
    assert tiles.of_run(alone)[0].text == "4 to 8"
    bursts = [again(one, kind="burst") for one in sweep.manifest.cells[0].trials]
    cell = again(sweep.manifest.cells[0], trials=bursts)
    assert told(replace(sweep, manifest=again(sweep.manifest, cells=[cell])), "KNEE") == []


def test_good_data_need_one_word(alone: ReportData, sweep: ReportData) -> None:
    """Caveats follow a worse one, the largest effect first."""
    assert told(alone, "DATA") == ["good"]
    first, second = told(sweep, "DATA")
    assert first.startswith("poor · 1/s: Token counts disagree")
    assert second.startswith("in 2 of 4 loads, most at 8/s: ")


def test_what_a_cap_and_retries_did_to_the_load_is_told_first(sweep: ReportData) -> None:
    """The largest finding of each, without the advice; other notes stay in the details."""
    assert told(sweep, "LOAD") == []
    validity = []
    for number, one in enumerate(sweep.validity):
        note = {"level": "valid", "advice": "Leave it out.", "metrics": [], "effects": []}
        capped = note | {"code": "capped", "sentence": f"{number} of 9 requests waited.", "size": number / 9}
        retried = note | {"code": "retried", "sentence": "Retried once.", "size": 0.9}
        other = note | {"code": "ports", "sentence": "Many ports.", "size": 5.0}
        validity.append(one | {"notes": [capped, other, *([retried] if number == 1 else [])]})
    assert told(replace(sweep, validity=validity), "LOAD") == [
        "2/s: Retried once.",
        "in all 4 loads, most at 8/s: 3 of 9 requests waited.",
    ]


def test_errors_are_counted_by_kind(full: ReportData) -> None:
    """With the load, the time and an example."""
    (line,) = told(full, "ERRORS")
    assert line.startswith("120 x connection error | q4 · sustained, from 48 s on, none succeeded after: connection")
    errors = [[one | {"measured": 118} for one in facts.get("errors", ())] for facts in full.facts]
    facts = [facts | {"errors": own} for facts, own in zip(full.facts, errors, strict=True)]
    (line,) = told(replace(full, facts=facts), "ERRORS")
    assert line.startswith("118 x connection error (and 2 in warm-up or cooldown) | ")


def test_what_did_not_run_says_why(full: ReportData, alone: ReportData) -> None:
    """Failed and skipped configurations."""
    assert told(full, "NOT RUN") == [
        "tiny · simulated · q8, all loads: failed: the engine exited with signal 9.",
        "tiny · simulated · q2, all loads: skipped: simulated has no level q2.",
    ]
    assert told(alone, "NOT RUN") == []


def test_a_choice_is_recommended(full: ReportData, alone: ReportData) -> None:
    """An engine alone has its needs instead."""
    assert told(full, "RECOMMENDED")[0].startswith("No recommendation: ")
    assert told(alone, "RECOMMENDED") == []
    assert "startup 1.25 s" in told(alone, "ENGINE")[0]
    assert told(full, "ENGINE") == []


def test_an_interrupted_run_says_how_to_go_on(alone: ReportData) -> None:
    """A complete one needs no command."""
    stopped = replace(alone, manifest=again(alone.manifest, status="interrupted"))
    assert answer.next_command(stopped, "runs/x/report.html") == "harness run --resume runs/x"
    quoted = answer.next_command(stopped, "my runs/x/report.html")
    assert quoted == "harness run --resume 'my runs/x'"
    elsewhere = replace(stopped, run="2026-a-run")
    assert answer.next_command(elsewhere, "elsewhere/report.html") == "harness run --resume 2026-a-run"
    assert answer.next_command(alone, "runs/x/report.html") == ""


def test_memory_of_a_server_that_nobody_here_started_is_not_known(alone: ReportData) -> None:
    """That is the reason, not that readings are lacking; of a run that tells of no engine it is the readings."""
    (facts,) = one_trial(limits=["error_rate <= 0.1"], engine_info={"name": "http", "pids": []}).facts
    assert facts["missing"]["rss_peak_bytes"].startswith("the engine's processes are not known")
    assert alone.facts[0]["missing"]["rss_peak_bytes"].startswith("no reading was taken")


def test_a_run_without_measurements_has_an_answer(full: ReportData) -> None:
    """Nothing planned, or nothing measured."""
    cells: list[CellEntry] = []
    empty = replace(full, manifest=again(full.manifest, cells=cells), facts=[], validity=[], verdicts=[], decisions=[])
    assert (answer.subject(empty), answer.totals(empty), answer.lines(empty)) == ("", ["nothing measured"], [])


def test_longer_prompts_have_a_line() -> None:
    """The numbers of the shortest and of the longest, at each number of users."""
    cell = cell_entry()
    known: dict[str, Any] = {"kind": "sustained", "loop": "closed", "users": 4}
    trials = [
        FabricatedTrial(
            cell,
            trial_entry(id=f"p{prompt}", load=f"p{prompt}", index=prompt, prompt_tokens=prompt, **known),
            noisy(1, slower=slower),
        )
        for prompt, slower in ((128, 1.0), (512, 2.0), (2048, 4.0))
    ]
    data = report_data(derive(manifest([again(cell, trials=[one.trial for one in trials])]), trials))
    p95 = [load.number("ttft_ms", "p95") for load in loads_of(data)]
    assert p95[2] == pytest.approx(4 * p95[0], rel=0.02)
    (line,) = told(data, "LENGTHS")
    assert line.startswith(f"4 users: prompt 128 to 2048 tokens: TTFT p95 {amount(p95[0])} to {amount(p95[2])} ms and ")
    assert line.endswith(" output tokens/s")


def test_a_tail_among_time_outs_grew_by_as_much_at_least() -> None:
    """Its bound is all that is known of it."""

    def load(x: float, p95: Estimate) -> Load:
        keys = ("m", "e", "", "", f"l{x}")
        return Load(keys, f"l{x}", "users", "sustained", x, cell_entry(), trial_entry(), {("ttft_ms", "p95"): p95})

    ends = [load(1.0, Estimate(100.0, 90.0, 110.0)), load(4.0, Estimate(520.0, 520.0, math.nan, censored=True))]
    sweep = Sweep("users", "sustained", {("m", "e", "", ""): ends})
    words = answer.knee_in_words(sweep, ("m", "e", "", ""))
    assert words == "none up to 4 users: TTFT p95 is at least 5.2 times that at 1 users"
