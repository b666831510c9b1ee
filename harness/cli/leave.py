"""End at once, while the program loads or after the second signal. It loads nothing else."""

from __future__ import annotations

import os
from typing import NoReturn


def leave(*_: object) -> NoReturn:
    """Exit as interrupted; nothing has been done yet, or this is the second signal."""
    os.write(2, b"harness: interrupted\n")
    os._exit(130)
