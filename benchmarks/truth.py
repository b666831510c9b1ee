"""Runs the client against the stub server and compares what it recorded with what the server logged."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Endpoint, Request, Turn
from harness.drivers.base import DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.records import Loop, Phase, Record
from harness.schedule.requests import Row
from harness.schedule.timing import Window

NS_PER_S = 1_000_000_000
SOURCE = Path(__file__).with_name("stub.c")


@dataclass
class Plan:
    """A schedule without words: closed with `users`, or open with due times. Stands for
    `harness.schedule.requests.Schedule`.
    """

    count: int
    users: int
    tokens: int
    due_ns: Any = None
    phases: Any = None
    continues: bool = False
    measured: int | None = None
    plan_hash: str = ""
    count_tokens: Any = None
    grows: bool = False

    def __post_init__(self) -> None:
        """Derive what a schedule states."""
        self.loop = Loop.CLOSED if self.users else Loop.OPEN
        self.window = Window(0, None)
        self.starts = np.arange(self.users or self.count)
        self._request = Request("word " * 8, self.tokens)

    def row(self, i: int) -> Row:
        """The planned row."""
        first = i < self.users
        due_ns = int(self.due_ns[i]) if self.due_ns is not None else (0 if first else None)
        user = i % self.users if self.users else None
        after = i - self.users if self.users and not first else None
        return Row(i, "default", None, 0, user, Phase.MEASURE, after, 0, due_ns, 8, self.tokens)

    def turn_in_round(self, i: int) -> int:
        """One further with each row."""
        return i

    def follower(self, i: int) -> int | None:
        """The same user's next request."""
        after = i + self.users
        return after if self.users and after < self.count else None

    def wait_ns(self, i: int) -> int:
        """Nobody thinks."""
        return 0

    def is_later_turn(self, i: int) -> bool:
        """No conversations here."""
        return False

    def loop_of(self, row: Row) -> Loop:
        """One loop for all."""
        return self.loop

    def request(self, i: int, history: tuple[Turn, ...] = ()) -> Request:
        """What is asked."""
        return self._request


def build_stub(folder: Path) -> Path:
    """Compile the server."""
    program = folder / "stub"
    subprocess.run(["cc", "-O2", "-o", str(program), str(SOURCE)], check=True)
    return program


@contextmanager
def stub_server(program: Path, first_us: int, gap_us: int, tokens: int, log: Path) -> Iterator[int]:
    """The port of a fresh server; its log is written when the block ends."""
    command = [str(program), str(first_us), str(gap_us), str(tokens), str(log)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        with server.stdout:
            port = int(server.stdout.readline())
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


@dataclass
class Measured:
    """One run: records, the server's log by row (request came in, then each token), and what it cost."""

    records: list[Record]
    log_ns: Any
    report: DriveReport
    cpu_s: float
    wall_s: float
    peak_bytes: int

    def errors_ms(self) -> dict[str, float]:
        """Absolute errors against the truth, in ms.

        ttft: first token's arrival against the time it left the server (both from the same `sent`).
        itl: gaps.   server: how late the server itself took the request in, which is in the measured TTFT and true.
        """
        first, late, gap = [], [], []
        for record in self.records:
            assert record.text is not None
            assert record.chunk_ns is not None
            assert record.sent_ns is not None
            log = self.log_ns[int(record.text.split()[0])]
            seen = np.asarray(record.chunk_ns) + self.report.t0_ns
            first.append(abs(seen[0] - log[1]))
            late.append(log[0] - record.sent_ns - self.report.t0_ns)
            gap.append(np.abs(np.diff(seen) - np.diff(log[1:])))
        gaps = np.concatenate(gap)
        named = {"ttft": np.asarray(first), "itl": gaps, "server": np.asarray(late)}
        return {
            f"{name}_p{share}": float(np.percentile(values, share)) / 1e6
            for name, values in named.items()
            for share in (50, 99)
        }


def measure(
    program: Path, plan: Plan, first_us: int, gap_us: int, *, uvloop: bool = True, text: bool = True
) -> Measured:
    """Run the plan against a fresh server process."""
    log_path = program.with_name(f"log-{time.monotonic_ns()}")
    with stub_server(program, first_us, gap_us, plan.tokens, log_path) as port:
        records: list[Record] = []
        settings = DriveSettings(120 * NS_PER_S, keep_chunks=text, keep_text=text)
        target = Endpoint(f"http://127.0.0.1:{port}", "openai-completions", "stub")
        sink = records.append if text else _count_only(records)
        began_cpu_s, began_ns = time.process_time(), time.monotonic_ns()
        with asyncio.Runner(loop_factory=_loop_factory(uvloop)) as runner:
            report = runner.run(drive(plan, target, settings, sink))  # type: ignore[arg-type]
        cpu_s, wall_s = time.process_time() - began_cpu_s, (time.monotonic_ns() - began_ns) / 1e9
    log_ns = np.fromfile(log_path, dtype=np.int64).reshape(-1, plan.tokens + 1)
    os.unlink(log_path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Measured(records, log_ns, report, cpu_s, wall_s, peak)


def _loop_factory(fast: bool) -> Any:
    if not fast:
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


def _count_only(records: list[Record]) -> Any:
    """Keeps the last record alone, as a writer that streams to disk would."""

    def sink(record: Record) -> None:
        records[:] = [record]

    return sink
