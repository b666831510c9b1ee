"""By which signals a user, or the system, asks for the end."""

from __future__ import annotations

import signal


def stop_signals() -> tuple[int, ...]:
    """Ctrl-C, SIGTERM, and SIGHUP (the terminal is closed) unless that is ignored, as `nohup` has it."""
    hang_up = getattr(signal, "SIGHUP", None)
    ignored = hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
