"""The kernel's clock: its receive stamps on packets, and what reading the time costs."""

from __future__ import annotations

import platform
import socket
import time

TIMESTAMPING = 37
STAMP_RECEIVED_IN_SOFTWARE = (1 << 3) | (1 << 4)  # SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE


def clock_cost_ns(times: int = 20_000) -> float:
    """Measure what reading the clock costs."""
    began_ns = time.monotonic_ns()
    for _ in range(times):
        time.monotonic_ns()
    return (time.monotonic_ns() - began_ns) / times


def stamp_lag_us() -> float:
    """Send one packet over loopback and ask when it came in. Raises OSError where the kernel does not tell."""
    if platform.system() != "Linux":
        raise OSError("this system has none")
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, TIMESTAMPING, STAMP_RECEIVED_IN_SOFTWARE)
        client.settimeout(2)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            lag_ns = 0
            for _ in range(3):  # stamping is switched on with the first socket that asks, which takes a moment
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
