"""Process in which xllamacpp serves a model. Run by path; imports only the standard library and xllamacpp.

Reads one line of JSON on stdin: {"report_fd": int, "parameters": {name: value}}. A dotted name is an attribute path of
xllamacpp.CommonParams, a value {"enum": E, "member": M} is xllamacpp.E.M, {"new": C, "arguments": [...]} is
xllamacpp.C(...), {"list": [...]} is a list, and a bare list is a set. When the model is loaded and the port is open, it
writes one line of JSON to `report_fd`: {"url", "version", "system"}. It ends when stdin does, that is, with its parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import json
import os
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_SET_LOG_THRESHOLD = "_Z30common_log_set_verbosity_tholdi"  # common_log_set_verbosity_thold(int), as C++ exports it
_LOG_WARNINGS = 2


def main() -> None:
    """Serve until stdin ends."""
    faulthandler.enable()
    if sys.platform == "linux":  # end with the parent, even while the model loads and stdin is not read
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    order = json.loads(sys.stdin.readline())
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    for name, value in order["parameters"].items():
        *path, last = name.split(".")
        setattr(functools.reduce(getattr, path, parameters), last, _decoded(xllamacpp, value))
    server = xllamacpp.Server(parameters)
    # Only warnings from here on, for a request would add several lines. xllamacpp has no call for it.
    set_log_threshold = getattr(ctypes.CDLL(xllamacpp.xllamacpp.__file__), _SET_LOG_THRESHOLD, None)
    if set_log_threshold is not None:
        set_log_threshold(_LOG_WARNINGS)
    report = {"url": server.listening_address, "version": xllamacpp.__version__, "system": xllamacpp.get_system_info()}
    with os.fdopen(order["report_fd"], "w") as pipe:
        pipe.write(json.dumps(report) + "\n")
    sys.stdin.read()
    # The server's own shutdown would wait for requests in flight, which nothing reads any more.
    os._exit(0)


def _decoded(library: Any, value: Any) -> Any:
    if isinstance(value, dict) and "enum" in value:
        return getattr(getattr(library, value["enum"]), value["member"])
    if isinstance(value, dict) and "new" in value:
        return getattr(library, value["new"])(*[_decoded(library, argument) for argument in value["arguments"]])
    if isinstance(value, dict):
        return [_decoded(library, one) for one in value["list"]]
    return set(value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
