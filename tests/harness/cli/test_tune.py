"""The plan of `harness tune` from its options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli.tune import Asked, stored, tuning_of
from harness.errors import UsageError


def asked(folder: Path, **changes: Any) -> Asked:
    """Options of a command for a scenario in a folder."""
    file = folder / "s.yaml"
    blocks = [{"engine": "simulated", "env": {"A": "1"}}]
    file.write_text(json.dumps({"engines": blocks, "load": [{"kind": "single_user", "requests": 5}]}))
    usual: dict[str, Any] = {"over": ["options.max_batch=1,2"], "number": None, "margin": None, "budget": None}
    usual |= {"starts": "2..6", "pairs": "4..8", "load": None, "sets": [], "only": None}
    return Asked(scenario=str(file), **{**usual, **changes})


def test_secrets_are_not_stored(tmp_path: Path) -> None:
    """So the same command goes on with the tuning, and `--resume` says so."""
    sets = ["engines.0.env.HF_TOKEN=abc-123", "engines.0.env={HF_TOKEN: abc-123, A: b}", "seed=4"]
    plan = tuning_of(asked(tmp_path, sets=sets)).plan
    plan.save(tmp_path / "out")
    assert "abc-123" not in (tmp_path / "out" / "tune.json").read_text()
    assert plan.command["sets"] == ["engines.0.env.HF_TOKEN=***", "engines.0.env=***", "seed=4"]
    with pytest.raises(UsageError, match="has not stored its secrets; repeat the command"):
        stored(str(tmp_path / "out"))


def test_a_stored_command_is_the_one_that_was_typed(tmp_path: Path) -> None:
    """All options that decide what is tuned."""
    typed = asked(tmp_path, number="tpot p50", margin="5%", budget="1h", sets=["seed=4"])
    tuning_of(typed).plan.save(tmp_path / "out")
    assert stored(str(tmp_path / "out")) == (typed, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({}, "ttft p50 +5%"),
        ({"sets": ["workload.stream=false"]}, "e2e p50 +5%"),
        ({"number": "output_tokens_per_s"}, "output_tokens_per_s -3%"),
        ({"number": "ttft p95", "margin": "12%"}, "ttft p95 +12%"),
    ],
)
def test_the_number_is_that_of_the_load_unless_another_is_named(
    tmp_path: Path, changes: dict[str, Any], number: str
) -> None:
    """With the margin of a comparison, unless another is named."""
    assert tuning_of(asked(tmp_path, **changes)).plan.number == number
