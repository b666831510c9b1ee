"""In the place of uvloop, by which the process of a cell runs where it is installed: plans that take as long as a test
wants, as in slow_plans. That folder makes every Python start anew; here only the processes of a cell have it on their
path.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from harness.drivers.workers import part

CELL = "harness.run.child"
named = (pair.split("=") for pair in os.environ.get("SLOW_PLANS_OF", f"{CELL}=400").split(","))
slow = [int(number) for module, number in named if module == CELL]
made = part.build
os.environ["PYTHONPATH"] = os.pathsep.join((os.environ["PYTHONPATH"], str(Path(__file__).parents[1] / "slow_plans")))


def build(load: Any, *rest: Any, **more: Any) -> Any:
    """The plan, once the file is gone."""
    if load.requests in slow:
        flag = Path(f"planning-{load.requests}")
        flag.touch()
        while flag.exists():
            time.sleep(0.01)
    return made(load, *rest, **more)


part.build = build
run = asyncio.run
