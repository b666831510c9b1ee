"""Scenarios that are wrong: every problem at once, each with its place and what to write instead."""

# The sentences are kept whole.
# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ScenarioError
from harness.scenario.model import Scenario
from harness.scenario.reader import load
from harness.scenario.templates import shipped_path

WRONG = """\
name: chat
modle: tiny
engines:
  - engine: llama-servr
    lora: x
  - engine: http
  - engine: simulated
    url: http://127.0.0.1:1
load:
  - {kind: single_user, requests: "30", duration: 30}
  - {kind: sustained, rate: [2, x], warmup: 20s, duration: 2m}
  - kind: mixed
    kind: mixed
    users: -3
    sloo: 3
  - {kind: saturate, rate: 3}
  - {rate: "${RATE}"}
  - {kind: sustaind}
  - {kind: burst, rate: 1, burst_rate: 2, duration: 5s}
  - just this
slo: {ttft: 500}
limits: ["attainment p50 >= 0.95", "chat.tpot_ms p50 <= 50ms"]
decide: alll
repetitions: 1.5
compare: {}
"""
SENTENCES = """\
2:1: modle: unknown key; did you mean `model`?
4:13: engines.0.engine: unknown engine `llama-servr`; did you mean `llama-server`?
5:5: engines.0.lora: unknown key; did you mean `load`?
6:5: engines.1: needs `url` (a running server) or `command` (to start one)
7:5: engines.2: `url` is a key of engine `http`, not of `simulated`
10:5: load.0: `duration` and `requests` exclude each other; keep one
10:35: load.0.requests: must be a whole number, found '30'; write 30 without quotes
10:51: load.0.duration: 30 has no unit; write `30s` or `30ms`
11:33: load.1.rate.1: must be a number, found 'x'
12:5: load.2: needs `duration` or `requests`
12:11: load.2.kind: `mixed` needs `classes`; add them, or write `kind: sustained`
13:5: load.2.kind: given twice, first in line 12; keep one
14:12: load.2.users: must be at least 1, found -3
15:5: load.2.sloo: unknown key; did you mean `slo`?
16:22: load.3.rate: is what this load searches for; write `first_rate`, or `largest_rate`, or leave it out
17:5: load.4: needs `kind`, such as `kind: single_user`
17:12: load.4.rate: the environment variable RATE is not set; set it, or write `${RATE:-default}`
18:5: load.5: unknown kind `sustaind`; did you mean `sustained`?
19:5: load.6: bursts also need `burst_for` and `every`
20:5: load.7: must be a mapping of keys, found 'just this'
21:13: slo.ttft: 500 has no unit; write `500s` or `500ms`
22:10: limits.0: `attainment` has a single value; write `attainment >= 0.95` without `p50`
22:36: limits.1: unknown class `chat`; there are no `classes`
23:9: decide: must be `all` or `any`, found 'alll'; did you mean `all`?
24:14: repetitions: must be a whole number, found 1.5
25:1: compare.baseline: is missing; write it, such as `baseline: base`
"""
LEAST = "engines: [{engine: simulated}]\nload: [{kind: single_user, requests: 3}]\n"


def problems_of(path: Path, *, sets: list[str] | None = None, labels: list[str] | None = None) -> list[str]:
    """The sentences about a file, its folder left out."""
    with pytest.raises(ScenarioError) as refusal:
        load(path, sets=sets or [], labels=labels or [], env={})
    return str(refusal.value).replace(f"{path.parent}/", "").splitlines()


def written(folder: Path, text: str, name: str = "s.yaml") -> Path:
    """A file with that text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """File, line, column, key, what is wrong and what to write."""
    assert problems_of(written(tmp_path, WRONG)) == [f"s.yaml:{line}" for line in SENTENCES.splitlines()]


@pytest.mark.parametrize(
    ("added", "sentence"),
    [
        ("workload: {turns: 3, repeat: 0.5}", "3:1: workload: `turns` and `repeat` exclude each other; keep one"),
        ("workload: {turns: {dist: fixed, value: 3, exact: true}}", "3:12: workload.turns: `exact` is only for output tokens; leave it out"),
        ("workload: {think_time: 2s}", "3:12: workload.think_time: applies between the turns of a conversation; add `turns`, or write `think_time` in the load"),
        ("workload: {cancel: {share: 0.1}}", "3:12: workload.cancel.after: is missing; write it, such as `after: 2s`"),
        ("workload: {prefix: {share: 1}}", "3:12: workload.prefix.tokens: is missing; write it, such as `tokens: 500`"),
        ("workload: {prefix: {tokens: 99}, prompt_tokens: 99}", "3:1: workload: `prefix.tokens` (99) must be less than `prompt_tokens` (99)"),
        ("workload: {repeat: 30}", "3:20: workload.repeat: must be at most 1, found 30"),
        ("telemetry: {interval: 1ms}", "3:23: telemetry.interval: must be at least 5ms; shorter intervals take more than 1 % of a core from the measurement"),
        ("telemetry: {interval: 5m}", "3:23: telemetry.interval: must be at most 10s; longer intervals miss the peaks of memory and load"),
        ("plan: {demand: -1}", "3:16: plan.demand: must be requests per second above 0, or a file, found -1"),
        ("plan: {demand: none.csv}", "3:16: plan.demand: FOLDER/none.csv is not a file; a path here is relative to FOLDER"),
        ("plan: {headroom: 0.8}", "3:18: plan.headroom: 0.8 has no unit; write `80%` or `0.8%`"),
        ("plan: {survive: rack}", "3:17: plan.survive: must be `nothing`, `replica` or `zone`, found 'rack'"),
        ("plan: {scaling: hours}", "3:1: plan: `scaling: hours` needs `hours`, such as `hours: mon-fri 09:00-18:00 Europe/Berlin`"),
        ("history: {store: x}", "3:1: history: unknown key; settings of a history stand in its folder, in `history.yaml`"),
        ("classes: {all: {}}", "3:11: classes.all: `all` is reserved for results; rename the class"),
        ("classes: {default: {}}", "3:11: classes.default: `default` is reserved for results; rename the class"),
        ("classes: {cached: {}}", "3:11: classes.cached: `cached` is reserved for results; rename the class"),
        ("classes: {'backend:x': {}}", "3:11: classes.backend:x: `backend:x` is reserved for results; rename the class"),
        ("budget: {usd: 0}", "3:15: budget.usd: must be more than 0, found 0"),
        ("telemetry: {metrics_urls: 'http://u:p@h:1/metrics'}", "3:27: telemetry.metrics_urls: contains a user name or password; name their variable in `headers_env` or `api_key_env`"),
        ("telemetry: {metrics_urls: [http://h:1, http://h:1]}", "3:27: telemetry.metrics_urls: lists http://h:1 twice; keep one"),
        ("telemetry: {metrics_urls: [{url: 'http://h:1', names: {queue: q}}]}", "3:63: telemetry.metrics_urls.0.names.queue: must be `running_requests` or `waiting_requests` or `kv_cache_share` or `prompt_tokens` or `generation_tokens` or `finished_requests` or `preemptions` or `prefix_queries_tokens` or `prefix_hits_tokens` or `cached_prompt_tokens` or `queue_time_s` or `queue_time_count`, found 'queue'"),
        ("telemetry: {metrics_urls: [x]}", "3:28: telemetry.metrics_urls.0: 'x' is not an address; write `http://host:port`"),
        ("name: my run", "3:7: name: allows letters, digits, `.`, `_` and `-` only; write `my-run`"),
        ("version: 2", "3:10: version: must be `1`, found 2"),
        ("workload: {stream: yes}", "3:20: workload.stream: must be true or false, found 'yes'"),
        ("description: 5", "3:14: description: must be a text, found 5; put it in quotes"),
        ("limits: error_rate <= 1", "3:9: limits: must be a list, found 'error_rate <= 1'; write `[...]` or a `- ` before each item"),
        ("workload: {prompt_tokens: {dist: pareto}}", "3:12: workload.prompt_tokens: unknown dist `pareto`; known are empirical, fixed, lognormal, normal, uniform"),
        ("workload: {prompt_tokens: {dist: fixed}}", "3:12: workload.prompt_tokens.value: is missing; write it, such as `value: 128`"),
        ("workload: {prompt_tokens: {dist: uniform, min: 9, max: 3}}", "3:12: workload.prompt_tokens: `max` (3) is below `min` (9)"),
        ("workload: {prompts: nowhere.jsonl}", "3:21: workload.prompts: FOLDER/nowhere.jsonl is not a file; a path here is relative to FOLDER"),
        ("slo: {ttft: 0s}", "3:13: slo.ttft: must be more than 0"),
        ("slo: {itl: 50ms}", "3:7: slo.itl: unknown key; write `tpot: 50ms`"),
        ("workload: {input_tokens: 200}", "3:12: workload.input_tokens: unknown key; write `prompt_tokens: 200`"),
        ("workload: {max_tokens: {dist: fixed}}", "3:12: workload.max_tokens: unknown key; write `output_tokens: ...`"),
        ('limits: ["p95 ttft < 500ms"]', "3:10: limits.0: the metric comes before the statistic; write `ttft_ms p95 < 500ms`"),
        ("labels: {a: [1]}", "3:13: labels.a: must be a text, found a list"),
        ("rate: 3", "3:1: rate: unknown key here; write it in a load, as `load: [{kind: sustained, rate: 3}]`"),
        ("burst_rate: 3", "3:1: burst_rate: unknown key here; write it in a load, as `load: [{kind: burst, burst_rate: 3}]`"),
        ("output_tokens: {dist: fixed, value: 1}", "3:1: output_tokens: unknown key here; write it under `workload`, as `workload: {output_tokens: ...}`"),
        ("temperature: 0.5", "3:1: temperature: unknown key here; write it under `sampling`, as `workload: {sampling: {temperature: 0.5}}`"),
        ("workload: {seed: 3}", "3:12: workload.seed: unknown key here; write it at the top level, as `seed: 3`"),
        ("workload: {users: 3}", "3:12: workload.users: unknown key here; write it in a load, as `load: [{kind: sustained, users: 3}]`"),
        ("ttft: 100ms", "3:1: ttft: unknown key here; write it under `slo`, as `slo: {ttft: 100ms}`"),
        ("url: http://h:1", "3:1: url: unknown key here; write it in a block of `engines`, as `engines: [{engine: ..., url: http://h:1}]`"),
        ("options: {ttft_ms: 3}", "3:1: options: unknown key here; write it in a block of `engines`, as `engines: [{engine: ..., options: ...}]`"),
        ("ttft_ms: 3", "3:1: ttft_ms: unknown key here; write it under `options` of the engine, as `options: {ttft_ms: 3}`"),
        ("metrics_url: x", "3:1: metrics_url: unknown key; known are " + ", ".join(Scenario.known_keys())),
        ("description: ${X", "3:14: description: `${` is not closed or names no variable; write `${NAME}`, or `$${` for a literal `${`"),
        ("description: ${MY_KEY:-x}", "3:14: description: the value of MY_KEY would be stored with the results; write its name under `api_key_env` or `headers_env`, or use it in the engine's `env` for a variable whose name says that it is a secret, such as HF_TOKEN"),
        ("description: ${X:-${Y}}", "3:14: description: the default of X has another variable, which is not filled in; write a plain default"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_sentence(tmp_path: Path, added: str, sentence: str) -> None:
    """Each mistake gives one sentence at its place."""
    (found,) = problems_of(written(tmp_path, LEAST + added + "\n"))
    expected = f"s.yaml:{sentence}".replace("FOLDER/", "").replace("FOLDER", str(tmp_path))
    assert found == expected


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (
            "{engine: http, url: \"http://h:1\", api_key_env: sk-very-secret}",
            "1:58: engines.0.api_key_env: must be the name of an environment variable, such as `OPENAI_API_KEY`, not its value",
        ),
        (
            "{engine: http, url: \"http://u:pass@h\"}",
            "1:31: engines.0.url: contains a user name or password; name their variable in `headers_env` or `api_key_env`",
        ),
        (
            "{engine: http, url: \"http://h/v1?api_key=sk-secret\"}",
            "1:31: engines.0.url: contains `api_key`, which would be stored; name its variable in `headers_env`, as a "
            "header",
        ),
        ("{engine: simulated, ttft_ms: 3}", "1:31: engines.0.ttft_ms: unknown key here; write it under `options` of the engine, as `options: {ttft_ms: 3}`"),
        ("{engine: simulated, tfft_ms: 3}", "1:31: engines.0.tfft_ms: unknown key here; did you mean `ttft_ms` under `options` of the engine?"),
        ("{engine: vllm, enforce_eager: true}", "1:26: engines.0.enforce_eager: unknown key here; write it under `options` of the engine, as `options: {enforce_eager: true}`"),
        ("{engine: simulated, prompt_tokens: 3}", "1:31: engines.0.prompt_tokens: unknown key here; write it under `workload`, as `workload: {prompt_tokens: 3}`"),
        ("{engine: simulated, options: {quantization: q8_0}}", "1:41: engines.0.options.quantization: `quantization` is no option; write it beside `engine`, in the block"),
        ("{engine: {name: simulated, ttft_ms: 3}}", "1:12: engines.0.engine: must be a text, found a mapping; write the keys beside `engine`, or under `options`"),
        ("{engine: simulated, devices: [0], env: 3}", "1:50: engines.0.env: must be a mapping of keys, found 3"),
        ("{engine: http, url: localhost}", "1:31: engines.0.url: 'localhost' is not an address; write `http://host:port`"),
        (
            "{engine: http, command: \"serve {modle} {port}\"}",
            "1:35: engines.0.command: unknown placeholder `{modle}`: did you mean `{model}`? Write `{{modle}}` for these "
            "characters themselves",
        ),
        (
            "{engine: http, command: \"serve {port}\", stop: \"kill {pid}\"}",
            "1:57: engines.0.stop: unknown placeholder `{pid}`: known are `{port}`, `{model}` and `{label.NAME}`. Write "
            "`{{pid}}` for these characters themselves",
        ),
        (
            "{engine: http, command: \"serve {model} {port}\"}",
            "1:26: engines.0.command: contains `{model}`, and the scenario names none; add `model`",
        ),
        (
            "{engine: http, command: \"out/{label.commit}/serve {port}\"}",
            "1:26: engines.0.command: contains `{label.commit}`, which is not set; add --label commit=VALUE, or `labels`",
        ),
        ("{engine: http, command: serve}", "1:35: engines.0.command: has no `{port}`; write it where the server takes its port"),
        (
            "{engine: http, url: \"http://h\", dialect: openai-chatt}",
            "1:52: engines.0.dialect: unknown dialect `openai-chatt`; did you mean `openai-chat`?",
        ),
        (
            "{engine: llama-server}",
            "1:20: engines.0.engine: `llama-server` needs a model; write `model: tiny`, or a folder, `.gguf` file or hub id",
        ),
    ],
)  # fmt: skip
def test_each_mistake_about_an_engine_has_its_sentence(tmp_path: Path, engine: str, sentence: str) -> None:
    """Secrets are refused without being repeated."""
    text = LEAST.replace("{engine: simulated}", engine)
    assert problems_of(written(tmp_path, text)) == [f"s.yaml:{sentence}"]


@pytest.mark.parametrize(
    ("load_item", "why"),
    [
        ("{kind: sustained, rate: 1, users: 2, requests: 3}", "`rate` and `users` exclude each other; keep one"),
        ("{kind: sustained, requests: 3}", "needs `rate` or `users`"),
        ("{kind: sustained, rate: 1, requests: 3, think_time: 1s}", "`think_time` goes with `users`; a `rate` does not wait for replies"),
        ("{kind: sustained, users: 1, requests: 3, arrivals: poisson}", "`arrivals` goes with `rate`; `users` send after their last reply"),
        ("{kind: burst, rate: 1, duration: 9s}", "needs `burst_rate` or `spike`"),
        ("{kind: burst, spike: {requests: 5, within: 1s}, duration: 9s}", "a `spike` without a `rate` is the whole trial; add `rate`, or remove duration and warmup"),
        ("{kind: sustained, rate: 1, duration: 9s, ramp: {over: 10s}}", "`ramp.over` is longer than `duration`; shorten it, so that the ramp reaches its end"),
        ("{kind: sustained, rate: 1, duration: 9s, warmup: 1s, ramp: {over: 5s}}", "a `warmup` before a ramp from 0 sends nothing; write `ramp.from`, or leave `warmup` out"),
        ("{kind: sustained, rate: 1, requests: 9, workers: 2, driver: locust}", "`workers` has no effect on Locust; use `--expect-workers` and `harness worker` instead"),
        ("{kind: sustained, users: 1, requests: 9, max_concurrency: 4}", "`max_concurrency` goes with `rate`; `users` have one request each in flight"),
        ("{kind: sustained, rate: 1, requests: 9, max_concurrency: 4, workers: 2}", "`max_concurrency` is kept by one process; leave `workers` out"),
        ("{kind: sustained, users: 1, duration: 9s, ramp: {over: 5s}}", "`ramp` goes with `rate`; the number of `users` is constant"),
        ("{kind: sustained, rate: 1, requests: 9, cv: 2}", "`cv` goes with `arrivals: gamma`; add it, or leave `cv` out"),
        ("{kind: sustained, rate: 1, requests: 9, arrivals: gamma}", "`arrivals: gamma` needs `cv`, such as `cv: 2`"),
        ("{kind: burst, rate: 1, burst_rate: 2, burst_for: 9s, every: 5s, requests: 9}", "`burst_for` must be shorter than `every`"),
    ],
)  # fmt: skip
def test_contradictory_keys_of_a_load_are_reported(tmp_path: Path, load_item: str, why: str) -> None:
    """Contradictions are placed at the load."""
    text = LEAST.replace("{kind: single_user, requests: 3}", load_item)
    assert problems_of(written(tmp_path, text)) == [f"s.yaml:2:8: load.0: {why}"]


@pytest.mark.parametrize(
    ("load_item", "sentence"),
    [
        ("{kind: sustained, rate: 1, requests: 9, workers: 0}", "57: load.0.workers: must be `auto` or a whole number from 1 to 256, found 0"),
        ("{kind: sustained, rate: 1, requests: 9, workers: two}", "57: load.0.workers: must be `auto` or a whole number from 1 to 256, found 'two'"),
        ("{kind: single_user, requests: 9, max_concurrency: 4}", "41: load.0.max_concurrency: goes with a `rate`; a single user has one request in flight"),
        ("{kind: sustained, rate: 1, requests: 9, max_concurrency: 0}", "65: load.0.max_concurrency: must be at least 1, found 0"),
        ("{kind: sustained, rate: 1, requests: 9, retries: 101}", "57: load.0.retries: must be at most 100, found 101"),
        ("{kind: sustained, rate: 1, requests: 9, retries: {times: 1, on: [200]}}", "73: load.0.retries.on.0: must be an HTTP status from 400 to 599 or `connect`, found 200"),
        ("{kind: sustained, rate: 1, requests: 9, retries: {times: 1, wait: 1}}", "74: load.0.retries.wait: 1 has no unit; write `1s` or `1ms`"),
        ("{kind: sustained, rate: 1, requests: 9, retries: yes}", "57: load.0.retries: must be a mapping of keys, found 'yes'"),
        ("{kind: steps, steps: []}", "29: load.0.steps: must not be empty"),
        ("{kind: steps, steps: [{rate: 0, for: 5s}]}", "37: load.0.steps.0.rate: must be more than 0, found 0"),
        ("{kind: steps, steps: [{rate: 1}]}", "30: load.0.steps.0.for: is missing; write it, such as `for: 30s`"),
        ("{kind: steps, steps: [{rate: 1, for: 5s}], duration: 5s}", "51: load.0.duration: is given by the steps; leave it out"),
        ("{kind: sustained, rate: 1, requests: 9, ramp: {from: 1, to: 2, over: 5s}}", "48: load.0.ramp: `from` and `to` exclude each other; keep one"),
        ("{kind: single_user, requests: 9, prompt_tokens: 0}", "56: load.0.prompt_tokens: must be at least 1, found 0"),
        ("{kind: burst, spike: {requests: 9, within: 1s}, prompt_tokens: 9}", "56: load.0.prompt_tokens: unknown key here; write it under `workload`, as `workload: {prompt_tokens: 9}`"),
        ("{kind: sustained, rate: 1, requests: 9, arrivals: ramp}", "58: load.0.arrivals: `ramp` is a key of its own; write `ramp: {to: 8, over: 60s}` beside `rate`"),
    ],
)  # fmt: skip
def test_mistakes_in_the_values_of_a_load_have_their_sentence(tmp_path: Path, load_item: str, sentence: str) -> None:
    """At the place of the key."""
    text = LEAST.replace("{kind: single_user, requests: 3}", load_item)
    assert problems_of(written(tmp_path, text)) == [f"s.yaml:2:{sentence}"]


@pytest.mark.parametrize(("kind", "given"), [("sustained", "gamma(2)"), ("mixed", "{gamma: {cv: 2}}")])
def test_parameters_of_arrivals_stand_beside_them(tmp_path: Path, kind: str, given: str) -> None:
    """The message contains the correct keys."""
    load_item = f"{{kind: {kind}, arrivals: {given}, rate: 1, requests: 9}}"
    text = LEAST.replace("{kind: single_user, requests: 3}", load_item)
    (found,) = [one for one in problems_of(written(tmp_path, text)) if ".arrivals" in one]
    assert found.endswith("load.0.arrivals: must be a single word; write `arrivals: gamma` and the key `cv: 2`")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "s.yaml: is empty; write at least `engines:` and `load:`"),
        ("# nothing\n", "s.yaml: is empty; write at least `engines:` and `load:`"),
        ("- a\n", "s.yaml:1:1: must be a mapping at the top, such as `engines: [...]` and `load: [...]`"),
        ("just text\n", "s.yaml:1:1: must be a mapping at the top, such as `engines: [...]` and `load: [...]`"),
        ("a: [1\nb: 2\n", "s.yaml:2:2: is not YAML: expected ',' or ']', but got ':'"),
        ("load:\n  - a: 1\n    b: 2\n\n   c: 3\n", "s.yaml:5:4: is not YAML: line 5 `c: 3` is indented less than line 3; align it with the keys or items beside it"),
        ("a: 1\n  b: 2\n", "s.yaml:2:4: is not YAML: line 2 `b: 2` is indented more than line 1; align it with the keys or items beside it"),
        ("a:\n  - b: 1\n  c: 2\n", "s.yaml:3:3: is not YAML: line 3 `c: 2` is indented like line 2; align it with the keys or items beside it"),
        ("a:\n\t- b\n", "s.yaml:2:1: is not YAML: line 2 contains a tab; indent it with spaces"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2:1: is not YAML: but found another document"),
        ("a: &x [*x]\n", "s.yaml:1:4: a.0: an alias is inside its own anchor"),
    ],
)  # fmt: skip
def test_files_that_are_no_scenarios_get_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """An unreadable file gives one problem."""
    assert problems_of(written(tmp_path, text)) == [sentence]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("engines: [simulated]", "1:11: engines.0: must be a mapping of keys, found 'simulated'; write `{engine: simulated}`"),
        ("engines: {model: foo}", "1:1: engines: must be a list, found a mapping; write `[...]` or a `- ` before each item; `model`: unknown key; write `served_model: foo` for the name in requests, or `model` at the top level"),
        ("load: {concurrency: 8}", "1:1: load: must be a list, found a mapping; write `[...]` or a `- ` before each item; each needs `kind`; write `kind: sustained` with `users: 8`"),
        ("load: {kind: sustained}", "1:1: load: must be a list, found a mapping; write `[...]` or a `- ` before each item"),
    ],
)  # fmt: skip
def test_a_section_that_is_no_list_names_the_right_key_too(tmp_path: Path, text: str, sentence: str) -> None:
    """The wrong shape does not hide the wrong key."""
    assert f"s.yaml:{sentence}" in problems_of(written(tmp_path, text))


def test_files_that_are_no_files_get_one_sentence(tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are no text."""
    assert problems_of(tmp_path / "no.yaml") == [
        "no.yaml: no such file; write a new one with `harness init --out my.yaml`"
    ]
    (tmp_path / "folder.yaml").mkdir()
    assert problems_of(tmp_path / "folder.yaml") == ["folder.yaml: is a folder; name a scenario file in it"]
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert problems_of(tmp_path / "latin.yaml") == ["latin.yaml: is not UTF-8 text (byte 9); save it as UTF-8"]


def test_a_mistake_in_the_parent_is_placed_in_the_parent(tmp_path: Path) -> None:
    """The reader is sent to the file that must be changed."""
    written(tmp_path, LEAST + "slo: {ttft: 5}\n", "base.yaml")
    child = written(tmp_path, "extends: base.yaml\nslo: {tpot: 6}\n")
    assert problems_of(child) == [
        "base.yaml:3:13: slo.ttft: 5 has no unit; write `5s` or `5ms`",
        "s.yaml:2:13: slo.tpot: 6 has no unit; write `6s` or `6ms`",
    ]


def test_circles_and_missing_parents_are_reported(tmp_path: Path) -> None:
    """`extends` must lead to an end, and to files."""
    written(tmp_path, LEAST + "extends: s.yaml\n", "base.yaml")
    child = written(tmp_path, "extends: base.yaml\n")
    assert problems_of(child) == [
        "base.yaml:3:10: extends: extends itself: s.yaml extends base.yaml extends s.yaml; break the circle"
    ]
    assert problems_of(written(tmp_path, LEAST + "extends: no.yaml\n", "t.yaml")) == [
        "t.yaml:3:10: extends: no.yaml does not exist; a path here is relative to this file"
    ]


def test_wrong_settings_name_the_nearest_key(tmp_path: Path) -> None:
    """The message contains the path of --set, but not its value."""
    path = written(tmp_path, LEAST)
    sets = ["laod.0.rate=5", "load.9.x=2", "load.0.kind.x=3", "load.first=1", "nothing", "slo.ttft=9", "enginess=3"]
    assert problems_of(path, sets=sets, labels=["x"]) == [
        "--set laod.0.rate: there is no `laod`; did you mean `load`?",
        "--set load.9.x: `load` is a list and has no `9`; write an index from 0 to 0",
        "--set load.0.kind.x: `load.0.kind` is a plain value and has no `x`; set `load.0.kind` itself",
        "--set load.first: `load` is a list and has no `first`; write an index from 0 to 0",
        "--set nothing: must be `key=value`, such as `load.0.rate=4`",
        "--label x: must be `key=value`, such as `commit=abc123`",
        "--set slo.ttft: slo.ttft: 9 has no unit; write `9s` or `9ms`",
        "--set enginess: enginess: unknown key; did you mean `engines`?",
    ]


def test_a_missing_file_with_the_name_of_a_shipped_scenario(tmp_path: Path) -> None:
    """The message contains the command that runs the shipped scenario."""
    assert problems_of(tmp_path / "scenarios" / "quickstart.yaml") == [
        "quickstart.yaml: no such file; `quickstart` names the shipped scenario: `harness run quickstart`"
    ]
    assert problems_of(tmp_path / "quikstart.yaml") == [
        "quikstart.yaml: no such file; did you mean the shipped scenario `quickstart`? "
        "Or write a new one with `harness init --out my.yaml`"
    ]


def test_two_loads_of_one_name_are_refused(tmp_path: Path) -> None:
    """A list of values makes distinct names; an engine's own loads are apart."""
    load_a = "{kind: single_user, name: a, requests: 3}"
    text = f"engines: [{{engine: simulated, load: [{load_a}]}}]\nload: [{load_a}, {load_a}]\n"
    assert problems_of(written(tmp_path, text)) == [
        "s.yaml:2:71: load.1.name: another load is named `a` too; rename one of them"
    ]


def test_load_is_needed_only_by_engines_without_their_own(tmp_path: Path) -> None:
    """The sentence says both ways."""
    own = "{engine: simulated, load: [{kind: single_user, requests: 3}]}"
    assert load(written(tmp_path, f"engines: [{own}]\n")).load == ()
    assert problems_of(written(tmp_path, f"engines: [{own}, {{engine: simulated}}]\n")) == [
        "s.yaml:1:1: needs `load`, such as `load: [{kind: single_user, requests: 20}]`, here or in every engine"
    ]


def test_a_shipped_scenario_is_read_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name comes first, a folder does not; dashes stand for underscores."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "engines").mkdir()
    assert load("engines").source == shipped_path("engines")
    assert load("quickstart").source == shipped_path("quickstart")
    assert load("quantization-sweep").source == shipped_path("quantization_sweep")
    written(tmp_path, LEAST, "quickstart")
    assert load("quickstart").source == Path("quickstart")


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        (
            "{kind: sustained, concurrency: 8, requests: 3}",
            "load.0.concurrency: unknown key; write `users: 8`, or `max_concurrency: 8` beside a `rate`",
        ),
        ("{kind: mixed, qps: 2.5, requests: 3}", "load.0.qps: unknown key; write `rate: 2.5`"),
        ("{kind: burst, rps: 2, requests: 3}", "load.0.rps: unknown key; write `rate: 2`"),
        ("{kind: sessions, request_rate: 2, turns: 2}", "load.0.request_rate: unknown key; write `rate: 2`"),
        (
            "{kind: single_user, concurrency: 8, requests: 3}",
            "load.0.concurrency: unknown key; write `kind: sustained` with `users: 8`",
        ),
        (
            "{kind: single_user, rate: 8, requests: 3}",
            "load.0.rate: unknown key; write `kind: sustained` with `rate: 8`",
        ),
        ("{concurrency: 8, requests: 3}", "load.0: needs `kind`; write `kind: sustained` with `users: 8`"),
        ("{qps: 8, requests: 3}", "load.0: needs `kind`; write `kind: sustained` with `rate: 8`"),
        ("{rate: 2, duration: 5s}", "load.0: needs `kind`; write `kind: sustained` with `rate: 2`"),
        ("{rate: 2, burst_rate: 8, duration: 5s}", "load.0: needs `kind`; write `kind: burst`"),
    ],
)
def test_keys_of_other_tools_are_translated(tmp_path: Path, given: str, fix: str) -> None:
    """A key that other tools use leads to the key of a load."""
    text = LEAST.replace("{kind: single_user, requests: 3}", given)
    found = problems_of(written(tmp_path, text))
    assert any(one.endswith(fix) for one in found)
    assert not any("needs `rate` or `users`" in one for one in found)


def test_an_engine_has_no_model_of_its_own(tmp_path: Path) -> None:
    """`model` is a key of the scenario; the name in requests is `served_model`."""
    text = LEAST.replace("simulated", "http, url: 'http://h', model: foo")
    (sentence,) = problems_of(written(tmp_path, text))
    assert sentence.endswith(
        "engines.0.model: unknown key; write `served_model: foo` for the name in requests, or `model` at the top level"
    )


@pytest.mark.parametrize(
    ("kind", "key"), [("users", "users: 4"), ("rate", "rate: 2"), ("constant", "arrivals: constant")]
)
def test_a_kind_that_is_a_key_of_another(tmp_path: Path, kind: str, key: str) -> None:
    """`kind: users` means `sustained` with `users`, and not `steps`."""
    file = tmp_path / "s.yaml"
    file.write_text(f"engines: [{{engine: simulated}}]\nload: [{{kind: {kind}, duration: 5s}}]\n")
    (sentence,) = problems_of(file)
    assert sentence.endswith(f"load.0: unknown kind `{kind}`; write `kind: sustained` with `{key}`")


@pytest.mark.parametrize(
    "name", ["all", "default", "cached", "uncached", "repeated", "original", "backend:0", "backend:http://a:1"]
)
def test_a_class_has_no_name_of_results(tmp_path: Path, name: str) -> None:
    """Results of all, and of those that results are split into, would be mixed up with those of the class."""
    text = LEAST + f'classes:\n  chat: {{weight: 1}}\n  "{name}": {{weight: 2}}\n'
    (found,) = problems_of(written(tmp_path, text))
    assert found.startswith("s.yaml:5:")
    assert found.endswith(f"classes.{name}: `{name}` is reserved for results; rename the class")


@pytest.mark.parametrize("name", ["alle", "All", "cache", "originals", "backend", "repeat"])
def test_names_like_those_of_results_are_free(tmp_path: Path, name: str) -> None:
    """Only the names themselves are taken."""
    scenario = load(written(tmp_path, LEAST + f"classes: {{chat: {{weight: 1}}, {name}: {{weight: 2}}}}\n"), env={})
    assert set(scenario.classes) == {"chat", name}


def test_a_spike_that_would_not_be_measured_has_its_sentence(tmp_path: Path) -> None:
    """A part of it would fall due behind the window."""
    spike = "load: [{kind: burst, rate: 1, spike: {requests: 9, within: 10s, at: 25s}, duration: 30s}]\n"
    (found,) = problems_of(written(tmp_path, LEAST.splitlines()[0] + "\n" + spike))
    assert found == (
        "s.yaml:2:8: load.0: the spike ends 35 s into the measurement, at or after its end; "
        "lengthen `duration`, or shorten `spike.at` or `spike.within`"
    )


@pytest.mark.parametrize(
    ("workload", "why"),
    [
        ("{prompts: p.jsonl}", "cannot be combined with `workload.prompts`, which have lengths of their own; leave it out"),
        ("{prefix: {tokens: 99}}", "`prefix.tokens` (99) must be less than `prompt_tokens` (99)"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_have_the_length_of_a_load(tmp_path: Path, workload: str, why: str) -> None:
    """At the value in the load's list, once."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n', encoding="utf-8")
    load_item = "{kind: single_user, requests: 3, prompt_tokens: [99, 200]}"
    text = LEAST.replace("{kind: single_user, requests: 3}", load_item) + f"workload: {workload}\n"
    found = problems_of(written(tmp_path, text))
    assert found[0].endswith(f": load.0.prompt_tokens.0: {why}")
    assert len(found) == (2 if "prompts:" in workload else 1)


def test_a_secret_in_the_environment_of_an_engine_has_a_name_that_says_so(tmp_path: Path) -> None:
    """Any other name is stored with its value."""
    engine = "{engine: simulated, env: {EXTRA_ARGS: '--api-key ${VLLM_API_KEY:-x}', HF_TOKEN: '${HF_TOKEN:-y}'}}"
    (found,) = problems_of(written(tmp_path, LEAST.replace("{engine: simulated}", engine)))
    assert "engines.0.env.EXTRA_ARGS: the value of VLLM_API_KEY would be stored with the results" in found


def test_a_base_is_not_named_by_an_option(tmp_path: Path) -> None:
    """It would be read too late, and change nothing."""
    (found,) = problems_of(written(tmp_path, LEAST), sets=["extends=base.yaml"])
    assert found.endswith("must stand in the file: `--set` comes after the file that it extends")
