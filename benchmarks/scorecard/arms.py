"""Arms of the scorecard: which engine, whether the head is slower, and what else the machine does."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

MODEL, LEVEL = "llama-160m", "q8_0"
OPTIONS: Mapping[str, Any] = MappingProxyType({"n_parallel": 1, "n_ctx": 512, "n_threads": 1, "prefix_cache": False})
STRETCH = 1.1
"""Gaps between tokens of a slower head, in gaps of the server."""
PAIRS, BUDGET = "4..6", "80s"
LOAD = "{kind: single_user, requests: 20, warmup: 200ms}"
WORKLOAD = "{prompt_tokens: 8, output_tokens: {dist: fixed, value: 16, exact: true}}"


@dataclass(frozen=True)
class Arm:
    """Gates of one kind.

    Attributes:
        served: The http engine starts the server by a command; else the engine is the embedded server.
        stretch: Of the head; the base has 1.
        hogs: Busy loops beside the gate, one on each core in turn.
        gates: How many a whole scorecard has.
    """

    name: str
    served: bool
    stretch: float
    gates: int
    hogs: int = 0

    @property
    def slower(self) -> bool:
        """Whether the head is slower."""
        return self.stretch != 1.0

    def scenario(self, seed: int) -> str:
        """Return the scenario of the head."""
        engine: dict[str, Any] = {
            "engine": "http",
            "command": command(self.stretch),
            "request": {"cache_prompt": False},
        }
        if not self.served:
            options = {**OPTIONS, "stretch": self.stretch}
            engine = {"engine": "stretched", "quantization": LEVEL, "options": options}
        model = "" if self.served else f"model: {MODEL}\n"
        lines = f"engines: [{json.dumps(engine)}]\nworkload: {WORKLOAD}\nload: [{LOAD}]\n"
        return f"name: scorecard\nseed: {seed}\n{model}{lines}"

    def options(self) -> list[str]:
        """Return the options that make the run a gate against a base without stretch."""
        key, value = ("command", command(1.0)) if self.served else ("options.stretch", 1.0)
        base = ["--base-set", f"engines.0.{key}={json.dumps(value)}"]
        return [*base, "--alternate", "--pairs", PAIRS, "--budget", BUDGET]


def command(stretch: float) -> str:
    """Return the command of a served engine."""
    return f"{shlex.quote(sys.executable)} -m benchmarks.scorecard.served --port {{port}} --stretch {stretch:g}"


SERVED_SAME = Arm("served, no change", served=True, stretch=1.0, gates=20)
SERVED_SLOWER = Arm("served, tokens 10 % slower", served=True, stretch=STRETCH, gates=20)
EMBEDDED_SAME = Arm("embedded, no change", served=False, stretch=1.0, gates=10)
EMBEDDED_SLOWER = Arm("embedded, tokens 10 % slower", served=False, stretch=STRETCH, gates=10)
HOGS_SAME = Arm("served beside two busy loops, no change", served=True, stretch=1.0, gates=10, hogs=2)
ARMS = (SERVED_SAME, SERVED_SLOWER, EMBEDDED_SAME, EMBEDDED_SLOWER, HOGS_SAME)


@dataclass(frozen=True)
class Planned:
    """A gate of an arm. Its seed is its own."""

    arm: Arm
    number: int  # from 1

    @property
    def key(self) -> str:
        """Name for files and for the stored results."""
        words = "".join(one if one.isalnum() else " " for one in self.arm.name).split()
        return f"{'-'.join(words)}-{self.number:02}"

    @property
    def seed(self) -> int:
        """Seed of its scenario: no two gates have the same."""
        return 1000 * (ARMS.index(self.arm) + 1) + self.number


def planned(most: int | None = None, only: str = "") -> Iterator[Planned]:
    """Yield the gates in their order: the arms take turns, so that a slow drift of the machine is in all of them.

    Args:
        most: Gates of each arm at most; None for as many as it has.
        only: Text in the names of the arms.
    """
    arms = [arm for arm in ARMS if only in arm.name]
    for number in range(1, max((arm.gates for arm in arms), default=0) + 1):
        yield from (Planned(arm, number) for arm in arms if number <= min(arm.gates, most or arm.gates))
