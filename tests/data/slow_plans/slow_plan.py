"""Plans that take as long as a test wants.

SLOW_PLANS_OF names modules and numbers of requests: `module=400,other=399` (default: 400 in the process of a cell).
Where a process of such a module plans so many requests, it makes a file `planning-400` and goes on only when that is
gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

CELL = "harness.run.child"


def slow_in(modules: Collection[str]) -> list[int]:
    """Numbers of requests whose plans are slow in a process of one of these modules."""
    named = (pair.split("=") for pair in os.environ.get("SLOW_PLANS_OF", f"{CELL}=400").split(","))
    return [int(number) for module, number in named if module in modules]


def slowed(made: Callable[..., Any], slow: Collection[int]) -> Callable[..., Any]:
    """A builder of plans that waits for the file of a slow one to be gone."""

    def build(load: Any, *rest: Any, **more: Any) -> Any:
        if load.requests in slow:
            flag = Path(f"planning-{load.requests}")
            flag.touch()
            while flag.exists():
                time.sleep(0.01)
        return made(load, *rest, **more)

    return build
