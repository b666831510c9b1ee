"""Read by each Python that starts with this folder on its path: plans that take as long as a test wants.

Where a process of the module SLOW_PLANS_OF (default: the process of a cell) plans 400 requests, it makes a file
`planning` and goes on only when that is gone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

if os.environ.get("SLOW_PLANS_OF", "harness.run.child") in sys.orig_argv:
    from harness.schedule import requests

    made = requests.build

    def build(load: Any, *rest: Any, **more: Any) -> Any:
        """The plan, once the file is gone."""
        if load.requests == 400:
            flag = Path("planning")
            flag.touch()
            while flag.exists():
                time.sleep(0.01)
        return made(load, *rest, **more)

    requests.build = build
