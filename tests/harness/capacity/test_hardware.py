"""The machine under test: its GPUs and its price, where they are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.capacity.hardware import machine_under_test
from harness.capacity.prices import read_catalogue
from harness.store.manifest import Manifest

OWN = """
instances:
  box: {date: 2026-11-30, source: our contract, gpus: 8, on_demand: {usd_per_hour: 2}}
  leased: {date: 2026-11-30, source: our contract, gpus: 2, reserved: {usd_per_hour: 1}}
"""


def found(file: Path | None = None, url: str | None = None, **scenario: Any) -> tuple[int, dict[str, Any] | None]:
    """What is known of a machine with two GPUs."""
    cell = {"engine_info": {"options": {"url": url}}} if url else {}
    run = {"scenario": scenario, "provenance": {"must_match": {"gpus": ["H100", "H100"]}}, "cells": [cell]}
    return machine_under_test(Manifest.model_validate(run), read_catalogue(file))


def test_a_machine_without_a_name_has_the_gpus_of_this_one() -> None:
    """And no price; a server behind an address may be on another machine."""
    assert found() == (2, None)
    assert found(url="http://10.0.0.1:8000") == (0, None)


def test_a_named_machine_has_its_price_with_the_date(tmp_path: Path) -> None:
    """From the shipped prices, or from the user's own; one without a price on demand has none."""
    gpus, price = found(instance="g5.xlarge", url="http://10.0.0.1:8000")
    assert gpus == 1
    assert price is not None
    assert (price["usd_per_hour"], price["pricing"], price["price_date"]) == (1.006, "on_demand", "2026-11")
    file = tmp_path / "prices.yaml"
    file.write_text(OWN)
    assert found(file, instance="box")[0] == 8
    assert found(file, instance="leased") == (2, None)


def test_a_machine_that_the_prices_lack_is_unknown() -> None:
    """A report is no place to fail for it: plans and comparisons do."""
    assert found(instance="my-box") == (2, None)
