"""Fabricated candidates and runs for plans: a replica on a machine, with rates that hold, fail, or are not sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.capacity.cost import Tokens
from harness.capacity.demand import Demand, of_rate
from harness.capacity.measured import Candidate, Point
from harness.capacity.plan import Terms
from harness.capacity.requirements import Requirement
from harness.prices.catalogue import read_catalogue
from harness.scenario.plan import Assumptions
from harness.store.manifest import CellEntry, Manifest
from harness.store.run import RunWriter, record_writer
from tests.fabricated import cell_entry, streamed, trial_entry

HOLDS, UNSURE, FAILS = (300.0, 280.0, 320.0), (490.0, 450.0, 540.0), (900.0, 800.0, 1000.0)
"""TTFT p95 with its interval, of a limit of 500 ms."""


def point(
    rate_rps: float, ttft_ms: tuple[float, float, float] = HOLDS, bound_ms: float = 500.0, **changes: Any
) -> Point:
    """A tested rate with a limit on TTFT p95."""
    limit = Requirement("ttft_ms p95 <= 500", "ttft_ms", "p95", "<=", bound_ms, *ttft_ms, unit="ms")
    numbers = {
        "ttft_p95_ms": ttft_ms[0],
        "e2e_p95_ms": 2000.0,
        "output_tokens_per_s": 64 * rate_rps,
        "attainment": 0.99,
    }
    kept = {"tokens": Tokens(128.0, 64.0), "in_flight": 4.0, "numbers": numbers, "requirements": (limit,)}
    return Point(f"rate-{rate_rps:g}", rate_rps, **(kept | changes))


def candidate(
    points: Sequence[Point] = (), *, level: str = "f16", instance: str = "g5.xlarge", **changes: Any
) -> Candidate:
    """A configuration that holds 5.5 requests/s and fails at 7."""
    found = tuple(points) or (point(4.0), point(5.5), point(7.0, FAILS))
    made = Manifest.model_validate({"command": "harness run chat.yaml"})
    kept: dict[str, Any] = {"start_s": 60.0, "asks": {"slo": {}, "limits": ["ttft_ms p95 <= 500"]}}
    return Candidate(("m", "vllm", level, ""), "chat", Path("runs/chat"), instance, found, made, **(kept | changes))


def terms(demand: Demand | float = 12.0, **assumed: Any) -> Terms:
    """Terms of a plan, with the shipped prices."""
    asked = demand if isinstance(demand, Demand) else of_rate(demand)
    catalogue, assumptions = read_catalogue(), Assumptions.model_validate(assumed)
    hours = None if assumptions.hours is None else catalogue.hours(assumptions.hours)
    return Terms(asked, assumptions, catalogue, hours)


SLO = {"ttft_ms": 500.0, "tpot_ms": None, "e2e_ms": None, "stall_ms": None}
_REQUESTS = 400
VLLM: Mapping[str, str] = {"model": "m", "engine": "vllm"}


def stored_run(
    path: Path,
    levels: Mapping[str, Mapping[float, float]],
    *,
    lag_ms: float = 0.0,
    engine: Mapping[str, str] = VLLM,
    **keys: Any,
) -> Path:
    """A stored run of an open loop, as its levels answered at each rate: TTFT in the median, in ms.

    lag_ms: how late requests were sent.   engine: keys of the cells.   keys: of the trials, but for `scenario`, the
    scenario as resolved.
    """
    scenario = {"name": path.name, "workload": {"prompt_tokens": 128, "output_tokens": 64}} | keys.pop("scenario", {})
    cells = [
        _cell(number, {**engine, "level": level}, rates, keys) for number, (level, rates) in enumerate(levels.items())
    ]
    made = {"name": path.name, "status": "complete", "command": "harness run chat.yaml", "scenario": scenario}
    writer = RunWriter(path, Manifest.model_validate({**made, "created_utc": "2026-11-30T07:00:00+00:00"}))
    writer.manifest.cells = cells
    for cell, rates in zip(cells, levels.values(), strict=True):
        for trial, (rate, ttft_ms) in zip(cell.trials, rates.items(), strict=True):
            with record_writer(writer.folder(trial.path)) as stream:
                for number in range(_REQUESTS):
                    # 4 % of the requests are half as slow again, evenly over time.
                    slow = 1.5 if number % 25 == 24 else 1.0
                    stream.add(_record(number, rate, ttft_ms * slow, lag_ms))
            writer.finish_records(path / trial.path)
    writer.save()
    return path


def _cell(number: int, named: Mapping[str, str], rates: Mapping[float, float], keys: Mapping[str, Any]) -> CellEntry:
    name = f"{number:03}-m-{named['engine']}-{named['level']}"
    trials = [
        trial_entry(
            id=f"{place:03}-rate-{rate:g}",
            index=place,
            load=f"rate-{rate:g}",
            path=f"cells/{name}/{place:03}-rate-{rate:g}",
            end_s=_REQUESTS / rate,
            planned={"total": _REQUESTS, "warmup": 0, "measure": _REQUESTS},
            **{"rate": rate, "slo": SLO, **keys},
        )
        for place, rate in enumerate(rates)
    ]
    start = {"load_s": 60.0}
    return cell_entry(id=name, index=number, path=f"cells/{name}", trials=trials, start=start, **named)


def _record(number: int, rate: float, ttft_ms: float, lag_ms: float) -> Any:
    made = streamed(number, 1000 * number / rate, ttft_ms=ttft_ms, tokens=64, gap_ms=10.0, lag_ms=lag_ms)
    made.prompt_tokens = made.requested_prompt_tokens = 128
    return made
