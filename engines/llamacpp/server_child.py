"""Process in which xllamacpp serves a model. Run by path; imports only the standard library and xllamacpp.

Reads one line of JSON on stdin: {"report_fd": int, "parameters": {name: value}}. A dotted name is an attribute path of
xllamacpp.CommonParams, a value {"enum": E, "member": M} is xllamacpp.E.M, {"new": C, "arguments": [...]} is
xllamacpp.C(...), {"list": [...]} is a list, and a bare list is a set. When the model is loaded and the port is open, it
writes one line of JSON to `report_fd`: {"url", "version", "system"}. It ends when stdin does, that is, with its parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
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
    _die_with_parent()
    order = json.loads(sys.stdin.readline())
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    for name, value in order["parameters"].items():
        _assign(parameters, name, _decoded(xllamacpp, value))
    server = xllamacpp.Server(parameters)
    _log_warnings_only(xllamacpp)
    report = {"url": server.listening_address, "version": xllamacpp.__version__, "system": xllamacpp.get_system_info()}
    with os.fdopen(order["report_fd"], "w") as pipe:
        pipe.write(json.dumps(report) + "\n")
    sys.stdin.read()
    # The server's own shutdown would wait for requests in flight, which nothing reads any more.
    os._exit(0)


def _assign(parameters: Any, name: str, value: Any) -> None:
    *path, last = name.split(".")
    for step in path:
        parameters = getattr(parameters, step)
    setattr(parameters, last, value)


def _decoded(library: Any, value: Any) -> Any:
    if isinstance(value, dict) and "enum" in value:
        return getattr(getattr(library, value["enum"]), value["member"])
    if isinstance(value, dict) and "new" in value:
        return getattr(library, value["new"])(*[_decoded(library, argument) for argument in value["arguments"]])
    if isinstance(value, dict):
        return [_decoded(library, one) for one in value["list"]]
    return set(value) if isinstance(value, list) else value


def _log_warnings_only(library: Any) -> None:
    """Reduce the log to warnings, for a request would add several lines. xllamacpp has no call for it."""
    set_threshold = getattr(ctypes.CDLL(library.xllamacpp.__file__), _SET_LOG_THRESHOLD, None)
    if set_threshold is not None:
        set_threshold(_LOG_WARNINGS)


def _die_with_parent() -> None:
    """End with the parent, even while the model loads and stdin is not read."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
