"""What a process is told that sends a share of a trial's load, and what is written where one died."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import Endpoint
from harness.drivers.base import DriveSettings
from harness.errors import TrialFailed
from harness.load_part import PartSpec, lost_rows, rebuild
from harness.records import Status
from harness.scenario import Scenario
from harness.workload import Shard, build
from tests.plans import load_of, workload_of

SCENARIO = {
    "engines": [{"engine": "http", "url": "http://127.0.0.1:1", "served_model": "m"}],
    "workload": {"prompt_tokens": 8, "output_tokens": 4},
    "load": [{"kind": "sustained", "rate": 10, "requests": 20}],
}
TO = Endpoint("http://127.0.0.1:1", "openai-chat", "m", {"Authorization": "Bearer sk-secret"})
MS = 1_000_000


def part(plan_hash: str) -> PartSpec:
    """The first trial of the scenario."""
    resolved = Scenario.model_validate(SCENARIO).resolved()
    return PartSpec.of(resolved, 0, 0, plan_hash, DriveSettings(timeout_ns=5), TO)


def test_a_part_travels_as_json_without_header_values() -> None:
    """It comes back as it was, and holds no secret."""
    spec = part("0")
    text = json.dumps(asdict(spec))
    there = PartSpec(**json.loads(text))
    assert json.loads(json.dumps(asdict(there))) == json.loads(text)
    assert "sk-secret" not in text
    assert there.endpoint(TO.headers) == replace(TO, others=[])
    assert there.drive_settings() == DriveSettings(timeout_ns=5)


def test_another_plan_than_was_meant_is_refused() -> None:
    """The right hash gives the plan, another one a sentence."""
    with pytest.raises(TrialFailed, match="is not the one to be sent") as refused:
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
    from harness.load_part import cell_of

    plan = cell_of(part("0")).trials[0]
    return build(plan.load, plan.workload, plan.seed).plan_hash


@pytest.mark.slow
@given(st.integers(1, 5), st.sets(st.integers(0, 39)), st.integers(0, 5000))
def test_every_row_of_a_dead_share_is_told_once(of: int, seen: set[int], died_ms: int) -> None:
    """Its own rows without a record: `unfinished` if due by its death, and ended by it; `not_sent` if later; nobody
    else's.
    """
    schedule = build(load_of(kind="sustained", rate=10, requests=40, arrivals="constant"), workload_of(), 1)
    shard, t0_ns = Shard(of - 1, of), 7_000_000_000
    lost = list(lost_rows(schedule, shard, seen, t0_ns, t0_ns + died_ms * MS))
    assert [record.request for record in lost] == [i for i in range(of - 1, 40, of) if i not in seen]
    for record in lost:
        assert record.due_ns is not None
        due_by_then = record.due_ns <= died_ms * MS
        assert record.status == (Status.UNFINISHED if due_by_then else Status.NOT_SENT)
        assert record.done_ns == (died_ms * MS if due_by_then else None)
        assert record.worker == shard.index
        assert record.error == "its load worker died"


def test_a_model_that_is_not_here_is_a_sentence() -> None:
    """Who cannot find the model by whose tokenizer prompts are made says so: on another machine it may be missing."""
    scenario = {**SCENARIO, "engines": [{"engine": "simulated"}], "model": "/nowhere/model.gguf"}
    resolved = Scenario.model_validate(scenario).resolved()
    with pytest.raises(TrialFailed, match=r"cannot be made here: there is no file or folder '/nowhere/model.gguf'"):
        rebuild(replace(part("0"), scenario=resolved))
