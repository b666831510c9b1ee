"""Where the `harness` command begins: whoever ends it while it is still being loaded sees no traceback."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from harness.signals import stop_signals


def main() -> NoReturn:
    """Entry point."""
    for number in stop_signals():
        signal.signal(number, leave)
    from harness.cli.app import main as carry_out

    carry_out()


def leave(*_: object) -> NoReturn:
    """Nothing has been done yet."""
    os.write(2, b"harness: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
