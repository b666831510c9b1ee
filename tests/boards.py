"""Boards of simulated nights, as the site and the alerts take them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from reports.board import Alert, Board, Change, Event, Key, Point, Series

FIRST = datetime(2026, 8, 20, 2, 0, tzinfo=UTC)
COMMITS = "0123456789abcdef"


def night(number: int) -> str:
    """When a night's run began."""
    return (FIRST + timedelta(days=number)).isoformat()


def commit(number: int) -> str:
    """The version of a night."""
    dice = random.Random(number)
    return "".join(dice.choice(COMMITS) for _ in range(40))


def key(metric: str = "ttft_ms", statistic: str = "p95", **others: str) -> Key:
    """The key of a series of one model on one engine."""
    parts = dict.fromkeys(("class_name", "tool"), "") | {
        "scenario": "nightly",
        "load": "chat",
        "model": "llama-3-8b",
        "engine": "llamacpp-server",
        "level": "q4_k_m",
        "variant": "head",
        "machine": "9c1f0e6a7d2b4c55",
    }
    made: Any = {**parts, "metric": metric, "statistic": statistic, **others}
    return made


def point(number: int, value: float | None, *, run: bool = True, doubt: str = "") -> Point:
    """A night with an interval of 3 %."""
    ends = (None, None) if value is None else (round(value * 0.985, 4), round(value * 1.015, 4))
    name = f"{FIRST + timedelta(days=number):%Y%m%dT%H%M%SZ}-nightly" if run else ""
    return Point(at=night(number), label=commit(number), value=value, low=ends[0], high=ends[1], run=name, doubt=doubt)


def change(number: int, ratio: float, state: str, *, confirmed: bool | None = None) -> Change:
    """A change of the level from a night on."""
    low, high = ratio - 0.012, ratio + 0.012
    return Change(at=night(number), change=ratio, low=low, high=high, p=2e-7, state=state, confirmed=confirmed)


def series(
    name: str, points: Sequence[Point], state: str = "ok", *, of: Key | None = None, unit: str = "ms", **others: Any
) -> Series:
    """A series with its state."""
    made: Any = {
        "id": name,
        "name": name,
        "key": of or key(),
        "unit": unit,
        "better": "lower",
        "state": state,
        "why": "",
        "points": points,
        "changes": [],
        "events": [],
        "report": "../runs/{run}/report.html",
    }
    return made | others


def alert(name: str, state: str, since: int, of: Sequence[str], **others: Any) -> Alert:
    """An alert of some series."""
    made: Any = {
        "id": name,
        "state": state,
        "title": name,
        "since": night(since),
        "change": None,
        "low": None,
        "high": None,
        "series": of,
        "suspects": [],
        "cause": "",
        "confirmed": None,
        "told": True,
    }
    return made | others


def _values(seed: int, level: Callable[[int], float], spread: float = 0.01, nights: int = 100) -> list[float]:
    dice = random.Random(seed)
    return [round(level(number) * dice.gauss(1, spread), 3) for number in range(nights)]


def _shifts() -> Series:
    """Three shifts: slower, quicker, and slower since four nights; a spike in between."""
    values = _values(
        1, lambda n: 212 * (1.08 if 30 <= n < 58 else 1.0) * (0.95 if n >= 58 else 1.0) * (1.12 if n >= 96 else 1)
    )
    values[44] = 700.0
    changes = [
        change(30, 1.08, "regressed", confirmed=True),
        change(58, 0.879, "improved"),
        change(96, 1.12, "regressed", confirmed=True),
    ]
    events = [Event(at=night(33), kind="note", text="Known: `--cache-reuse` is off since #812, on purpose.")]
    points = [point(n, value, doubt="slow client" if n == 44 else "") for n, value in enumerate(values)]
    why = "TTFT p95 is 12 % above the level of the 38 nights before."
    return series("chat ttft_ms p95", points, "regressed", changes=changes, events=events, why=why)


def _driver() -> Series:
    """A new driver in the night 70, with which everything is slower."""
    values = _values(2, lambda n: 31.0 * (1.05 if n >= 70 else 1.0))
    events = [Event(at=night(70), kind="machine", text="driver: 570.86 → 580.12")]
    of = key("tpot_ms", "p50")
    points = [point(n, value) for n, value in enumerate(values)]
    return series("chat tpot_ms p50", points, "machine changed", of=of, events=events)


def _noisy() -> Series:
    """A week in which nights vary by a fifth."""
    dice = random.Random(3)
    values = [v * (dice.uniform(0.8, 1.2) if 60 <= n < 67 else 1.0) for n, v in enumerate(_values(3, lambda _: 1840.0))]
    of = key("output_tokens_per_s", "value")
    points = [point(n, round(value, 1)) for n, value in enumerate(values)]
    return series("chat output_tokens_per_s", points, "noisy", of=of, unit="tokens/s", better="higher")


def _missing() -> Series:
    """A week without nights, and none for the last three."""
    values = _values(4, lambda _: 2.31e9, spread=0.001)
    of = key("memory_peak_bytes", "value")
    points = [point(n, value) for n, value in enumerate(values) if not 40 <= n < 47 and n < 97]
    return series("memory_peak_bytes", points, "no data", of=of, unit="bytes", why="The last 3 nights are missing.")


def _creep() -> Series:
    """Half a per cent more each week, told once against the last release."""
    values = _values(5, lambda n: 640 * 1.005 ** (n / 7), spread=0.006)
    events = [Event(at=night(14), kind="release", text="b4520")]
    changes = [{**change(84, 1.061, "regressed"), "creep": True}]
    of = key("e2e_ms", "p50", load="summaries")
    points = [point(n, value) for n, value in enumerate(values)]
    return series("summaries e2e_ms p50", points, "regressed", of=of, changes=changes, events=events)


def story() -> Board:
    """A hundred nights: three shifts, a driver change, a noisy week, a missing week, a creeping loss."""
    quiet = [
        series(
            f"{load} {metric}",
            [point(n, v) for n, v in enumerate(_values(seed, lambda _: 100.0))],
            of=key(metric, "p50", load=load),
        )
        for seed, (load, metric) in enumerate([("chat", "ttft_ms"), ("chat", "e2e_ms"), ("summaries", "ttft_ms")], 10)
    ]
    told = [_shifts(), _driver(), _noisy(), _missing(), _creep()]
    alerts = [
        alert(
            "TTFT p95 of chat is 12 % slower",
            "regressed",
            96,
            ["chat ttft_ms p95"],
            change=1.12,
            low=1.108,
            high=1.132,
            suspects=[commit(95), commit(96)],
            confirmed=True,
            told=False,
        ),
        alert("No data of memory for 3 nights", "no data", 97, ["memory_peak_bytes"], told=False),
        alert(
            "The machine changed",
            "machine changed",
            70,
            ["chat tpot_ms p50"],
            cause="The control moved as well: driver 570.86 → 580.12.",
        ),
        alert(
            "E2E p50 of summaries creeps",
            "regressed",
            84,
            ["summaries e2e_ms p50"],
            change=1.061,
            low=1.049,
            high=1.073,
            shape="creep",
        ),
        alert(
            "TTFT p95 of chat is 12 % quicker",
            "improved",
            58,
            ["chat ttft_ms p95"],
            change=0.879,
            low=0.867,
            high=0.891,
        ),
    ]
    return Board(made=night(100), series=[*told, *quiet], alerts=alerts, title="llama.cpp nightly")


def many(number: int = 500, nights: int = 365) -> Board:
    """As many series as a large project has."""
    found, dice = [], random.Random(1)
    metrics = [("ttft_ms", "p50"), ("ttft_ms", "p95"), ("tpot_ms", "p50"), ("e2e_ms", "p50"), ("e2e_ms", "p95")]
    for place in range(number):
        metric, statistic = metrics[place % len(metrics)]
        level = f"q{2 + place // len(metrics) % 7}_k_m"
        of = key(metric, statistic, load=f"load-{place // 35}", level=level)
        level_at = dice.randrange(nights) if place % 4 == 0 else nights
        base = dice.uniform(20, 3000)
        values = [round(base * (1.1 if n >= level_at else 1) * dice.gauss(1, 0.015), 2) for n in range(nights)]
        changes = [change(level_at, 1.1, "regressed")] if level_at < nights else []
        state = "regressed" if level_at > nights - 20 and changes else "ok"
        found.append(
            series(f"series {place}", [point(n, v) for n, v in enumerate(values)], state, of=of, changes=changes)
        )
    return Board(made=night(nights), series=found, alerts=[])
