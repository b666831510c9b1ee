"""Scenarios that are right: what is read, and what is written down of them."""

from __future__ import annotations

import json
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from harness.errors import ScenarioError
from harness.scenario.lengths import ExponentialTime, FixedLength, LognormalLength
from harness.scenario.loads.kinds import Burst, Mixed, SingleUser, Steps, Sustained, load_names
from harness.scenario.model import DEFAULT_SEED, Scenario
from harness.scenario.reader import as_checked, load, restore

LEAST = "engines: [{engine: simulated}]\nload: [{kind: single_user, requests: 3}]\n"
EVERYTHING = """\
version: 1
name: all-of-it
description: Every key that is built.
labels: {team: inference, build: 42}
model: [tiny, {name: org/model, revision: main}]
engines:
  - engine: llama-server
    quantization: [q8_0, {level: f16, model: other.gguf}]
    variants: {base: {n_parallel: 1}, wide: {n_parallel: 8}}
    options: {n_ctx: 1024}
    python: ~/envs/llama/bin/python
    env: {OMP_NUM_THREADS: 2, HF_TOKEN: "${HF_TOKEN}"}
    load: [{kind: single_user, requests: 4}]
  - engine: http
    dialect: openai-chat
    served_model: chat
    ready: {path: /health, timeout: 5m}
    stop: docker rm -f harness-{port}
    api_key_env: CHAT_KEY
    headers_env: {X-Tenant: TENANT}
    variants:
      base: {command: "docker run -p {port}:8000 ${BASE_IMAGE:-chat:1}"}
      head: {url: "https://chat.example:8443/api"}
workload:
  prompt_tokens: {dist: lognormal, median: 600, p95: 2000, min: 10, max: 4000}
  output_tokens: {dist: empirical, values: [10, 20], weights: [1, 2.5], exact: true}
  sampling: {temperature: 0, top_p: 0.9, top_k: 40, seed: 7, stop: "END"}
  stream: false
  prefix: {share: 0.5, tokens: 400, groups: 2}
  repeat: 0.2
  cancel: {share: 0.1, after: {dist: exponential, mean: 2s}}
classes:
  chat: {weight: 3, priority: 1, workload: {output_tokens: 20}, slo: {ttft: 300ms}}
  long: {workload: {prompt_tokens: {dist: uniform, min: 500, max: 900}}}
load:
  - {kind: single_user, requests: 30, think_time: {dist: exponential, mean: 2s}}
  - {kind: sustained, name: steady, rate: [2, 4.5], warmup: 20s, duration: 2m, arrivals: constant, timeout: 30s}
  - {kind: sustained, users: [1, 8], requests: 50, think_time: 500ms}
  - {kind: burst, rate: 1, burst_rate: 12, burst_for: 10s, every: 60s, duration: 8m, slo: {e2e: 9s}}
  - {kind: burst, spike: {requests: 50, within: 1s}, limits: ["e2e_ms max <= 9000"]}
  - {kind: mixed, rate: 3, duration: 60s}
  - {kind: sustained, rate: 3, duration: 60s, arrivals: gamma, cv: [0.5, 2]}
  - {kind: steps, steps: [{rate: 1, for: 30s}, {rate: 2.5, for: 1m}], warmup: 5s}
  - {kind: mixed, rate: 3, ramp: {from: 1, over: 20s}, duration: 60s}
slo: {ttft: 500ms, tpot: 50ms, e2e: 10s, stall: 1s}
limits: ["attainment >= 0.95", "chat.tpot_ms p50 <= 50ms"]
decide: any
repetitions: 3
order: blocks
restart: per_trial
telemetry: {interval: 200ms}
budget: {requests: 100000, tokens: 10000000, time: 3h}
seed: 5
"""
ENVIRONMENT = {"HF_TOKEN": "hf-secret-value", "CHAT_KEY": "key-secret-value", "TENANT": "tenant-secret-value"}


def scenario_of(folder: Path, text: str, **keywords: Any) -> Scenario:
    """A scenario from a text."""
    path = folder / "scenario.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, **{"env": {}, **keywords})


def test_engines_and_load_are_enough(tmp_path: Path) -> None:
    """Everything else has a default, and the default seed is a constant."""
    scenario = scenario_of(tmp_path, LEAST)
    assert (scenario.name, scenario.seed, scenario.decide) == ("scenario", DEFAULT_SEED, "all")
    assert scenario.source == tmp_path / "scenario.yaml"
    assert scenario.load[0].timeout_s == 120.0


def test_every_key_is_read_in_base_units(tmp_path: Path) -> None:
    """Times are seconds, latencies milliseconds, names of attributes carry the unit."""
    scenario = scenario_of(tmp_path, EVERYTHING, env=ENVIRONMENT)
    single, steady, _, users, _, burst, spike, mixed, even, uneven, steps, rising = scenario.load
    assert isinstance(single, SingleUser)
    assert isinstance(single.think_time, ExponentialTime)
    assert single.think_time.mean_s == 2.0
    assert isinstance(steady, Sustained)
    assert (steady.rate, steady.warmup_s, steady.duration_s, steady.timeout_s) == (2.0, 20.0, 120.0, 30.0)
    assert isinstance(users, Sustained)
    assert (users.users, users.rate, users.requests) == (1, None, 50)
    assert isinstance(burst, Burst)
    assert (burst.burst_for_s, burst.every_s) == (10.0, 60.0)
    assert burst.mean_rate == pytest.approx(17 / 6)
    assert isinstance(spike, Burst)
    assert spike.spike is not None
    assert (spike.spike.requests, spike.spike.within_s) == (50, 1.0)
    assert isinstance(mixed, Mixed)
    assert isinstance(even, Sustained)
    assert isinstance(uneven, Sustained)
    assert [(one.arrivals, one.cv) for one in (even, uneven)] == [("gamma", 0.5), ("gamma", 2.0)]
    assert isinstance(steps, Steps)
    assert [(step.rate, step.for_s) for step in steps.steps] == [(1.0, 30.0), (2.5, 60.0)]
    assert (steps.measured_s, steps.mean_rate) == (90.0, 2.0)
    assert isinstance(rising, Mixed)
    assert rising.ramp is not None
    assert (rising.ramp.ends(3.0), rising.ramp.over_s) == ((1.0, 3.0), 20.0)
    assert (scenario.slo.ttft_ms, scenario.slo.stall_ms) == (500.0, 1000.0)
    assert (scenario.telemetry.interval_s, scenario.budget.time_s) == (0.2, 10800.0)
    assert isinstance(scenario.workload.prompt_tokens, LognormalLength)
    assert scenario.workload.prefix is not None
    assert scenario.workload.prefix.model_dump() == {"share": 0.5, "tokens": 400, "groups": 2}
    assert scenario.workload.repeat == 0.2
    assert scenario.workload.sampling.as_options() == {
        "temperature": 0, "top_p": 0.9, "top_k": 40, "seed": 7, "stop": ["END"]
    }  # fmt: skip


def test_tokens_are_drawn_greedily_unless_a_temperature_is_given(tmp_path: Path) -> None:
    """Absent is 0; `server` leaves it to the server; what else is left out is not sent."""
    for written, sent in (
        ("{}", {"temperature": 0}),
        ("{seed: 3}", {"temperature": 0, "seed": 3}),
        ("{temperature: 0.7}", {"temperature": 0.7}),
        ("{temperature: server}", {}),
    ):
        (tmp_path / "s.yaml").write_text(
            "engines: [{engine: simulated}]\nload: [{kind: single_user, requests: 1}]\n"
            f"workload: {{sampling: {written}}}\n"
        )
        sampling = load(str(tmp_path / "s.yaml")).workload.sampling
        assert sampling.as_options() == sent
        assert sampling.left_to_the_server().as_options() == {
            name: value for name, value in sent.items() if (name, value) != ("temperature", 0)
        }


def test_a_list_of_rates_is_one_load_each(tmp_path: Path) -> None:
    """Names of loads that come from one item tell them apart."""
    scenario = scenario_of(tmp_path, EVERYTHING, env=ENVIRONMENT)
    assert [load.name for load in scenario.load[1:3]] == ["steady-rate-2", "steady-rate-4.5"]
    assert [getattr(load, "users", None) for load in scenario.load[3:5]] == [1, 8]


def test_several_lists_are_combined(tmp_path: Path) -> None:
    """Every value of one list meets every value of the other."""
    text = LEAST.replace(
        "{kind: single_user, requests: 3}",
        "{kind: burst, rate: [1, 2], burst_rate: [8, 9], burst_for: 1s, every: 5s, requests: 9}",
    )
    loads = scenario_of(tmp_path, text).load
    assert [(load.rate, load.burst_rate) for load in loads if isinstance(load, Burst)] == [
        (1, 8),
        (1, 9),
        (2, 8),
        (2, 9),
    ]


def test_a_list_of_caps_is_one_load_each(tmp_path: Path) -> None:
    """Their names tell them apart, as those of rates."""
    text = LEAST.replace("single_user, requests: 3", "sustained, rate: [2, 4], max_concurrency: [8, 16], requests: 3")
    loads = scenario_of(tmp_path, text).load
    assert [load.cap for load in loads] == [8, 16, 8, 16]
    assert load_names(loads)[1:3] == ["sustained-rate-2-cap-16", "sustained-rate-4-cap-8"]


def test_retries_are_a_number_or_a_mapping(tmp_path: Path) -> None:
    """And are read again as they are written."""
    text = LEAST.replace("requests: 3", "requests: 3, retries: {written}")
    for written, found in (("2", (2, (429, 503, "connect"), 0.5)), ("{times: 1, on: 500, wait: 0s}", (1, (500,), 0.0))):
        scenario = scenario_of(tmp_path, text.replace("{written}", written))
        for one in (scenario, as_checked(scenario.resolved())):
            retries = one.load[0].retries
            assert retries is not None
            assert (retries.times, retries.on, retries.wait_s) == found
    assert scenario_of(tmp_path, LEAST).load[0].retries is None


def test_what_is_resolved_is_the_same_scenario(tmp_path: Path) -> None:
    """The manifest's scenario can be read again and means the same."""
    scenario = scenario_of(tmp_path, EVERYTHING, env=ENVIRONMENT)
    again = restore(scenario.resolved(), scenario.source)
    assert again.resolved() == scenario.resolved()
    assert again.load == scenario.load
    assert again.workload == scenario.workload
    assert again.source == scenario.source


def test_what_a_class_leaves_out_stays_the_scenario_s_after_restoring(tmp_path: Path) -> None:
    """Defaults are not written into a class, where they would replace the scenario's workload."""
    again = restore(scenario_of(tmp_path, EVERYTHING, env=ENVIRONMENT).resolved(), tmp_path)
    merged = again.workload.overridden_by(again.classes["chat"].workload)
    assert merged.output_tokens == FixedLength(value=20)
    assert merged.prompt_tokens == again.workload.prompt_tokens
    assert not merged.stream


def test_no_secret_is_written_down(tmp_path: Path) -> None:
    """Neither the resolved scenario nor its text contains a secret's value."""
    scenario = scenario_of(tmp_path, EVERYTHING, env=ENVIRONMENT)
    written = f"{scenario.resolved()} {scenario!r} {scenario}"
    assert not any(secret in written for secret in ENVIRONMENT.values())
    assert "CHAT_KEY" in written


def test_empty_keys_are_not_given(tmp_path: Path) -> None:
    """A key with nothing after it has its default."""
    assert scenario_of(tmp_path, LEAST + "slo:\nlimits:\nname:\n").limits == ()


def test_words_are_read_as_yaml_1_2_reads_them(tmp_path: Path) -> None:
    """`on` and `12:30` are texts, `1e3` is a number, whatever YAML 1.1 said; a directive changes nothing."""
    text = LEAST.replace(
        "{engine: simulated}",
        "{engine: http, url: 'http://127.0.0.1:9', request: {a: on, b: 12:30, c: 1e3, d: 0o17, e: 017}}",
    )
    for head in ("", "%YAML 1.1\n---\n"):
        options = scenario_of(tmp_path, head + text).engines[0].request
        assert options is not None
        assert options == {"a": "on", "b": "12:30", "c": 1000.0, "d": 15, "e": 17}
        assert type(options["c"]) is float


def test_a_scenario_cannot_be_changed(tmp_path: Path) -> None:
    """The validated scenario is the one that runs."""
    scenario = scenario_of(tmp_path, LEAST)
    with pytest.raises(ValueError, match="frozen"):
        scenario.seed = 3


def test_paths_are_relative_to_the_file_in_which_they_stand(tmp_path: Path) -> None:
    """Also when a scenario in another folder extends that file."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "prompts.jsonl").write_text('{"prompt": "x"}\n')
    (tmp_path / "base" / "base.yaml").write_text(LEAST + "workload: {prompts: prompts.jsonl}\n")
    scenario = scenario_of(tmp_path, "extends: base/base.yaml\n")
    assert scenario.workload.prompts == tmp_path / "base" / "prompts.jsonl"


def test_a_prefix_alone_is_restored_as_it_was_read(tmp_path: Path) -> None:
    """Classes set the prompt lengths: the default in the stored scenario is no mistake."""
    classes = "classes: {a: {workload: {prompt_tokens: 600}}, b: {workload: {prompt_tokens: 900}}}\n"
    scenario = scenario_of(tmp_path, LEAST + "workload: {prefix: {share: 0.5, tokens: 400}}\n" + classes)
    assert restore(scenario.resolved(), scenario.source).resolved() == scenario.resolved()
    assert as_checked(scenario.resolved()).workload == scenario.workload


def test_a_scenario_whose_engines_each_have_a_load_is_restored_as_it_was_read(tmp_path: Path) -> None:
    """Child processes and a resumed run read it again: nothing stands for the missing `load` at the top."""
    own = "{engine: simulated, load: [{kind: single_user, requests: 1}]}"
    scenario = scenario_of(tmp_path, f"engines: [{own}]\n")
    assert "load" not in scenario.resolved()
    assert as_checked(scenario.resolved()).engines == scenario.engines
    assert restore(scenario.resolved(), scenario.source) == scenario


def test_labels_are_added(tmp_path: Path) -> None:
    """Labels of the command line join those of the file and win over them."""
    scenario = scenario_of(tmp_path, LEAST + "labels: {a: 1, b: x}\n", labels=["a=2", "commit=a=b"])
    assert scenario.labels == {"a": "2", "b": "x", "commit": "a=b"}


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all values in a tree except the root."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(one for key, child in children for one in paths_of(child, (*path, key)))]


WHOLE = YAML(typ="safe").load(EVERYTHING)
ODD_VALUES = st.one_of(
    st.sampled_from([None, 0, -1, 2.5, True, 10**400, float("inf"), "x", "30s", "${NO}", "error_rate <= 1"]),
    st.sampled_from([[], {}, [1], {"a": 1}, {"dist": "fixed", "value": 3}, {"kind": "single_user"}]),
)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(paths_of(WHOLE)), ODD_VALUES), min_size=1, max_size=3))
def test_any_value_anywhere_is_read_or_reported_with_its_place(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    """No value at any place leads to anything but a scenario that can be restored, or problems with a line."""
    tree = deepcopy(WHOLE)
    for path, value in changes:
        with suppress(KeyError, IndexError, TypeError):  # an earlier change took the place away
            at = tree
            for step in path[:-1]:
                at = at[step]
            at[path[-1]] = deepcopy(value)
    with TemporaryDirectory() as folder:
        try:
            scenario = scenario_of(Path(folder), json.dumps(tree).replace("Infinity", ".inf"), env=ENVIRONMENT)
        except ScenarioError as refusal:
            problems = refusal.problems
        else:
            assert restore(scenario.resolved(), scenario.source).resolved() == scenario.resolved()
            return
    assert all(problem.line is not None for problem in problems)
    assert not [problem for problem in problems if problem.message.startswith(("Input should", "Value error"))]
