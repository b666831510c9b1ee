"""The machine under test: its number of GPUs, where it is known."""

from __future__ import annotations

from typing import Any

from harness.capacity.hardware import gpus_under_test
from harness.store.manifest import Manifest


def found(url: str | None = None, **scenario: Any) -> int:
    """The GPUs of the machine under test, of a run on a machine with two."""
    cell = {"engine_info": {"options": {"url": url}}} if url else {}
    run = {"scenario": scenario, "provenance": {"must_match": {"gpus": ["H100", "H100"]}}, "cells": [cell]}
    return gpus_under_test(Manifest.model_validate(run))


def test_a_machine_without_a_name_has_the_gpus_of_this_one() -> None:
    """A server behind an address may be on another machine."""
    assert found() == 2
    assert found(url="http://10.0.0.1:8000") == 0


def test_a_named_machine_has_the_gpus_of_the_catalogue() -> None:
    """One that the shipped prices lack is unknown: a report is no place to fail for it."""
    assert found(instance="g5.xlarge", url="http://10.0.0.1:8000") == 1
    assert found(instance="my-box", url="http://10.0.0.1:8000") == 0
