"""Who takes part in a distributed trial, and how far each worker is: the master's books, without any messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.schedule.requests import Shard


@dataclass(slots=True)
class Clock:
    """How a worker's monotonic clock stands to the master's: master = worker + offset, to within `uncertainty_ns`."""

    offset_ns: int
    uncertainty_ns: int

    def there(self, master_ns: int) -> int:
        """A time of the master's, on the worker's clock."""
        return master_ns - self.offset_ns


def least_round_trip(exchanges: list[tuple[int, int, int]]) -> Clock:
    """The clock from exchanges (asked, the master's time, answered): the one with the least round trip.

    The master's reading lies somewhere between the two of the worker's; its middle errs by half the round trip at most.
    """
    asked_ns, master_ns, answered_ns = min(exchanges, key=lambda one: one[2] - one[0])
    return Clock(master_ns - (asked_ns + answered_ns) // 2, (answered_ns - asked_ns + 1) // 2)


@dataclass(slots=True)
class Worker:
    """One worker.

    heard_ns: when it last said anything, on the master's clock: what fell due later, it may not have sent.
    report: its own, when it has ended in order.
    """

    name: str
    index: int
    clock: Clock | None = None
    counted: bool = False
    lost: str | None = None
    heard_ns: int = 0
    report: dict[str, Any] | None = None

    @property
    def ready(self) -> bool:
        """Whether it waits for the start."""
        return self.clock is not None and self.lost is None

    @property
    def over(self) -> bool:
        """Whether nothing more will come from it."""
        return self.report is not None or self.lost is not None


class Roster:
    """The workers of a trial, `of` of them expected. Shards nobody has are the absent workers'."""

    def __init__(self, of: int) -> None:
        self.of = of
        self.begun = False
        self.notes: list[str] = []
        self._workers: dict[str, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(sorted(self._workers.values(), key=lambda worker: worker.index))

    def get(self, name: str) -> Worker | None:
        """The worker of this name, if it takes part."""
        return self._workers.get(name)

    def admit(self, name: str) -> Shard | None:
        """A share of the plan for a worker that has come; None if it is too late or one too many, which is noted."""
        if (known := self._workers.get(name)) is not None:
            return Shard(known.index, self.of)
        free = sorted(set(range(self.of)) - {worker.index for worker in self._workers.values()})
        if self.begun or not free:
            why = "came after the start" if self.begun else f"was one more than the {self.of} expected"
            self.notes.append(f"a load worker {why} and was sent away")
            return None
        self._workers[name] = Worker(name, free[0])
        return Shard(free[0], self.of)

    def refuse(self, name: str, reason: str) -> None:
        """A worker cannot take part; before the start its share is another's."""
        worker = self._workers.pop(name, None)
        if worker is not None:
            self.notes.append(f"a load worker refused: {reason}")

    def hear(self, name: str, now_ns: int) -> None:
        """A worker has said something."""
        if (worker := self._workers.get(name)) is not None:
            worker.heard_ns = now_ns

    def lose(self, name: str, reason: str) -> None:
        """A worker is gone. Before the start its share is another's."""
        worker = self._workers.get(name)
        if worker is None or worker.over:
            return
        if not self.begun:
            del self._workers[name]
            self.notes.append(f"a load worker {reason} before the start")
            return
        worker.lost = f"it {reason}"
        self.notes.append(f"load worker {worker.index} {reason}: what it had not sent was not sent")

    def begin(self) -> None:
        """The trial begins with those who are ready; the others come too late."""
        self.begun = True
        late = [name for name, worker in self._workers.items() if not worker.ready]
        for name in late:
            del self._workers[name]
        if late or self.absent:
            missing = len(self.absent)
            self.notes.append(f"{missing} of {self.of} load workers had not come in time: their requests were not sent")

    @property
    def ready(self) -> int:
        """How many wait for the start."""
        return sum(worker.ready for worker in self._workers.values())

    @property
    def absent(self) -> list[int]:
        """The shards that nobody has."""
        return sorted(set(range(self.of)) - {worker.index for worker in self._workers.values()})

    @property
    def all_counted(self) -> bool:
        """Whether nobody has anything left to send or to wait for that counts."""
        return all(worker.counted or worker.over for worker in self._workers.values())

    @property
    def all_over(self) -> bool:
        """Whether everyone has reported or is lost."""
        return all(worker.over for worker in self._workers.values())
