"""In the place of uvloop, by which the process of a cell runs where it is installed: plans that take as long as a test
wants, as in slow_plans. That folder makes every Python start anew; here only the processes of a cell have it on their
path.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from harness.drivers.workers import part

SLOW_PLANS = str(Path(__file__).parents[1] / "slow_plans")
os.environ["PYTHONPATH"] = os.pathsep.join((os.environ["PYTHONPATH"], SLOW_PLANS))
sys.path.append(SLOW_PLANS)

from slow_plan import CELL, slow_in, slowed  # noqa: E402

part.build = slowed(part.build, slow_in((CELL,)))
run = asyncio.run
