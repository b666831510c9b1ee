"""Alarms at absolute times, more exact than loop timers.

Loop timers are rounded to milliseconds (libuv, epoll). A timerfd uses the kernel's high-resolution timers, wakes within
some tens of microseconds, and is one more file descriptor of the poller.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable

from harness.drivers.http.poller import Poller
from harness.drivers.timeline import NS_PER_S, NowNs

_CLOCK_MONOTONIC = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_ABSOLUTE = 1


class LoopAlarm:
    """Alarm by the loop's timers, for virtual time and systems without timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], object], now_ns: NowNs) -> None:
        self._loop, self._ring, self._now_ns = loop, ring, now_ns
        self._timer: asyncio.TimerHandle | None = None
        self._at_ns: int | None = None

    def set(self, at_ns: int | None) -> None:
        """Ring once at this monotonic time, at once if it has passed; None: never. Replaces the time set before."""
        if at_ns == self._at_ns and (self._timer is not None or at_ns is None):
            return
        self.close()
        self._at_ns = at_ns
        if at_ns is not None:
            self._timer = self._loop.call_at(at_ns / NS_PER_S, self._fire)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._at_ns is not None and self._now_ns() < self._at_ns:  # libuv's timers may be early
            self._timer = self._loop.call_later(0.001, self._fire)
            return
        self._ring()


class TimerfdAlarm:
    """Alarm by Linux' timerfd. Raises OSError or AttributeError if it is missing."""

    def __init__(self, poller: Poller, ring: Callable[[], object]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._poller, self._ring = poller, ring
        self._at_ns: int | None = None
        self._setting = (ctypes.c_long * 4)()  # struct itimerspec: interval and value, each in seconds and nanoseconds
        poller.add(self._file, self._fire)

    def set(self, at_ns: int | None) -> None:
        if at_ns == self._at_ns:
            return
        self._at_ns = at_ns
        self._setting[2], self._setting[3] = divmod(max(at_ns, 1), NS_PER_S) if at_ns is not None else (0, 0)
        self._libc.timerfd_settime(self._file, _ABSOLUTE, self._setting, None)

    def close(self) -> None:
        if self._file >= 0:
            self._poller.remove(self._file)
            os.close(self._file)
            self._file = -1

    def _fire(self, _: int) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # it was set again after the poll
            return
        self._at_ns = None
        self._ring()


Alarm = LoopAlarm | TimerfdAlarm


def make_alarm(
    loop: asyncio.AbstractEventLoop, poller: Poller | None, ring: Callable[[], object], now_ns: NowNs
) -> Alarm:
    """Return the most exact alarm available; without a poller the loop's own."""
    if poller is not None:
        with contextlib.suppress(OSError, AttributeError):
            return TimerfdAlarm(poller, ring)
    return LoopAlarm(loop, ring, now_ns)
