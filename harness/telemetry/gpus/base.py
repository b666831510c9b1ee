"""GPUs of one maker, read together: what every driver's library is asked in the same way."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

from harness.records import Sample
from harness.telemetry.gpus.gauges import SLOWLY_NS, Gauge, GaugeReader, Untold, where_it_computes

Value = TypeVar("Value")
Read = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Visibility:
    """How a process is told which GPUs it may use.

    kind: what engines call such a GPU.   variable: their numbers, or their identifiers.
    order: a variable and its value that make the process count as the driver does.
    """

    kind: str
    variable: str
    order: tuple[str, str]


class Gpus(ABC):
    """Every GPU of a maker on this machine, or those that `devices` names by the driver's numbers.

    unread: one sentence for everything that could not be read, as soon as that is known; it grows while samples are
    taken.   Raises RuntimeError, with the reason, where there is no library, driver or GPU.
    """

    maker: ClassVar[str]
    visibility: ClassVar[Visibility]

    def __init__(self, devices: Collection[int] | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        handles = self._connect()
        if not handles:
            raise RuntimeError(f"no {self.maker} GPU here")
        absent = [index for index in devices or () if index not in handles]
        if absent:
            raise RuntimeError(f"there is no GPU {absent[0]} here: there are {len(handles)}, numbered from 0")
        self._handles = {index: handle for index, handle in handles.items() if devices is None or index in devices}
        self.unread: list[str] = []
        self._engine_pids: Collection[int] = ()
        self._readers = [
            GaugeReader(f"gpu{index}", self._gauges(index, handle), self.unread, clock)
            for index, handle in self._handles.items()
        ]

    def samples(self, at_ns: int, engine_pids: Collection[int] = ()) -> Iterator[Sample]:
        """One reading of each gauge of each GPU that is due, stamped when it is taken (`at_ns` is about now).

        engine_pids: the processes whose memory is the engine's.
        """
        self._engine_pids = engine_pids
        for reader in self._readers:
            yield from reader.samples()

    def processes(self, engine_pids: Collection[int] = ()) -> set[int]:
        """The processes that compute on them, as far as the driver tells (not in containers, nor with MIG); only on
        those where one of the engine's does, if there are such.
        """
        found: list[set[int]] = []
        for handle in self._handles.values():
            with contextlib.suppress(Untold):
                found.append(self._told(partial(self._pids, handle)))
        return where_it_computes(found, engine_pids)

    def free_bytes(self, devices: Collection[int] = ()) -> int:
        """Memory that is free on these GPUs together; of all without `devices`. Raises RuntimeError if one is lost."""
        chosen = [handle for index, handle in self._handles.items() if not devices or index in devices]
        try:
            return sum(self._told(partial(self._free_bytes, handle)) for handle in chosen)
        except Untold as error:
            raise RuntimeError(f"the memory of a GPU cannot be read: {error}") from error

    def names(self) -> list[str]:
        """Their product names, in the driver's order."""
        return [str(state.get("name", "unknown")) for state in self._states()]

    @abstractmethod
    def driver(self) -> str:
        """The driver's version; "unknown" where it does not tell."""

    def environment(self) -> dict[str, Any]:
        """The state in which driver and GPUs are now: what a run is to be compared with. Untold facts are absent."""
        return {"driver": self.driver(), "gpus": self._states()}

    def _states(self) -> list[dict[str, Any]]:
        states = []
        for index, handle in self._handles.items():
            state: dict[str, Any] = {"index": index}
            for name, ask in self._facts(handle).items():
                with contextlib.suppress(Untold, AttributeError):  # versions of the libraries differ
                    state[name] = self._told(ask)
            states.append(state)
        return states

    def _gauges(self, index: int, handle: Any) -> list[Gauge]:
        often = [Gauge(what, partial(self._told, read)) for what, read in self._often(index, handle).items()]
        return often + [
            Gauge(what, partial(self._told, read), SLOWLY_NS) for what, read in self._slowly(handle).items()
        ]

    @abstractmethod
    def _connect(self) -> dict[int, Any]:
        """The library's handles of all GPUs, by number. Raises RuntimeError."""

    @abstractmethod
    def _told(self, read: Callable[[], Value]) -> Value:
        """What the library answers; its errors, and names that this version of it lacks, as Untold."""

    @abstractmethod
    def _pids(self, handle: Any) -> set[int]:
        """The processes that compute on a GPU."""

    @abstractmethod
    def _free_bytes(self, handle: Any) -> int:
        """Memory of a GPU that is free."""

    @abstractmethod
    def _facts(self, handle: Any) -> Mapping[str, Callable[[], Any]]:
        """How to ask for each fact about a GPU's state."""

    @abstractmethod
    def _often(self, index: int, handle: Any) -> Mapping[str, Read]:
        """The gauges that are read each time, by what they tell, in words."""

    @abstractmethod
    def _slowly(self, handle: Any) -> Mapping[str, Read]:
        """The gauges that move slowly."""
