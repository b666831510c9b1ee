"""The least a client can do: one `recvmsg` and one append a token, against which the client's cost is held."""

from __future__ import annotations

import select
import socket
import time
from pathlib import Path

from benchmarks.truth import stub_server
from harness.telemetry.kernel_clock import STAMP_RECEIVED_IN_SOFTWARE, TIMESTAMPING

_REQUEST = b"POST / HTTP/1.1\r\nhost: stub\r\ncontent-length: 0\r\n\r\n"


def bare_cpu_s(program: Path, streams: int, rounds: int, tokens: int, first_us: int, gap_us: int) -> float:
    """CPU seconds of the bare loop for `rounds` replies on each stream, interpreter and connecting not included."""
    sockets: list[socket.socket] = []
    with stub_server(program, first_us, gap_us, tokens, program.with_name("bare-log")) as port:
        try:
            for _ in range(streams):
                sockets.append(socket.create_connection(("127.0.0.1", port)))
                sockets[-1].setsockopt(socket.SOL_SOCKET, TIMESTAMPING, STAMP_RECEIVED_IN_SOFTWARE)
            began_s = time.process_time()
            _read_all(sockets, rounds)
            return time.process_time() - began_s
        finally:
            for one in sockets:
                one.close()


def _read_all(sockets: list[socket.socket], rounds: int) -> None:
    ready = select.epoll()
    streams = {one.fileno(): (one.recvmsg, list[object](), one) for one in sockets}
    left = dict.fromkeys(streams, rounds)
    for file, (_, _, one) in streams.items():
        ready.register(file, select.EPOLLIN)
        one.send(_REQUEST)
    running = len(streams) * rounds
    while running:
        for file, _ in ready.poll(1, 128):
            recvmsg, kept, one = streams[file]
            read = recvmsg(65_536, 64)
            kept.append(read)
            if read[0].endswith(b"0\r\n\r\n"):
                kept.clear()
                running -= 1
                left[file] -= 1
                if left[file]:
                    one.send(_REQUEST)
