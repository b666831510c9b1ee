"""Read by each Python that starts with this folder on its path: plans that take as long as a test wants.

SLOW_PLANS_OF names modules and numbers of requests: `module=400,other=399` (default: 400 in the process of a cell).
Where a process of such a module plans so many requests, it makes a file `planning-400` and goes on only when that is
gone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

named = (pair.split("=") for pair in os.environ.get("SLOW_PLANS_OF", "harness.run.child=400").split(","))
if slow := [int(number) for module, number in named if module in sys.orig_argv]:
    from harness.schedule import requests

    made = requests.build

    def build(load: Any, *rest: Any, **more: Any) -> Any:
        """The plan, once the file is gone."""
        if load.requests in slow:
            flag = Path(f"planning-{load.requests}")
            flag.touch()
            while flag.exists():
                time.sleep(0.01)
        return made(load, *rest, **more)

    requests.build = build
