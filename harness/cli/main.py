"""Entry point of the `harness` command: a signal that arrives while modules load leaves no traceback."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from harness.cli.leave import leave
from harness.signals import stop_signals

NO_MEMORY = b"harness: no memory is left; raise the limit of memory (`ulimit -v`, or the container's), or free some\n"
LOADED_BYTES = 256 << 20  # with less address space, any error while modules load or are compiled means this
TRIAL_FAILED = 3  # as in harness.errors, which may not fit into the memory either


def main() -> NoReturn:
    """Run the command; until it is loaded, a stop signal ends the process at once."""
    for number in stop_signals():
        signal.signal(number, leave)
    try:
        try:
            from harness.cli.app import main as run
        except (ImportError, OSError) as error:
            cannot_load(error)
    except Exception as error:
        if not isinstance(error, MemoryError) and not starved():
            raise
        os.write(2, NO_MEMORY)
        os._exit(TRIAL_FAILED)
    run()


def starved() -> bool:
    """Whether the address space is limited so much that CPython's compiler may fail with errors of any kind."""
    try:
        import resource
    except MemoryError:
        return True
    except ImportError:
        return False  # no such limits here
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit != resource.RLIM_INFINITY and limit < LOADED_BYTES


def cannot_load(error: BaseException) -> NoReturn:
    """Exit with a sentence for an import that the system refuses; raise the error again if it does not."""
    from harness.errors import code_of, refusal

    why = refusal(error)
    if why is None:
        raise error
    os.write(2, f"harness: {why}\n".encode("utf-8", "replace"))
    os._exit(code_of(error))


if __name__ == "__main__":
    main()
