"""Signals that ask for the end. The first import of the command: it loads nothing else."""

from __future__ import annotations

import signal

ASKED: list[int] = []
"""Signals that asked for the end outside a run: a library may have lost the exception, as in a destructor."""


class StopSignal(SystemExit):
    """Signal that asks for the end outside a run. No `except Exception` of a library catches it."""


def stop_signals() -> tuple[int, ...]:
    """Return SIGINT and SIGTERM, and unless they are ignored, as under `nohup`, SIGQUIT and SIGHUP (a closed terminal).

    A system without such a signal has no such number.
    """
    others = (getattr(signal, name, None) for name in ("SIGQUIT", "SIGHUP"))
    heard = (number for number in others if number is not None and signal.getsignal(number) is not signal.SIG_IGN)
    return (signal.SIGINT, signal.SIGTERM, *heard)
