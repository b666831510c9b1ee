"""Kernel's clock: receive stamps on packets, and the cost of a clock reading."""

from __future__ import annotations

import platform
import socket
import time
from itertools import pairwise

TIMESTAMPING = 37
STAMP_RECEIVED_IN_SOFTWARE = (1 << 3) | (1 << 4)  # SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE


def clock_cost_ns(times: int = 20_000) -> float:
    """Measure the cost of a clock reading."""
    began_ns = time.monotonic_ns()
    for _ in range(times):
        time.monotonic_ns()
    return (time.monotonic_ns() - began_ns) / times


def clock_step_ns(times: int = 10_000) -> int:
    """Return an upper bound of the clock's step: the least difference of consecutive readings that is not zero."""
    readings = [time.monotonic_ns() for _ in range(times)]
    return min((step for one, other in pairwise(readings) if (step := other - one)), default=0)


def stamp_lag_us() -> float:
    """Measure the lag of one packet's stamp on loopback. Raises OSError if the kernel sends no stamps."""
    if platform.system() != "Linux":
        raise OSError("this system has no receive stamps")
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, TIMESTAMPING, STAMP_RECEIVED_IN_SOFTWARE)
        client.settimeout(2)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            for _ in range(3):  # the first socket switches stamping on, which takes a moment
                server.send(b"x")
                _, ancillary, _, _ = client.recvmsg(16, 128)
                read_ns = time.time_ns()
                if not ancillary:
                    time.sleep(0.05)
                    continue
                seconds, nanoseconds = (int.from_bytes(ancillary[0][2][i : i + 8], "little") for i in (0, 8))
                lag_ns = read_ns - (seconds * 1_000_000_000 + nanoseconds)
                if 0 <= lag_ns < 1_000_000_000:
                    return lag_ns / 1e3
    raise OSError("packets carry no usable time")
