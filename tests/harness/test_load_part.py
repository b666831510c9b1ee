"""What a process needs to send a share of a load: the same plan anew, the headers of its own environment, lost rows."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from command import scenario

from engines.base import Endpoint
from harness.drivers.base import DriveSettings
from harness.errors import TrialFailed
from harness.load_part import PartSpec, lost_rows, rebuild
from harness.matrix import Cell, expand
from harness.records import Status
from harness.scenario import load
from harness.workload import Schedule, Shard, build

OPEN = {"kind": "sustained", "rate": 20, "arrivals": "constant", "warmup": "1s", "requests": 60}


def part_of(folder: Path, **keys: Any) -> tuple[PartSpec, Schedule]:
    """A trial of a scenario as others are told of it, and its plan."""
    wanted = load(scenario(folder, load=[OPEN], **keys))
    (cell,) = expand(wanted, env={"KEY": "sk-secret", "TENANT": "blue"})
    assert isinstance(cell, Cell)
    plan = cell.trials[0]
    schedule = build(plan.load, plan.workload, plan.seed)
    to = Endpoint("http://127.0.0.1:1", "openai-completions", "m", {"Authorization": "Bearer sk-secret"})
    return PartSpec.of(wanted.resolved(), cell.index, 0, schedule.plan_hash, DriveSettings(10**9), to), schedule


def http_engine() -> list[dict[str, Any]]:
    """A served engine with a key and a header, both named, and one that is no secret."""
    engine = {
        "engine": "http",
        "url": "http://127.0.0.1:1",
        "api_key_env": "KEY",
        "headers_env": {"X-Tenant": "TENANT"},
    }
    return [engine]


def test_the_plan_is_the_same_anywhere(tmp_path: Path) -> None:
    """What is rebuilt from the specification has the hash of the original, and carries no header's value."""
    part, schedule = part_of(tmp_path, engines=http_engine())
    assert rebuild(part, {"KEY": "other", "TENANT": "red"}).plan_hash == schedule.plan_hash
    assert "sk-secret" not in str(asdict(part))
    assert part.endpoint({"a": "b"}).headers == {"a": "b"}
    assert part.drive_settings() == DriveSettings(10**9)


def test_another_plan_is_refused(tmp_path: Path) -> None:
    """A process that would send something else says so before it sends anything."""
    part, _ = part_of(tmp_path)
    with pytest.raises(TrialFailed, match="is not the one to be sent"):
        rebuild(replace(part, plan_hash="0" * 64))


def test_headers_come_from_the_own_environment(tmp_path: Path) -> None:
    """Values are looked up where they are used; a missing one is named."""
    part, _ = part_of(tmp_path, engines=http_engine())
    headers = part.own_headers({"KEY": "k", "TENANT": "red"})
    assert headers == {"Authorization": "Bearer k", "X-Tenant": "red"}
    with pytest.raises(TrialFailed, match="environment variable TENANT"):
        part.own_headers({"KEY": "k"})


def test_every_row_of_a_lost_share_is_accounted_for(tmp_path: Path) -> None:
    """Known rows stay, those due by the death are unfinished, later ones were not sent; together they are the share."""
    _, schedule = part_of(tmp_path)
    t0_ns, second = 10**12, 10**9
    shard = Shard(1, 2)
    seen = [request for request in range(1, 40, 2) if request < 20]
    lost = list(lost_rows(schedule, shard, seen, t0_ns, t0_ns + 2 * second))
    assert sorted([*seen, *(record.request for record in lost)]) == list(range(1, schedule.count or 0, 2))
    for record in lost:
        assert record.worker == 1
        assert record.error == "its load worker died"
        assert record.due_ns is not None
        assert record.status == (Status.UNFINISHED if record.due_ns <= 2 * second else Status.NOT_SENT)
