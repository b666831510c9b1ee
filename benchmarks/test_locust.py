"""Locust's timing error, beside that of our own client, against the stub's log of the same run.

Locust changes the interpreter it runs in, so that both are measured in a process of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.truth import Measured, Plan, build_stub, measure

ROOT = Path(__file__).parent.parent
CLOSED = {"count": 512, "users": 64, "tokens": 64, "first_us": 50_000, "gap_us": 10_000}
OPEN = {"count": 1000, "users": 0, "tokens": 16, "first_us": 20_000, "gap_us": 10_000, "rate": 200}
_TABLE = [
    "| load | driver | TTFT error p50, ms | p99 | ITL error p99, ms | send lag p50, ms | p99 | CPU, s |",
    "|---|---|---|---|---|---|---|---|",
]


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The compiled server; prints the table at the end."""
    yield build_stub(tmp_path_factory.mktemp("stub"))
    print("\n\n" + "\n".join(_TABLE))


@pytest.mark.parametrize(("name", "load"), [("64 streams", CLOSED), ("open, 200 requests/s", OPEN)])
def test_locust_is_as_exact_as_our_own_client(stub: Path, name: str, load: dict[str, Any]) -> None:
    """The error of its times is of the order of our own client's in the same minute, and it sends hardly later."""
    seen = {driver: in_a_process(stub, driver, load) for driver in ("inprocess", "locust")}
    for driver, one in seen.items():
        figures = ("ttft_p50", "ttft_p99", "itl_p99", "lag_p50", "lag_p99")
        _TABLE.append(
            f"| {name} | {driver} | " + " | ".join(f"{one[f]:.3f}" for f in figures) + f" | {one['cpu_s']:.2f} |"
        )
    ours, locusts = seen["inprocess"], seen["locust"]
    assert locusts["statuses"] == ["ok"]
    assert locusts["ttft_p50"] <= 2 * ours["ttft_p50"] + 0.05
    assert locusts["itl_p99"] <= 4 * ours["itl_p99"] + 0.5
    assert locusts["lag_p50"] <= 4 * ours["lag_p50"] + 0.5


def in_a_process(stub: Path, driver: str, load: dict[str, Any]) -> dict[str, Any]:
    """What a child measured."""
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.test_locust", str(stub), driver, json.dumps(load)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def child(stub: Path, driver: str, load: dict[str, Any]) -> dict[str, Any]:
    """Measure here."""
    due_ns = None if load["users"] else (np.arange(load["count"]) * (10**9 // load["rate"])).astype(np.int64)
    plan = Plan(load["count"], load["users"], load["tokens"], due_ns)
    seen = (
        under_locust(stub, plan, load) if driver == "locust" else measure(stub, plan, load["first_us"], load["gap_us"])
    )
    lags_ms = [
        (record.sent_ns - record.due_ns) / 1e6 for record in seen.records if None not in (record.sent_ns, record.due_ns)
    ]
    lags = {f"lag_p{share}": float(np.percentile(lags_ms, share)) for share in (50, 99)}
    return {
        **seen.errors_ms(),
        **lags,
        "cpu_s": seen.cpu_s,
        "statuses": sorted({str(record.status) for record in seen.records}),
    }


def under_locust(stub: Path, plan: Plan, load: dict[str, Any]) -> Measured:
    """The same with Locust's runner, users and events, in one of Locust's greenlets."""
    import benchmarks.truth as truth
    from harness.drivers import drive as asyncio_driver
    from harness.drivers.base import Part
    from harness.drivers.locust.loop import new_loop

    made = new_loop()
    from harness.drivers.locust.session import LocustSession, quieten
    from harness.drivers.locust.users import Seats, fire_request_event

    quieten()
    seats = Seats(range(plan.users))
    session = LocustSession(seats, "stub")
    session.environment.create_local_runner()

    async def drive(schedule: Any, target: Any, settings: Any, sink: Any) -> Any:
        await session.spawn(plan.users or 1)

        def keep(record: Any) -> None:
            sink(record)
            fire_request_event(session.environment, record, 0.0)

        return await asyncio_driver.drive(schedule, target, settings, keep, None, Part(hand_over=seats.hand_over))

    truth.drive = drive  # type: ignore[assignment]
    truth._loop_factory = lambda fast: lambda: made  # type: ignore[assignment]
    try:
        return measure(stub, plan, load["first_us"], load["gap_us"])
    finally:
        session.end()


if __name__ == "__main__":
    print(json.dumps(child(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))))
