"""Scenarios with conversations: mistakes are reported with their place."""

# The sentences are kept whole.
# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.scenario.reader import load, restore
from harness.schedule.cells import Cell, Skip, identity
from harness.schedule.estimate import estimate
from harness.schedule.matrix import expand
from harness.schedule.requests import build
from harness.units import Range
from tests.plans import load_of, workload_of

USERS = "{kind: sustained, users: 2, requests: 3}"
HEAD = "engines: [{engine: simulated}]\n"


def written(folder: Path, text: str) -> Path:
    """A scenario file."""
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("load: [{kind: sessions, rate: [1, 2], sessions: 3}]", "2:8: load.0: needs `turns`, such as `turns: 3`, here or in `workload`"),
        ("load: [{kind: sessions, turns: 2, sessions: 3}]", "2:8: load.0.rate: is missing; write it, such as `rate: 0.5`"),
        ("load: [{kind: sessions, turns: 2, rate: 1, requests: 3}]", "2:44: load.0.requests: unknown key; write `sessions`, the number of conversations, or `duration`"),
        (f"workload: {{turns: 2}}\nload: [{USERS}, {{kind: sustained, rate: 1, requests: 3}}]", "3:50: load.1: `workload.turns` needs users who wait for replies, and a `sustained` at a rate has none; write `users`, `kind: single_user` or `kind: sessions`"),
        (f"workload: {{think_time: 1s}}\nload: [{USERS}]", "2:12: workload.think_time: applies between the turns of a conversation; add `turns`, or write `think_time` in the load"),
        ("workload: {repeat: 0.5}\nload: [{kind: sessions, turns: 2, rate: 1, sessions: 3}]", "2:12: workload.repeat: cannot be combined with `kind: sessions`, where every turn has another history; leave it out"),
        ("workload: {turns: 2}\nclasses: {a: {}}\nload: [{kind: mixed, users: 1, requests: 3}]", "4:8: load.0: `workload.turns` cannot be combined with `kind: mixed`; remove the classes"),
        (f"classes: {{a: {{workload: {{turns: 2}}}}}}\nload: [{USERS}]", "2:15: classes.a.workload: conversations cannot be mixed with other traffic; write `turns` in `workload`"),
    ],
)  # fmt: skip
def test_mistakes_in_conversations_are_reported(text: str, sentence: str, tmp_path: Path) -> None:
    """The problem contains the place and the fix."""
    with pytest.raises(ScenarioError) as refusal:
        load(written(tmp_path, HEAD + text), env={})
    assert f"s.yaml:{sentence}" in str(refusal.value)


def test_what_a_manifest_keeps_of_conversations_is_a_scenario(tmp_path: Path) -> None:
    """Written down as resolved and read again, it is the same."""
    text = (
        HEAD
        + "workload: {turns: {dist: uniform, min: 1, max: 4}, think_time: {dist: lognormal, median: 2s, p95: 9s}}\n"
        "load: [{kind: sessions, rate: [1, 2], duration: 9s, arrivals: gamma, cv: 2}, {kind: single_user, requests: 3}, "
        "{kind: sessions, rate: 1, sessions: 4, turns: 2, think_time: 1s}]"
    )
    scenario = load(written(tmp_path, text), env={})
    assert restore(scenario.resolved(), scenario.source) == scenario
    names = [plan.name for cell in expand(scenario) if isinstance(cell, Cell) for plan in cell.trials]
    assert names == ["sessions-rate-1-cv-2", "sessions-rate-2-cv-2", "single_user", "sessions-rate-1"]


def test_token_ids_cannot_be_talked_about(tmp_path: Path) -> None:
    """A file of prompts for conversations needs texts."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": [1, 2]}\n')
    text = f"{HEAD}workload: {{turns: 2, prompts: prompts.jsonl}}\nload: [{USERS}]"
    with pytest.raises(ScenarioError, match="contains prompts as token ids, to which no reply can be appended"):
        load(written(tmp_path, text), env={})


def test_estimates_know_sessions_and_turns() -> None:
    """Twenty conversations of three turns; what they send again is counted."""
    talks = load_of(kind="sessions", rate=2, sessions=20, turns=3, think_time="5s")
    assert talks.expected_requests() == Range(60, 60)
    assert talks.expected_time_s().low == pytest.approx(19 / 2 + 2 * 5)
    lasting = load_of(kind="sessions", rate=2, duration="10s", turns={"dist": "uniform", "min": 1, "max": 5})
    assert lasting.expected_requests().low == 20
    assert lasting.expected_requests().high == pytest.approx(60, rel=0.01)
    users = load_of(kind="sustained", users=2, requests=12, think_time="9s")
    workload = workload_of(turns=3, think_time="3s")
    assert users.expected_time_s(workload).low == pytest.approx(5 * (9 + 3 + 3) / 3)


def test_tokens_that_are_sent_again_are_estimated(tmp_path: Path) -> None:
    """Three turns of 10 and 20: 30 + 60 + 90 tokens a conversation."""
    text = HEAD + "workload: {turns: 3, prompt_tokens: 10, output_tokens: 20}\nload: [{kind: single_user, requests: 6}]"
    assert estimate(expand(load(written(tmp_path, text), env={}))).tokens == Range(360, 360)


def test_sampling_needs_a_dialect_that_has_words_for_it(tmp_path: Path) -> None:
    """A cell of another dialect is skipped with the reason before anything runs."""
    engines = "engines: [{engine: http, url: http://127.0.0.1:9, dialect: generate-backend}]\n"
    rest = "workload: {sampling: {top_p: 0.9, seed: 1}}\nload: [{kind: single_user, requests: 3}]"
    (skipped,) = expand(load(written(tmp_path, engines + rest), env={}))
    assert isinstance(skipped, Skip)
    assert skipped.reason.startswith("generate-backend has no `seed`: leave it out of `sampling`, or write it under")
    (cell,) = expand(load(written(tmp_path, (engines + rest).replace(", seed: 1", "")), env={}))
    assert not isinstance(cell, Skip)


def test_priorities_need_an_engine_that_takes_them(tmp_path: Path) -> None:
    """A cell of another engine is skipped with the reason; priorities are part of what a trial is."""
    mixed = "classes: {chat: {priority: 1}, batch: {}}\nload: [{kind: mixed, users: 1, requests: 3}]"
    engines = "engines: [{engine: simulated}, {engine: http, url: http://127.0.0.1:9}]\n"
    scenario = load(written(tmp_path, engines + mixed), env={})
    skipped, served = expand(scenario)
    assert isinstance(skipped, Skip)
    assert skipped.reason == "simulated accepts no priority of a request; remove `classes.chat.priority`"
    assert isinstance(served, Cell)
    other = expand(load(written(tmp_path, engines + mixed.replace("priority: 1", "priority: 2")), env={}))[1]
    assert isinstance(other, Cell)
    assert identity(served, served.trials[0]) != identity(other, other.trials[0])
    plan = served.trials[0]
    schedule = build(plan.load, plan.workload, 1, classes=plan.classes)
    sent = {schedule.row(i).class_name: schedule.request(i).priority for i in range(3)}
    assert sent.get("chat", 1) == 1
    assert sent.get("batch") is None
