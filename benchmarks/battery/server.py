"""The truth server: built on first use, started for each run."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("truth_server.cpp")
COMPILERS = ("c++", "g++", "clang++")


class NoCompiler(Exception):
    """No C++ compiler is installed."""


@dataclass(frozen=True)
class TruthServer:
    """A server that listens; its log is complete when it has ended."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]

    def await_load(self, timeout_s: float) -> bool:
        """Wait until the load has begun. False if it has not by then."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        return bool(ready) and self.process.stdout.readline() == b"began\n"


def build(folder: Path) -> Path:
    """Compile the server, unless the program in the folder is newer than its source. Raises NoCompiler."""
    program = folder / "truth_server"
    if program.exists() and program.stat().st_mtime > SOURCE.stat().st_mtime:
        return program
    compiler = next(
        (found for name in (os.environ.get("CXX"), *COMPILERS) if name and (found := shutil.which(name))), None
    )
    if compiler is None:
        raise NoCompiler(
            "No C++ compiler was found (c++, g++, clang++ or $CXX). Install one: Debian, `apt install g++`."
        )
    subprocess.run([compiler, "-std=c++17", "-O2", "-o", str(program), str(SOURCE)], check=True)
    return program


@contextmanager
def truth_server(program: Path, log: Path, settings: Mapping[str, float]) -> Iterator[TruthServer]:
    """Run a fresh server, which writes its log when the block ends."""
    command = [str(program), str(log), *(f"{name}={value:g}" for name, value in settings.items())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    try:
        assert process.stdout is not None
        with process.stdout:
            yield TruthServer(int(process.stdout.readline()), log, process)
    finally:
        process.terminate()
        process.wait(30)
