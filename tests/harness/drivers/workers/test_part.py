"""Specification of a share of a trial."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from pydantic import TypeAdapter

from engines.base import Endpoint
from harness.drivers.base import DriveSettings
from harness.drivers.workers.part import PartSpec, rebuild
from harness.errors import TrialFailed
from harness.scenario.model import Scenario
from harness.schedule.requests import build

SCENARIO = {
    "engines": [{"engine": "http", "url": "http://127.0.0.1:1", "served_model": "m"}],
    "workload": {"prompt_tokens": 8, "output_tokens": 4},
    "load": [{"kind": "sustained", "rate": 10, "requests": 20}],
}
TO = Endpoint("http://127.0.0.1:1", "openai-chat", "m", {"Authorization": "Bearer sk-secret"})


def part(plan_hash: str) -> PartSpec:
    """The first trial of the scenario."""
    resolved = Scenario.model_validate(SCENARIO).resolved()
    return PartSpec(resolved, 0, 0, plan_hash, DriveSettings(timeout_ns=5), TO)


def test_a_part_travels_as_json_without_header_values() -> None:
    """The round trip changes nothing, and the text contains no secret."""
    spec = part("0")
    text = json.dumps(asdict(spec))
    there = TypeAdapter(PartSpec).validate_json(text)
    assert json.loads(json.dumps(asdict(there))) == json.loads(text)
    assert "sk-secret" not in text
    assert there.endpoint(TO.headers) == replace(TO, others=[])
    assert there.settings == DriveSettings(timeout_ns=5)


def test_another_plan_than_was_meant_is_refused() -> None:
    """The right hash gives the plan, another one a sentence."""
    with pytest.raises(TrialFailed, match="differs from the plan to send") as refused:
        rebuild(part("0" * 64))
    found = str(refused.value).partition("(")[2].partition(")")[0]
    cell_hash = rebuild_hash()
    assert cell_hash.startswith(found)
    assert rebuild(replace(part("0"), plan_hash=cell_hash)).plan_hash == cell_hash


def test_the_plan_made_elsewhere_has_the_cells_salt() -> None:
    """A salt changes what is asked, not the plan: hash and lengths are the same, every prompt is another."""
    plain, salted = (rebuild(replace(part(rebuild_hash()), salt=salt)) for salt in (0, 77))
    assert plain.plan_hash == salted.plan_hash
    assert [plain.row(i) for i in range(20)] == [salted.row(i) for i in range(20)]
    assert not {plain.request(i).prompt for i in range(20)} & {salted.request(i).prompt for i in range(20)}


def rebuild_hash() -> str:
    """The hash of the scenario's plan."""
    from harness.drivers.workers.part import cell_of

    plan = cell_of(part("0")).trials[0]
    return build(plan.load, plan.workload, plan.seed).plan_hash


def test_a_model_that_is_not_here_is_a_sentence() -> None:
    """A missing model of the tokenizer is reported: another machine may lack it."""
    scenario = {**SCENARIO, "engines": [{"engine": "simulated"}], "model": "/nowhere/model.gguf"}
    resolved = Scenario.model_validate(scenario).resolved()
    with pytest.raises(TrialFailed, match=r"no file or folder '/nowhere/model.gguf'"):
        rebuild(replace(part("0"), scenario=resolved))
