"""Takes readings from a process of its own, as the parent of a run does, switched by lines on its standard input.

`on`: ticks begin.   `off`: they end; one line says what they cost (see `harness.telemetry.sampler.Pace.told`).
Arguments: the interval in seconds, the engine's process, where to write the readings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.records import sample_schema
from harness.store.run import sample_columns
from harness.store.streams import StreamWriter
from harness.telemetry.sampler import Sampler, Ticker, one_at_a_time


def main(interval_s: float, engine_pid: int, readings: Path) -> None:
    """Until standard input ends."""
    with StreamWriter(readings, sample_schema(), sample_columns, flush_s=2.0) as writer:
        sampler = Sampler(one_at_a_time(writer.add), client_pid=None)
        sampler.watch([engine_pid], None)
        sampler.sample()  # the first reading opens files and counts no more than that
        print("ready", flush=True)
        while sys.stdin.readline() == "on\n":
            ticker = Ticker(sampler.sample, interval_s)
            ticker.start()
            sys.stdin.readline()
            failure = ticker.stop()
            if failure is not None:
                raise failure
            print(json.dumps(ticker.pace.summary()), flush=True)
        sampler.close()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
