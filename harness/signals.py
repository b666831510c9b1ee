"""Signals that ask for the end. The first import of the command: it loads nothing else."""

from __future__ import annotations

import signal


def stop_signals() -> tuple[int, ...]:
    """Return SIGINT, SIGTERM, and SIGHUP (a closed terminal) unless that is ignored, as under `nohup`."""
    hang_up = getattr(signal, "SIGHUP", None)
    ignored = hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
