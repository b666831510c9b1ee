"""Driver of one trial in an asyncio loop: real sockets, an engine in this process, or virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import functools

import numpy as np
from numpy.typing import NDArray

from engines.base import Endpoint, InProcessEngine
from harness.drivers.base import ALONE, Control, DriveReport, DriveSettings, Part, Sink
from harness.drivers.cap import Cap
from harness.drivers.due_queue import DueQueue
from harness.drivers.http.place import notes_of, places_of
from harness.drivers.http.pool import warm
from harness.drivers.in_process import InProcessClient
from harness.drivers.served import ServedClient
from harness.drivers.timeline import NS_PER_MS, NS_PER_S, clock_of
from harness.drivers.trial import Client, TrialState
from harness.drivers.vitals import collector_off
from harness.errors import TrialFailed
from harness.records import Loop
from harness.schedule.requests import Schedule

_LEAD_NS = 20 * NS_PER_MS
_WARM_OPEN, _WARM_TOGETHER = 64, 1024
_TOGETHER_NS = 10 * NS_PER_MS


async def drive(
    schedule: Schedule,
    target: InProcessEngine | Endpoint,
    settings: DriveSettings,
    sink: Sink,
    control: Control | None = None,
    part: Part = ALONE,
) -> DriveReport:
    """Send every request of the schedule at its due time; pass each record to `sink` when it is complete.

    There is exactly one record per planned row that fell due. In an open loop every warm-up and measured row has one,
    sent or not. Cooldown requests in flight after the last measured one are cut off (`unfinished`). In a closed loop a
    user waits at least 100 ms after a failed connection. An exception of `sink` ends the trial and is raised again.

    Raises TrialFailed if the endpoint's address is invalid, or its dialect cannot carry the requests.
    """
    control = control or Control()
    loop = asyncio.get_running_loop()
    now_ns = clock_of(loop)
    report = DriveReport(t0_ns=0, planned=schedule.count)
    client: Client | None = None
    try:
        # T0 is known only after the connections are open; `state.begin` then shifts the plan to it.
        cap = None if settings.most_in_flight is None else Cap(settings.most_in_flight)
        queue = DueQueue(schedule, part.shard, lingers=part.counted is not None, cap=cap)
        state = TrialState(schedule, settings, sink, control, queue, report, now_ns, loop.create_future(), part)
        if isinstance(target, Endpoint):
            places = places_of(target)
            report.notes += notes_of(places)
            client = served = ServedClient(state, target, places, loop)
            await warm(served.pools, -(-_warm_count(schedule, settings) // part.shard.of), loop)
        else:
            client = InProcessClient(state, target, loop)
        client.prepare()
        with collector_off() if isinstance(target, Endpoint) else contextlib.nullcontext():
            own_ns = now_ns() + (_LEAD_NS if isinstance(target, Endpoint) else 0)
            state.begin(own_ns if part.start is None else await part.start())
            control.begins(report.t0_ns)
            control.on_change(functools.partial(state.guarded, client.control_changed))
            client.start()
            if control.stopped:
                state.guarded(client.control_changed)
            await state.finished
    except ValueError as error:
        raise TrialFailed(str(error)) from error
    finally:
        control.on_change(None)
        if client is not None:
            client.close()
    return state.finish_report()


def _warm_count(schedule: Schedule, settings: DriveSettings) -> int:
    """Return the connections to open before the start: one per user; in open loops the busiest second's, at most 64.

    Of requests that are due within 10 ms each has one, at most 1,024: none waits while the others' are opened.
    """
    if settings.warm_connections is not None:
        return settings.warm_connections
    if schedule.loop is Loop.CLOSED:
        return schedule.users
    if schedule.due_ns is None:
        return 0
    in_a_second, together = (most_within(span_ns, schedule.due_ns) for span_ns in (NS_PER_S, _TOGETHER_NS))
    most = max(min(_WARM_OPEN, in_a_second), min(_WARM_TOGETHER, together))
    return most if settings.most_in_flight is None else min(most, settings.most_in_flight)


def most_within(span_ns: int, due_ns: NDArray[np.int64]) -> int:
    """Return the largest number of requests due within a span of time, from sorted due times."""
    within = np.searchsorted(due_ns, due_ns + span_ns) - np.arange(len(due_ns))
    return int(within.max(initial=0))
