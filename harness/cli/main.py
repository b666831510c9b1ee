"""Entry point of the `harness` command: a signal that arrives while modules load leaves no traceback."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from harness.signals import stop_signals


def main() -> NoReturn:
    """Run the command; until it is loaded, a stop signal ends the process at once."""
    for number in stop_signals():
        signal.signal(number, leave)
    from harness.cli.app import main as run

    run()


def leave(*_: object) -> NoReturn:
    """Exit as interrupted; nothing has been done yet."""
    os.write(2, b"harness: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
