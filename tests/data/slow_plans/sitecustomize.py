"""Read by each Python that starts with this folder on its path: plans that take as long as a test wants."""

from __future__ import annotations

import sys

from slow_plan import slow_in, slowed

if slow := slow_in(sys.orig_argv):
    from harness.schedule import requests

    requests.build = slowed(requests.build, slow)
