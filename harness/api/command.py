"""The command as `benchmark` starts it: it stops in order when the program that measures is gone, however it ended.

That program holds the other end of standard input, and writes nothing to it.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import NoReturn

from harness.cli.main import main


def stop_with_the_program() -> None:
    """Send this process SIGTERM at the end of standard input. Its own children get an empty one."""
    program = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def wait() -> None:
        while os.read(program, 1):
            continue
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run() -> NoReturn:
    """Run the command beside that watch."""
    stop_with_the_program()
    main()


if __name__ == "__main__":
    run()
