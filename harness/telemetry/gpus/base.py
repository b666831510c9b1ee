"""GPUs of one maker, read together; base of the classes per driver library."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeVar

from harness.records import Sample
from harness.telemetry.gpus.gauges import SLOWLY_NS, Gauge, GaugeReader, Unavailable, where_it_computes

Value = TypeVar("Value")
Read = Callable[[], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Visibility:
    """Way in which a process is restricted to some GPUs."""

    kind: str  # engines' name for such a GPU
    variable: str  # environment variable with the GPUs' numbers or identifiers
    order: tuple[str, str]  # variable and value that make the process count like the driver


class Gpus(ABC):
    """All GPUs of a maker on this machine, or those of `devices`, by the driver's numbers.

    `unread` holds one sentence per unavailable reading; it grows while samples are taken. Raises RuntimeError, with the
    reason, if there is no library, driver or GPU.
    """

    maker: ClassVar[str]
    visibility: ClassVar[Visibility]

    def __init__(self, devices: Collection[int] | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._closed: dict[int, str] = {}  # GPUs that cannot be opened, and why
        handles = self._connect()
        if not handles:
            raise RuntimeError(f"no {self.maker} GPU here")
        for index in devices or ():
            if index in self._closed:
                raise RuntimeError(f"gpu{index} cannot be read: {self._closed[index]}")
        absent = [index for index in devices or () if index not in handles]
        if absent:
            raise RuntimeError(f"there is no GPU {absent[0]} here: there are {len(handles)}, numbered from 0")
        self._handles = {index: handle for index, handle in handles.items() if devices is None or index in devices}
        others = self._closed.items() if devices is None else ()
        self.unread: list[str] = [f"gpu{index} cannot be read: {why}" for index, why in others]
        self._engine_pids: Collection[int] = ()
        self._readers = [
            GaugeReader(f"gpu{index}", self._gauges(index, handle), self.unread, clock)
            for index, handle in self._handles.items()
        ]

    def samples(self, engine_pids: Collection[int] = ()) -> Iterator[Sample]:
        """Yield one reading of each gauge that is due. `engine_pids`: the processes whose memory is the engine's."""
        self._engine_pids = engine_pids
        for reader in self._readers:
            yield from reader.samples()

    def processes(self, engine_pids: Collection[int] = ()) -> set[int]:
        """Return the compute processes, as far as the driver lists them (not in containers, nor with MIG).

        If the engine uses some of the GPUs, only their processes are returned.
        """
        found: list[set[int]] = []
        for handle in self._handles.values():
            with contextlib.suppress(Unavailable):
                found.append(self._answer(partial(self._pids, handle)))
        return where_it_computes(found, engine_pids)

    def free_bytes(self, devices: Collection[int] = ()) -> int:
        """Return the free memory of these GPUs together, by default of all. Raises RuntimeError if one is lost."""
        chosen = [handle for index, handle in self._handles.items() if not devices or index in devices]
        try:
            return sum(self._answer(partial(self._free_bytes, handle)) for handle in chosen)
        except Unavailable as error:
            raise RuntimeError(f"the memory of a GPU cannot be read: {error}") from error

    def names(self) -> list[str]:
        """Return the product names, in the driver's order."""
        return [str(state.get("name", "unknown")) for state in self._states()]

    def driver(self) -> str:
        """Return the driver's version; "unknown" if unavailable."""
        return str(self._known(self._system()).get("driver", "unknown"))

    def environment(self) -> dict[str, Any]:
        """Return the present state of driver and GPUs, for the comparison of runs. Unavailable facts are absent."""
        return {"driver": "unknown", **self._known(self._system()), "gpus": self._states()}

    def _states(self) -> list[dict[str, Any]]:
        return [{"index": index, **self._known(self._facts(handle))} for index, handle in self._handles.items()]

    def _known(self, facts: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        found = {}
        for name, read in facts.items():
            with contextlib.suppress(Unavailable, AttributeError):  # not in every version of the library
                found[name] = self._answer(read)
        return found

    def _gauges(self, index: int, handle: Any) -> list[Gauge]:
        often = [Gauge(what, partial(self._answer, read)) for what, read in self._often(index, handle).items()]
        return often + [
            Gauge(what, partial(self._answer, read), SLOWLY_NS) for what, read in self._slowly(handle).items()
        ]

    @abstractmethod
    def _connect(self) -> dict[int, Any]:
        """Return the library's handles of all GPUs, by number. Raises RuntimeError."""

    @abstractmethod
    def _answer(self, read: Callable[[], Value]) -> Value:
        """Return the library's answer; raise its errors, and missing functions, as Unavailable."""

    @abstractmethod
    def _pids(self, handle: Any) -> set[int]:
        """Return the compute processes of a GPU."""

    @abstractmethod
    def _free_bytes(self, handle: Any) -> int:
        """Return the free memory of a GPU."""

    @abstractmethod
    def _system(self) -> Mapping[str, Callable[[], Any]]:
        """Return a call for each fact about the driver; "driver" is its version."""

    @abstractmethod
    def _facts(self, handle: Any) -> Mapping[str, Callable[[], Any]]:
        """Return a call for each fact about a GPU's state."""

    @abstractmethod
    def _often(self, index: int, handle: Any) -> Mapping[str, Read]:
        """Return the gauges of every reading, by their names in messages."""

    @abstractmethod
    def _slowly(self, handle: Any) -> Mapping[str, Read]:
        """Return the gauges that change slowly."""
