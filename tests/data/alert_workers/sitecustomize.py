"""Read by each Python that starts with this folder on its path: workers of Locust who soon notice a silent master."""

from __future__ import annotations

import sys

if "harness.drivers.locust.worker" in sys.orig_argv:
    from harness.drivers.locust import options

    options.MASTER_SILENT_S = 4.0  # it is heard of once a second
