"""From scenarios to cells and trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engines.base import ModelReference
from engines.http.addresses import is_loopback
from harness.errors import UsageError
from harness.scenario.model import Scenario
from harness.scenario.reader import as_checked
from harness.schedule.cells import Cell, Skip, identity, slug
from harness.schedule.matrix import check_runnable, expand, needs_the_machine, trial_seed

LOAD = [{"kind": "single_user", "requests": 3}]


def scenario_of(**keys: Any) -> Scenario:
    """A scenario of the simulated engine, with some keys changed."""
    return Scenario.model_validate({"engines": [{"engine": "simulated"}], "load": LOAD, **keys})


def cells_of(scenario: Scenario, **keywords: Any) -> list[Cell]:
    """Its cells, none of which may be skipped."""
    planned = expand(scenario, **{"env": {}, **keywords})
    assert [cell for cell in planned if isinstance(cell, Skip)] == []
    return [cell for cell in planned if isinstance(cell, Cell)]


def test_every_model_engine_level_and_variant_is_a_cell() -> None:
    """The product, in the order of the file, with identifiers that sort and tell."""
    engines = [
        {"engine": "simulated", "quantization": ["q8_0", "q4_0"], "variants": {"a": {"ttft_ms": 1}, "b": {}}},
        {"engine": "simulated"},
    ]
    found = [cell.id for cell in cells_of(scenario_of(model=["org/Big-1", "tiny"], engines=engines))]
    assert found == [
        "000-Big-1-simulated-q8_0-a",
        "001-Big-1-simulated-q8_0-b",
        "002-Big-1-simulated-q4_0-a",
        "003-Big-1-simulated-q4_0-b",
        "004-Big-1-simulated",
        "005-tiny-simulated-q8_0-a",
        "006-tiny-simulated-q8_0-b",
        "007-tiny-simulated-q4_0-a",
        "008-tiny-simulated-q4_0-b",
        "009-tiny-simulated",
    ]


def test_repetitions_are_interleaved_by_default() -> None:
    """The whole matrix again and again, each second time backwards, or cell by cell."""
    engines = [{"engine": "simulated", "quantization": ["q8_0", "q4_0"]}]
    interleaved = cells_of(scenario_of(engines=engines, repetitions=2))
    assert [(cell.level, cell.repetition) for cell in interleaved] == [
        ("q8_0", 1),
        ("q4_0", 1),
        ("q4_0", 2),
        ("q8_0", 2),
    ]
    blocks = cells_of(scenario_of(engines=engines, repetitions=2, order="blocks"))
    assert [cell.id for cell in blocks] == [
        "000-simulated-q8_0-r1", "001-simulated-q8_0-r2", "002-simulated-q4_0-r1", "003-simulated-q4_0-r2"
    ]  # fmt: skip


def test_options_of_a_variant_win() -> None:
    """A variant's options are merged over the engine's."""
    engines = [{"engine": "simulated", "options": {"a": 1, "b": 2}, "variants": {"v": {"b": 3, "c": None}}}]
    (cell,) = cells_of(scenario_of(engines=engines))
    assert cell.spec.options == {"a": 1, "b": 3, "c": None}


def test_http_keys_become_options_and_secrets_stay_apart() -> None:
    """Values come from the environment by name; a variant may replace the address by a command."""
    block = {
        "engine": "http", "url": "http://192.0.2.1:8000", "dialect": "openai-chat",
        "ready": {"path": "/up", "timeout": "5s"}, "api_key_env": "KEY", "headers_env": {"X-T": "TENANT"},
        "variants": {"there": {}, "here": {"command": "x {port}"}},
    }  # fmt: skip
    there, here = cells_of(scenario_of(engines=[block]), env={"KEY": "k", "TENANT": "t"})
    assert there.spec.options == {
        "url": "http://192.0.2.1:8000", "dialect": "openai-chat", "ready": {"path": "/up", "timeout_s": 5.0}
    }  # fmt: skip
    assert (there.spec.api_key, there.spec.headers) == ("k", {"X-T": "t"})
    assert "url" not in here.spec.options
    assert (there.scope, here.scope) == ("client", "server")
    assert "'k'" not in repr(there)
    assert "'t'" not in repr(there)


def test_a_level_may_have_a_checkpoint_of_its_own() -> None:
    """The cell keeps the name of the model, the engine gets the checkpoint."""
    engines = [{"engine": "simulated", "quantization": [{"level": "q4_0", "model": "org/q4"}]}]
    (cell,) = cells_of(scenario_of(model="org/big", engines=engines))
    assert cell.model == "org/big"
    assert cell.spec.model == ModelReference("org/q4")


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (
            {"engine": "simulated", "quantization": ["q4_00"]},
            "simulated has no level `q4_00`; did you mean `q4_0`?",
        ),
        (
            {"engine": "http", "url": "http://127.0.0.1:1", "quantization": ["q4"]},
            "engine `http` cannot set the quantization level of an external server; "
            "remove `quantization`, or give each level its own `model`",
        ),
    ],
)
def test_what_cannot_run_is_a_row_with_its_reason(block: dict[str, Any], reason: str) -> None:
    """The skipped cell keeps its number and name, and the others run."""
    skip, cell = expand(scenario_of(engines=[block, {"engine": "simulated"}]), env={})
    assert isinstance(skip, Skip)
    assert skip.reason == reason
    assert (skip.index, cell.index) == (0, 1)
    assert isinstance(cell, Cell)


def test_a_key_that_is_missing_stops_everything() -> None:
    """A missing key of a selected engine stops the whole run."""
    blocks = [{"engine": "http", "url": "http://127.0.0.1:1", "api_key_env": "MISSING"}, {"engine": "simulated"}]
    planned = expand(scenario_of(engines=blocks), env={})
    assert isinstance(planned[0], Skip)
    assert planned[0].variable == "MISSING"
    with pytest.raises(UsageError, match="variable MISSING, which the scenario names, is not set; set it, or remove"):
        check_runnable(planned)
    check_runnable(expand(scenario_of(engines=blocks), env={}, only={"engine": "simulated"}))
    check_runnable(expand(scenario_of(engines=blocks), env={"MISSING": "x"}))


@pytest.mark.parametrize("keys", [{"api_key_env": "KEY"}, {"headers_env": {"X-Tenant": "KEY"}}])
@pytest.mark.parametrize("value", ["", "  ", "\n"])
def test_an_empty_key_stops_everything_like_a_missing_one(keys: dict[str, Any], value: str) -> None:
    """A request without its key would be refused, or measured as that of nobody."""
    planned = expand(scenario_of(engines=[{"engine": "http", "url": "http://127.0.0.1:1", **keys}]), env={"KEY": value})
    assert isinstance(planned[0], Skip)
    assert planned[0].variable == "KEY"
    with pytest.raises(UsageError, match="variable KEY, which the scenario names, is empty; set it, or remove"):
        check_runnable(planned)


def test_a_library_that_is_missing_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that cannot be imported is skipped."""
    scenario = scenario_of()
    monkeypatch.setitem(__import__("engines").BUILT_IN, "simulated", "no_such_library_here:Engine")
    (skip,) = expand(scenario)
    assert isinstance(skip, Skip)
    assert "needs a library that cannot be imported" in skip.reason


def test_plans_are_the_same_for_every_engine_level_and_variant() -> None:
    """Seeds depend on the scenario's seed, the load and the repetition alone."""
    engines = [{"engine": "simulated", "quantization": ["q8_0", "q4_0"], "variants": {"a": {}, "b": {}}}]
    load = [*LOAD, {"kind": "sustained", "rate": 1, "requests": 5}]
    cells = cells_of(scenario_of(engines=engines, load=load, repetitions=2, seed=7))
    for cell in cells:
        assert [plan.seed for plan in cell.trials] == [trial_seed(7, index, cell.repetition) for index in (0, 1)]
    assert len({plan.seed for cell in cells for plan in cell.trials}) == 4
    assert all(0 <= plan.seed < 2**63 for cell in cells for plan in cell.trials)


def test_trials_have_names_that_tell_them_apart() -> None:
    """Own names, kinds, and the value that differs."""
    load = [
        {"kind": "single_user", "requests": 1},
        {"kind": "sustained", "rate": 0.5, "requests": 1},
        {"kind": "sustained", "rate": 0.5, "requests": 1, "arrivals": "gamma", "cv": 2},
        {"kind": "sustained", "users": 8, "requests": 1},
        {"kind": "sustained", "users": 8, "requests": 2},
        {"kind": "burst", "name": "Big/spike", "spike": {"requests": 3, "within": "0s"}},
    ]
    (cell,) = cells_of(scenario_of(load=load))
    assert [plan.id for plan in cell.trials] == [
        "000-single_user", "001-sustained-rate-0.5", "002-sustained-rate-0.5-cv-2", "003-sustained-users-8",
        "004-sustained-users-8-2", "005-Big-spike",
    ]  # fmt: skip


def test_limits_and_slos_are_those_of_the_trial() -> None:
    """The most specific wins: class over load over scenario; classes are for mixed loads only."""
    scenario = scenario_of(
        workload={"prompt_tokens": 10, "output_tokens": 20},
        classes={"chat": {"workload": {"output_tokens": 5}, "slo": {"ttft": "100ms"}}},
        load=[
            {"kind": "mixed", "rate": 1, "requests": 5, "slo": {"tpot": "10ms"}, "limits": ["error_rate <= 0.5"]},
            *LOAD,
        ],
        slo={"ttft": "500ms", "tpot": "50ms"},
        limits=["error_rate <= 0.01", "load_s <= 30"],
    )
    mixed, single = cells_of(scenario)[0].trials
    chat = mixed.classes["chat"]
    assert chat.workload is not None
    assert chat.slo is not None
    assert (chat.workload.prompt_tokens.quantile(0.5), chat.workload.output_tokens.quantile(0.5)) == (10, 5)
    assert (chat.slo.ttft_ms, chat.slo.tpot_ms) == (100.0, 10.0)
    assert (mixed.slo.ttft_ms, mixed.slo.tpot_ms) == (500.0, 10.0)
    assert mixed.limits == ("load_s <= 30", "error_rate <= 0.5")
    assert (single.classes, single.limits) == ({}, ("error_rate <= 0.01", "load_s <= 30"))


def test_an_engine_may_have_loads_of_its_own() -> None:
    """They replace the scenario's for this engine."""
    own = [{"kind": "sustained", "users": 32, "requests": 100}]
    first, second = cells_of(scenario_of(engines=[{"engine": "simulated", "load": own}, {"engine": "simulated"}]))
    assert [plan.name for plan in first.trials] == ["sustained"]
    assert [plan.name for plan in second.trials] == ["single_user"]


def test_some_cells_can_be_chosen() -> None:
    """Numbers stay those of the whole matrix; a pattern without a match is reported."""
    scenario = scenario_of(engines=[{"engine": "simulated", "quantization": ["q8_0", "q4_0", "q4_k_m"]}])
    assert [cell.index for cell in expand(scenario, only={"quantization": "q4_*", "engine": "simulated"})] == [1, 2]
    several = {"quantization": "q4_0|q8_*", "engine": "vllm|simulated"}
    assert [cell.index for cell in expand(scenario, only=several)] == [0, 1]
    with pytest.raises(
        UsageError, match=r"no configuration matches quantization=f16; known are 000-simulated-q8_0, 001"
    ):
        expand(scenario, only={"quantization": "f16"})
    with pytest.raises(
        UsageError, match=r"configurations cannot be selected by `quantisation`; did you mean `quantization`\?"
    ):
        expand(scenario, only={"quantisation": "f16"})


def test_the_identity_changes_with_what_is_measured_and_with_nothing_else() -> None:
    """Names, limits and slos decide nothing about the measurement; options, load, seed, repetition and weights do."""
    (cell,) = cells_of(scenario_of(model="tiny"))
    plan = cell.trials[0]
    same = identity(cell, plan)
    assert len(same) == 64
    relabelled = replace(plan, name="other", limits=("error_rate <= 0",), id="x", index=5)
    assert identity(replace(cell, index=9, id="y"), relabelled) == same
    others = [
        identity(cell, plan, "hash of the weights"),
        identity(replace(cell, repetition=2), plan),
        identity(replace(cell, level="q4_0"), plan),
        identity(replace(cell, spec=replace(cell.spec, options={"a": 1})), plan),
        identity(cell, replace(plan, seed=plan.seed + 1)),
        identity(cell, replace(plan, load=plan.load.model_copy(update={"requests": 4}))),
        identity(cell, replace(plan, workload=plan.workload.model_copy(update={"stream": False}))),
    ]
    assert len({same, *others}) == len(others) + 1


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8", True),
        ("http://localhost", True),
        ("http://[::1]:8", True),
        ("http://10.0.0.1", False),
        ("https://x.example", False),
    ],
)
def test_this_machine_is_known_by_its_address(url: str, here: bool) -> None:
    """Loopback addresses and names are this machine."""
    assert is_loopback(url) is here


def test_only_what_runs_here_needs_the_machine() -> None:
    """The simulated engine and servers elsewhere do not disturb another run."""
    assert not needs_the_machine(expand(scenario_of()))
    assert not needs_the_machine(expand(scenario_of(engines=[{"engine": "http", "url": "http://192.0.2.1"}])))
    assert needs_the_machine(expand(scenario_of(engines=[{"engine": "http", "url": "http://127.0.0.1:1"}])))
    assert needs_the_machine(expand(scenario_of(model="tiny", engines=[{"engine": "llama-server"}])))


def test_slugs_are_names_of_folders(tmp_path: Path) -> None:
    """Any name gives a valid folder inside another one."""
    for text in ("a/b", "..", "y z", "q4_k_m"):
        (tmp_path / slug(text)).mkdir()
    assert slug("Llama 3.1/8B") == "Llama-3.1-8B"


def test_lengths_of_a_load_replace_those_of_the_workload() -> None:
    """One trial for each combination of their values; the rest of the workload stays."""
    load = [
        {"kind": "single_user", "requests": 3},
        {"kind": "sustained", "users": 2, "requests": 3, "prompt_tokens": 512, "output_tokens": 16},
    ]
    workload = {
        "prompt_tokens": 64,
        "output_tokens": {"dist": "fixed", "value": 8, "exact": True},
        "prefix": {"tokens": 32},
    }
    (cell,) = cells_of(scenario_of(load=load, workload=workload))
    own, changed = (plan.workload for plan in cell.trials)
    assert (own.prompt_tokens.expected_tokens, own.output_tokens.expected_tokens) == (64, 8)
    assert (changed.prompt_tokens.expected_tokens, changed.output_tokens.expected_tokens) == (512, 16)
    assert changed.prefix == own.prefix
    assert identity(cell, cell.trials[1]) != identity(cell, replace(cell.trials[1], workload=own))


@pytest.mark.parametrize(
    ("output_tokens", "exact"),
    [(16, True), ({"dist": "fixed", "value": 16}, True), ({"dist": "fixed", "value": 16, "exact": False}, False)],
)
def test_a_length_of_a_load_is_as_exact_as_the_workload_unless_it_says_otherwise(
    output_tokens: object, exact: bool
) -> None:
    """A sweep of lengths in numbers need not repeat it."""
    load = [{"kind": "single_user", "requests": 3, "output_tokens": output_tokens}]
    workload = {"output_tokens": {"dist": "fixed", "value": 8, "exact": True}}
    (cell,) = cells_of(scenario_of(load=load, workload=workload))
    assert cell.trials[0].workload.output_tokens.exact is exact


def test_loads_of_several_lengths_are_named_after_them() -> None:
    """As after their rates and users."""
    lengths: list[dict[str, Any]] = [{}, {"prompt_tokens": 512}, {"prompt_tokens": 16384, "output_tokens": 7}]
    load = [{"kind": "sustained", "users": 2, "requests": 3, **one} for one in lengths]
    (cell,) = cells_of(scenario_of(load=load))
    assert [plan.name for plan in cell.trials] == [
        "sustained-users-2",
        "sustained-users-2-prompt-512",
        "sustained-users-2-prompt-16384-output-7",
    ]


def test_another_process_sees_the_lengths_as_they_were_given() -> None:
    """The process of a cell reads the scenario with its defaults; what it measures is what the run stored."""
    load = [
        {"kind": "sustained", "users": 2, "requests": 3, "prompt_tokens": 8, "output_tokens": tokens}
        for tokens in (16, 32)
    ]
    scenario = scenario_of(load=load, workload={"output_tokens": {"dist": "fixed", "value": 8, "exact": True}})
    (cell,), (again,) = cells_of(scenario), cells_of(as_checked(scenario.resolved()))
    assert [plan.workload for plan in again.trials] == [plan.workload for plan in cell.trials]
    assert [identity(again, plan) for plan in again.trials] == [identity(cell, plan) for plan in cell.trials]
    assert cell.trials[0].workload.output_tokens.exact


def test_an_engines_own_loads_have_lengths_too() -> None:
    """As those of the scenario."""
    load = [{"kind": "single_user", "requests": 3, "prompt_tokens": 512}]
    (cell,) = cells_of(scenario_of(engines=[{"engine": "simulated", "load": load}]))
    assert cell.trials[0].workload.prompt_tokens.expected_tokens == 512


def test_a_level_with_a_checkpoint_of_its_own_keeps_the_models_revision() -> None:
    """A reference at full precision is that of the scenario's model, not of its newest version."""
    engines = [{"engine": "simulated", "quantization": [{"level": "q4_0", "model": "org/other"}]}]
    (cell,) = cells_of(scenario_of(model=[{"name": "org/model", "revision": "v2"}], engines=engines))
    assert cell.spec.model == ModelReference("org/other")
    assert cell.own_model == ModelReference("org/model", "v2")
