"""Processes of cells in virtual time, forked as the command is: each costs a third of what its start costs.

Nothing in virtual time reads the machine, so such a process need not be new. It is a child of the command all the same:
the command is their subreaper, so that they become its own when the process between them has ended.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHILD = "harness.run.child"
VIRTUAL_TIME = "virtual_time"  # a folder of the path for imports
SUBREAPER = 36  # of prctl(2)
LARGEST_REQUEST_BYTES = 1 << 17
NUMBER = struct.Struct("i")
STREAMS = 3  # of a request
_ordinary = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def in_virtual_time(path: str) -> bool:
    """Whether the cells of a command live in virtual time, by its path for imports."""
    return any(Path(folder).name == VIRTUAL_TIME for folder in path.split(os.pathsep))


def fork_children() -> None:
    """From now on, cells of this process are forked from one that is as it is now."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        serve(theirs)
        os._exit(0)
    theirs.close()

    def execute_child(self: Any, arguments: Sequence[str], *more: Any) -> None:
        env, pipes = more[5], more[9:15]
        path = (env or {}).get("PYTHONPATH", "")
        if [*arguments[1:4]] != ["-P", "-m", CHILD] or not in_virtual_time(path):
            _ordinary(self, arguments, *more)
            return
        p2cread, _, _, c2pwrite, _, errwrite = pipes
        request = json.dumps({"arguments": arguments[4:], "env": dict(env)}).encode()
        socket.send_fds(ours, [request], [p2cread, c2pwrite, errwrite])
        self.pid = NUMBER.unpack(ours.recv(NUMBER.size))[0]
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
    sys.argv[1:] = request["arguments"]
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
