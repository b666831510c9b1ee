"""Candidates of a scenario: their `--set`s, and which of them are the defaults themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.scenario.model import Scenario
from harness.scenario.reader import load
from harness.tuning.axes import parse_axes
from harness.tuning.candidates import Candidate, candidates, one_start, restored, target_of

LOAD = [{"kind": "single_user", "requests": 5}]
SERVED = {"engine": "http", "command": "serve --port {port} --parallel 1"}


def tried(folder: Path, over: Sequence[str], only: dict[str, str] | None = None, **keys: Any) -> list[Candidate]:
    """The candidates of a scenario."""
    file = folder / "s.yaml"
    file.write_text(json.dumps({"engines": [{"engine": "simulated"}], "load": LOAD, **keys}))

    def read(more: Sequence[str]) -> Scenario:
        return one_start(load(file, sets=more), None)

    return candidates(target_of(read(()), only or {}), parse_axes(over), read)


def engine(candidate: Candidate, place: int = 0) -> Any:
    """The engine block of a candidate."""
    assert candidate.scenario is not None
    return candidate.scenario.engines[place]


def test_options_and_variables_are_set_in_the_block(tmp_path: Path) -> None:
    """With every combination, after the defaults."""
    found = tried(tmp_path, ["options.max_batch=1,2", "env.A=x,y"])
    assert [one.name for one in found] == [
        "defaults", "max_batch=1, A=x", "max_batch=1, A=y", "max_batch=2, A=x", "max_batch=2, A=y",
    ]  # fmt: skip
    assert (engine(found[4]).options, engine(found[4]).env) == ({"max_batch": 2}, {"A": "y"})
    assert found[4].folder == "04-max_batch-2-A-y"


def test_what_the_scenario_says_already_is_the_defaults(tmp_path: Path) -> None:
    """It is not measured twice."""
    found = tried(tmp_path, ["options.max_batch=1,2"], engines=[{"engine": "simulated", "options": {"max_batch": 2}}])
    assert [one.name for one in found] == ["defaults", "max_batch=1"]


def test_a_flag_is_set_in_the_command_that_starts_the_server(tmp_path: Path) -> None:
    """Several flags, one after the other."""
    found = tried(tmp_path, ["--parallel=1,4", "--threads=2,3"], engines=[SERVED])
    assert engine(found[4]).command == "serve --port {port} --parallel 4 --threads 3"
    assert found[4].name == "--parallel 4, --threads 3"


def test_a_variant_is_tuned_where_it_is_written(tmp_path: Path) -> None:
    """Its options stand in it, and its command, if it has one."""
    variants = {"a": {"max_batch": 3}, "b": {}}
    blocks = [{"engine": "simulated", "variants": variants}]
    found = tried(tmp_path, ["options.max_batch=1,2"], {"variant": "a"}, engines=blocks)
    assert engine(found[1]).variants["a"].merged_options() == {"max_batch": 1}
    both = [{**SERVED, "variants": {"a": {"command": "other --port {port}"}, "b": {}}}]
    found = tried(tmp_path, ["-np=1,2"], {"variant": "a"}, engines=both)
    assert engine(found[1]).variants["a"].command == "other --port {port} -np 1"
    found = tried(tmp_path, ["-np=1,2"], {"variant": "b"}, engines=both)
    assert engine(found[1]).command == "serve --port {port} --parallel 1 -np 1"


def test_a_combination_that_is_wrong_is_kept_with_its_cause(tmp_path: Path) -> None:
    """A value that is wrong by itself is refused."""
    blocks = [{"engine": "llama-server"}]
    over = ["options.cache_type_v=f16,q4_0", "options.flash_attn=true,false"]
    found = tried(tmp_path, over, engines=blocks, model="tiny")
    wrong = {one.name: one.why_not for one in found if one.scenario is None}
    assert [*wrong] == ["cache_type_v=q4_0, flash_attn=false"]
    assert "flash_attn" in wrong["cache_type_v=q4_0, flash_attn=false"]
    with pytest.raises(UsageError) as caught:
        tried(tmp_path, ["options.cache_type_v=f16,q9"], engines=blocks, model="tiny")
    assert str(caught.value).startswith("--over options.cache_type_v=q9: ")


@pytest.mark.parametrize(
    ("block", "over", "sentence"),
    [
        ({"engine": "simulated"}, "--parallel=1,2", "engine `simulated` has no command here; write options."),
        ({"engine": "http", "url": "http://127.0.0.1:1"}, "--parallel=1,2", "name its `command` in the scenario"),
        ({"engine": "http", "url": "http://127.0.0.1:1"}, "env.A=1,2", "the server runs already"),
        (SERVED, "options.n_parallel=1,2", "a server by command has flags, not options; write --over --parallel=1,2"),
    ],
)
def test_an_axis_that_the_engine_has_no_use_for_is_refused(
    tmp_path: Path, block: dict[str, Any], over: str, sentence: str
) -> None:
    """In a sentence, with what to write."""
    with pytest.raises(UsageError) as caught:
        tried(tmp_path, [over], engines=[block])
    assert sentence in str(caught.value)


def test_stored_candidates_are_restored(tmp_path: Path) -> None:
    """All that a report needs of them."""
    found = tried(tmp_path, ["options.max_batch=1,2"])
    again = restored(json.loads(json.dumps([one.stored() for one in found])), tmp_path)
    assert [(one.name, one.folder) for one in again] == [(one.name, one.folder) for one in found]
    assert [one.stored() for one in again] == [one.stored() for one in found]
