"""Processes of cells, forked as the command is: each costs a third of what its start costs.

It is a child of the command all the same, with the command line of one that was started: the command is a subreaper
while it is made, so that it becomes the command's own when the process between them has ended. Memory alone tells the
difference: a forked process shares most of it, so tests that measure an engine's in our process start a new one.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHILD = "harness.run.child"
READ_EARLY = ("PYTHON", "LD_", "LC_", "LANG", "OPENBLAS", "OMP_", "MPL", "HF_")  # by interpreters, or at imports
READ_LATE = ("PYTHONPATH", "HF_TOKEN")  # though they begin like these
SUBREAPER = 36  # of prctl(2)
LARGEST_REQUEST_BYTES = 1 << 17
NUMBER = struct.Struct("i")
STREAMS = 3  # of a request
_ordinary = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def read_early(env: Mapping[str, str]) -> dict[str, str]:
    """What a process that has been loaded would not notice."""
    return {name: value for name, value in env.items() if name.startswith(READ_EARLY) and name not in READ_LATE}


def fork_children() -> None:
    """From now on, cells of this process are forked from one that is as it is now, unless they need another start."""
    loaded, process_control, one_at_a_time = read_early(os.environ), ctypes.CDLL(None).prctl, threading.Lock()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = os.fork()
    if server == 0:
        ours.close()
        serve(theirs)
        os._exit(0)
    theirs.close()

    def leave() -> None:
        ours.close()
        os.waitpid(server, 0)

    atexit.register(leave)  # a command leaves no process behind, and neither does a forked one

    def execute_child(self: Any, arguments: Sequence[str], *more: Any) -> None:
        env, pipes = more[5], more[9:15]
        if [*arguments[:4]] != [sys.executable, "-P", "-m", CHILD] or read_early(env or os.environ) != loaded:
            _ordinary(self, arguments, *more)
            return
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        request = json.dumps({"arguments": [*arguments], "env": dict(env or os.environ)}).encode()
        with one_at_a_time:
            process_control(SUBREAPER, 1, 0, 0, 0)
            socket.send_fds(ours, [request], [p2cread, c2pwrite, errwrite])
            self.pid = NUMBER.unpack(ours.recv(NUMBER.size))[0]
            process_control(SUBREAPER, 0, 0, 0, 0)
        self._child_created = True
        self._close_pipe_fds(*pipes)

    subprocess.Popen._execute_child = execute_child  # type: ignore[attr-defined]


def serve(requests: socket.socket) -> None:
    """Fork twice for each request, so that the second one has no parent, until the command is gone."""
    while True:
        data, streams, _, _ = socket.recv_fds(requests, LARGEST_REQUEST_BYTES, STREAMS)
        if not data:
            return
        told, tells = os.pipe()
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                os.close(told)
                os.close(tells)
                requests.close()
                become(json.loads(data), streams)
            os.write(tells, NUMBER.pack(pid))
            os._exit(0)
        for end in (*streams, tells):
            os.close(end)
        pid = NUMBER.unpack(os.read(told, NUMBER.size))[0]
        os.close(told)
        os.waitpid(between, 0)  # now it is the command's
        requests.send(NUMBER.pack(pid))


def become(request: dict[str, Any], streams: Sequence[int]) -> None:
    """The process of a cell, in a session of its own."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[1:] = request["arguments"][4:]
    name_as(request["arguments"])
    code = 1
    try:
        importlib.import_module(CHILD).main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def name_as(arguments: Sequence[str]) -> None:
    """Show a command line to whoever lists processes, cut to the room that ours has in memory."""
    start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    line = "\0".join(arguments).encode()
    ctypes.memmove(start, line[: end - start - 1].ljust(end - start, b"\0"), end - start)
