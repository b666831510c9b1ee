"""Runs of which nothing was kept, derived on all cores before they are compared.

Each process (`python -P -m harness.comparison.ahead`) reads folders from standard input and keeps beside each run what
comparisons need. It tells nothing: a later reader of the runs finds what was kept, or derives it itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines.cores import usable_cores
from harness.comparison import kept
from harness.comparison.sides import read_side
from harness.errors import HarnessError
from harness.processes import module_command, own_packages_first, stop_signals_held
from harness.store.baselines import is_kept
from harness.store.run import MANIFEST, Run, find_run

LEAST_EACH = 16
"""Runs that are worth a process: it takes about as long to start as ten small runs to derive."""
MOST_PROCESSES = 16


def lacking(names: Sequence[str]) -> list[Path]:
    """Return the runs of these names of which nothing is kept that serves.

    Whether what is kept beside a run serves is asked of one run: all of them were made by the same code, or most.
    """
    runs = [path for path in dict.fromkeys(_found(names)) if (path / MANIFEST).exists() and not is_kept(path)]
    having = [path for path in runs if (path / kept.FILE).exists()]
    return [path for path in runs if path not in {*having}] if having and _serves(having[0]) else runs


def _found(names: Sequence[str]) -> Iterator[Path]:
    for name in names:
        with contextlib.suppress(HarnessError):
            yield find_run(name)


def _serves(path: Path) -> bool:
    try:
        run = Run.open(path)
        return kept.load(run, kept.identity(run)) is not None
    except HarnessError:
        return False


def processes_for(runs: int) -> int:
    """Return how many processes so many runs are worth; 0 if they are derived sooner without any."""
    found = min(usable_cores(), MOST_PROCESSES, runs // LEAST_EACH)
    return found if found > 1 else 0


def derive_ahead(paths: Sequence[Path], processes: int) -> None:
    """Derive runs in several processes, and wait for them."""
    with contextlib.ExitStack() as started:
        each = [started.enter_context(_process(paths[first::processes])) for first in range(processes)]
        for process in each:
            process.wait()


@contextlib.contextmanager
def _process(paths: Sequence[Path]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process for some runs; it is ended if the block is left early."""
    with tempfile.TemporaryFile() as names, contextlib.ExitStack() as ended:
        names.write(b"".join(os.fsencode(path.absolute()) + b"\0" for path in paths))
        names.seek(0)
        with stop_signals_held():
            process = subprocess.Popen(
                module_command("harness.comparison.ahead"),
                stdin=names,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=own_packages_first(os.environ),
                start_new_session=True,
            )
            ended.callback(process.wait)
            ended.callback(process.kill)
        yield process


def main() -> None:
    """Keep what comparisons need of each run on standard input; one that cannot be read is left to the reader."""
    for name in sys.stdin.buffer.read().split(b"\0")[:-1]:
        path = Path(os.fsdecode(name))
        with contextlib.suppress(HarnessError):
            read_side(path.name, path, pictures=False)


if __name__ == "__main__":
    main()
