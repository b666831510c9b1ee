"""Starts and ends the server of known truth (`known_server`) as a process of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
from types import TracebackType

from engines.base import Endpoint
from harness.drivers.calibration.server import model_name
from harness.errors import TrialFailed
from harness.processes import module_command, own_packages_first

START_LIMIT_S = 15.0
END_LIMIT_S = 5.0


class KnownServer:
    """The running server; `with KnownServer() as server:`, or `start()` and `stop()`.

    pid, port: of the process, once started.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int | None:
        """The process, None when it is not running."""
        return None if self._process is None else self._process.pid

    def endpoint(self, first_ms: float, gap_ms: float) -> Endpoint:
        """Where replies come with this schedule."""
        return Endpoint(f"http://127.0.0.1:{self.port}", "openai-completions", model_name(first_ms, gap_ms))

    def start(self) -> None:
        """Start it; it listens when this returns. Raises TrialFailed if it does not."""
        self._process = subprocess.Popen(
            module_command("harness.drivers.calibration.server"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=own_packages_first(os.environ),
            start_new_session=True,  # Ctrl-C is for the run; it ends with its standard input
        )
        line = _first_line(self._process)
        try:
            self.port = int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            self.stop()
            raise TrialFailed(
                f"the server of known truth did not start: it said {line.decode(errors='replace')!r}"
            ) from None

    def stop(self) -> None:
        """End it. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> KnownServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """What it says within the limit, up to the first end of a line."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_LIMIT_S)
    return process.stdout.readline() if ready else b""
