"""Policy of retries, as a process that sends load receives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.scenario.loads.retries import Retries


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Failures after which a request is sent again, how often, and the wait before the first time."""

    times: int
    statuses: tuple[int, ...] = ()
    connect: bool = False
    wait_ns: int = 0

    @classmethod
    def of(cls, wanted: Retries | None) -> RetryPolicy | None:
        """Return the policy that a load asks for; None if each request is sent once."""
        if wanted is None or not wanted.times:
            return None
        statuses = tuple(one for one in wanted.on if isinstance(one, int))
        return cls(wanted.times, statuses, len(statuses) < len(wanted.on), round(wanted.wait_s * 1e9))
