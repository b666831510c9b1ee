"""What the machine and the server said, and the checks behind a verdict, as a reader finds them under a trial."""

from __future__ import annotations

from typing import Any

from reports import sections
from reports.data import ReportData
from reports.tables import checks, machine
from reports.tables.base import Table

MIB = 1 << 20
MEMORY: dict[str, Any] = {
    "breakdown": [
        {"part": "weights", "bytes": 3 * MIB, "source": "the engine says so"},
        {"part": "kv_cache", "bytes": MIB, "source": "the engine says so"},
    ],
    "total_bytes": 8.0 * MIB,
    "total_source": "largest reading of the resident memory",
    "tokens": 480.0,
    "reason": "nobody says what the rest is",
}
ENERGY: dict[str, Any] = {
    "j": 300.0,
    "low": 297.0,
    "high": 303.0,
    "seconds": 10.0,
    "sensor": "energy counter",
    "uncertainty_share": 0.01,
    "power_w": 30.0,
    "utilisation_share": 0.5,
    "gpus": [
        {"gpu": "gpu0", "j": 200.0, "power_w": 20.0, "utilisation_share": 0.75, "reason": None},
        {"gpu": "gpu1", "j": 100.0, "power_w": 10.0, "utilisation_share": None, "reason": "gpu1: it was lost"},
    ],
    "reason": None,
    "broken": False,
}
SERVER: dict[str, Any] = {
    "pages": [
        {"url": "http://127.0.0.1:1/metrics", "source": "server0", "kind": "vllm", "scrapes": 30, "failures": 2}
        | {"ms_per_scrape": 2.5, "ms_per_reading": 0.3, "reason": None}
    ],
    "window": {
        "running_requests": {"mean": 3.5, "max": 8.0},
        "kv_cache_share": {"mean": 0.25, "max": 0.5},
        "preemptions": 4.0,
        "prefix_hit_share": 0.125,
    },
    "ends": {},
    "notes": ["a counter fell"],
    "reason": None,
}


def texts(table: Table) -> list[list[str]]:
    """The cells as they are read."""
    return [[cell.text for cell in row] for row in table.rows]


def seen(**facts: Any) -> dict[str, str]:
    """The table of checks as a dictionary."""
    return {row[0].text: row[1].text for row in checks.checks(facts).rows}


def test_memory_is_split_by_what_it_is_for() -> None:
    """Each part with its share of what was in use at most, and why the rest is not known."""
    table = machine.memory({"memory": MEMORY})
    assert texts(table) == [
        ["weights", "the engine says so", "3.00\u202fMiB", "37.5\u202f%"],
        ["KV cache", "the engine says so", "1.00\u202fMiB", "12.5\u202f%"],
        ["peak", "largest reading of the resident memory", "8.00\u202fMiB", ""],
    ]
    assert table.notes == ["the rest is unknown: nobody says what the rest is"]


def test_memory_without_a_total_has_no_shares() -> None:
    """A share of an unknown number is unknown."""
    table = machine.memory({"memory": MEMORY | {"total_bytes": None, "total_source": None}})
    assert [row[3] for row in texts(table)] == ["—", "—"]


def test_energy_is_told_per_gpu_and_together() -> None:
    """What a GPU does not tell is a dash, with the reason beside it."""
    table = machine.energy({"energy": ENERGY})
    assert texts(table) == [
        ["gpu0", "", "200", "20.0", "75.0\u202f%"],
        ["gpu1", "gpu1: it was lost", "100", "10.0", "—"],
        ["total", "", "300", "30.0", "50.0\u202f%"],
    ]
    assert table.notes == ["energy by energy counter, within 1.00\u202f%"]


def test_what_held_a_gpu_back_is_named_the_longest_first() -> None:
    """Harmless reasons are told, and only the others counted."""
    told = {
        "gpu0": {"share": 0.25, "reasons": {"idle": 0.125, "hw_thermal": 0.25}},
        "gpu1": {"share": 0.0, "reasons": {}},
    }
    table = machine.throttling({"throttling": told})
    assert texts(table) == [
        ["gpu0", "hw thermal 25.0\u202f%, idle 12.5\u202f%", "25.0\u202f%"],
        ["gpu1", "none", "0\u202f%"],
    ]


def test_a_server_tells_its_queue_and_its_counters() -> None:
    """Gauges with mean and most, counters with their increase; what the page lacks is left out."""
    table = machine.server({"server": SERVER})
    assert texts(table) == [
        ["requests being computed", "3.50", "8"],
        ["KV cache in use", "25.0\u202f%", "50.0\u202f%"],
        ["prompt tokens found in the prefix cache", "12.5\u202f%", ""],
        ["preemptions", "4", ""],
    ]
    assert table.notes == ["a counter fell"]


def test_pages_say_how_often_they_could_not_be_read() -> None:
    """A page that failed is marked."""
    (row,) = machine.pages({"server": SERVER}).rows
    assert [cell.text for cell in row] == ["http://127.0.0.1:1/metrics", "vllm", "30", "2", "2.50"]
    assert row[3].tone == "doubtful"


def test_nothing_known_makes_no_table() -> None:
    """No rows, whatever is asked."""
    makers = (*sections.OF_TRIAL, checks.checks)
    assert not [make for make in makers if make({}).rows]


def test_each_check_says_what_was_seen() -> None:
    """Steadiness, queue, sample size, counting, books, pressure and readings, in words."""
    trends = {"ttft_ms": {"p_value": 0.5, "change": -0.25}}
    steady = {"class": "warm-up", "warmup_s": 12.0, "warming": "ttft_ms", "converged": True, "trends": trends}
    found = seen(
        steady=steady,
        window={"start_s": 5.0, "end_s": 35.0},
        queue={"states": 40.0, "rounds": None},
        sample_size={
            "ttft_ms p50": {"needed": 6, "n_eff": 92.0, "n": 100, "times_longer": 1.0, "explained": 0.05},
            "ttft_ms p99": {"needed": 299, "n_eff": 92.0, "n": 100, "times_longer": 3.25, "explained": 0.05},
        },
        tokens={
            "counted_by": {"usage": 10},
            "chunks": {"replies": 10, "median_share": 0.01, "worst_share": -0.02},
            "text": None,
            "length_fidelity": {"replies": 10, "share": 1.0},
        },
        books=[
            {"what": "output tokens", "client": 90.0, "client_most": 99.0, "server": 100.0, "source": "server0"}
            | {"difference_share": 0.01}
        ],
        telemetry={
            "sampler": {"interval_s": 0.1, "ticks": 400, "late_ticks": 1, "cpu_share": 0.01, "ms_per_tick": 0.4},
            "unread": ["no GPU can be read here"],
            "window": {"engine_cpu_cores": 1.5, "swapped_bytes": 0.0, "engine_major_faults": 3.0, "throttled_s": None},
        },
    )
    assert found == {
        "steady state": "warm-up; the first 12\u202fs of the window are still warm-up",
        "trend of ttft_ms": "-25.0% over the window, p = 0.500",
        "requests in flight": "40.0 independent states in 30\u202fs",
        "interval of ttft_ms p99": "open: effective sample size 92.0 of 100 requests (those in flight explain "
        "5.00\u202f%); both ends need 299, 3.25 times as many",
        "tokens counted by": "usage: 10 replies",
        "chunks vs. that count": "+1.00% (median), -2.00% at worst, of 10 replies",
        "length of replies": "100\u202f% of 10 replies as long as requested",
        "counts: output tokens": "load generator 90.0 to 99.0, server 100: difference +1.00% (server0)",
        "processor cores used by the engine": "1.50",
        "memory swapped on the machine": "none",
        "major page faults of the engine": "3.00",
        "readings of the machine": "400 every 0.1\u202fs, 1 late, 1.00\u202f% of a core",
        "not read": "no GPU can be read here",
    }


def test_a_check_that_was_not_made_says_why() -> None:
    """A load that changes by plan has no steady state."""
    planned = {"class": None, "reason": "the load changes by plan", "trends": {}}
    found = seen(steady=planned, queue={"reason": "the load changes by plan"})
    assert set(found.values()) == {"not checked: the load changes by plan"}


def test_every_trial_that_ran_has_its_checks(full: ReportData) -> None:
    """From real facts; of an invalid trial there are no tables that would be results."""
    for cell, trial in full.trials():
        titles = [table.title for table in sections.of_trial(full, cell, trial)]
        assert ("Checks" in titles) == bool(full.facts_of(cell.id, trial.id))
