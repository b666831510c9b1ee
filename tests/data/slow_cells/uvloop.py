"""In the place of uvloop, by which the process of a cell runs where it is installed: plans that take as long as a test
wants.

Where a plan of 400 requests is made, there is a file `planning-400`, and the plan goes on only when that is gone.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from harness.drivers.workers import part

SLOW = 400
made = part.build


def build(load: Any, *rest: Any, **more: Any) -> Any:
    """The plan, once the file is gone."""
    if load.requests == SLOW:
        flag = Path(f"planning-{SLOW}")
        flag.touch()
        while flag.exists():
            time.sleep(0.01)
    return made(load, *rest, **more)


part.build = build
run = asyncio.run
