"""The planner against real servers: `python -m benchmarks.validation --out build/validation`, about half an hour.

Two servers of known slots and service times stand behind a real nginx, with round robin and with `least_conn`. One is
measured alone, by a search and at five rates. Then `harness plan --validate` predicts held-out points of one and of
both, measures them, and keeps the errors. docs/capacity.md has the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.command import harness
from benchmarks.slotted_server import TOKENS, Service, slotted_server, true_rate
from harness.capacity.track_record import kept
from harness.prices.catalogue import read_catalogue
from harness.scenario.plan import Pricing
from tests.balancer import PROGRAM, nginx

SERVICE = Service()
SLO_S = 0.4
SHARES = (0.4, 0.55, 0.7, 0.8, 0.9)
"""Tested rates of one server, as shares of the rate that keeps every slot busy."""
BALANCERS = {"round robin": "keepalive 64;", "least_conn": "least_conn; keepalive 64;"}
WAIT = ("--wait", "60m")
MACHINE, IMBALANCE = "g5.xlarge", 1.1
HEADS = {
    "rates": ("of", "replicas", "largest rate predicted", "measured", "error", "$ per 1,000 predicted", "measured"),
    "points": (
        *("point", "replicas", "rate", "TTFT p95 predicted, ms", "measured", "error"),
        *("tokens/s predicted", "measured", "error"),
    ),
}


def scenario(folder: Path, url: str, seconds: float) -> Path:
    """The scenario of one server."""
    path = folder / "one.yaml"
    rates = [round(share * SERVICE.most_rps, 2) for share in SHARES]
    content = {
        "name": "one",
        "instance": MACHINE,
        "engines": [{"engine": "http", "url": url, "dialect": "openai-completions"}],
        "workload": {"prompt_tokens": 16, "output_tokens": {"dist": "fixed", "value": TOKENS, "exact": True}},
        "load": [{"kind": "sustained", "rate": rates, "warmup": "5s", "duration": f"{seconds:g}s", "timeout": "60s"}],
        "slo": {"ttft": f"{1000 * SLO_S:g}ms"},
    }
    path.write_text(json.dumps(content))
    return path


def measure(folder: Path, seconds: float, search_s: float) -> None:
    """Measure one server, and both behind each balancer; the checks are kept in the folder."""
    plan = ("--demand", "100", "--imbalance", f"{IMBALANCE:g}", *WAIT)
    with ExitStack() as stack:
        ports = [stack.enter_context(slotted_server(SERVICE, seed)) for seed in (1, 2)]
        path = str(scenario(folder, f"http://127.0.0.1:{ports[0]}", seconds))
        harness(folder, "run", path, "--quiet", "--format", "json", "--out", "runs/rates", *WAIT)
        harness(
            folder, "saturate", path, "--for", f"{search_s:g}s", "--quiet", "--format", "json", "--out", "runs/search"
        )
        harness(folder, "plan", "rates", *plan, "--validate", "all")
        for name, lines in BALANCERS.items():
            front = stack.enter_context(nginx(folder, *ports, upstream=lines))
            both = f"replicas=2,url={front.url.replace('localhost', '127.0.0.1')}"
            for rate in ("0.85", "1", "1.3"):
                _validate(folder, name, "rates", *plan, "--validate", f"{both},rate={rate}")
            _validate(folder, name, "search", *plan, "--validate", f"{both},rate=search,for={search_s:g}s")


def _validate(folder: Path, balancer: str, *arguments: str) -> None:
    """Check a plan, and note behind which balancer that was."""
    before = {one["run"] for one in kept(folder / "runs")}
    harness(folder, "plan", *arguments)
    new = [one["run"] for one in kept(folder / "runs") if one["run"] not in before]
    with (folder / "balancers.jsonl").open("a") as file:
        file.writelines(json.dumps({"run": run, "balancer": balancer}) + "\n" for run in new)


def tables(folder: Path) -> Iterator[str]:
    """What was predicted and measured, as Markdown."""
    notes = folder / "balancers.jsonl"
    behind = {one["run"]: one["balancer"] for one in map(json.loads, notes.read_text().splitlines())}
    records = kept(folder / "runs")
    searches = [one for one in records if not one["rates"]]
    for name, lines in (("rates", _rates(folder, searches, behind)), ("points", _points(records, behind))):
        yield f"| {' | '.join(HEADS[name])} |"
        yield f"|---{'|--:' * (len(HEADS[name]) - 1)}|"
        yield from lines
        yield ""


def _rates(folder: Path, searches: Sequence[dict[str, Any]], behind: dict[str, str]) -> Iterator[str]:
    hourly = read_catalogue().hourly(MACHINE, Pricing.ON_DEMAND)
    for one in searches:
        measured = json.loads((folder / "runs" / one["run"] / "summary.json").read_text())["trials"][0]["facts"][
            "saturation"
        ]
        predicted, found = one["predicted_rps"], measured["value_rps"]
        ends = f"{found:.3g} ({measured['lower_rps']:.3g} to {measured['upper_rps']:.3g})"
        costs = [one["replicas"] * hourly / 3.6 / rate for rate in (predicted, found)]
        cells = [
            f"search, {behind[one['run']]}",
            f"{one['replicas']}",
            f"{predicted:.3g}",
            ends,
            f"{predicted / found - 1:+.1%}",
            *(f"${cost:.4f}" for cost in costs),
        ]
        yield f"| {' | '.join(cells)} |"


def _points(records: Sequence[dict[str, Any]], behind: dict[str, str]) -> Iterator[str]:
    for one in records:
        for rate in one["rates"]:
            point = ",".join(part for part in one["asked"].split(",") if not part.startswith(("url=", "replicas=")))
            cells = [f"{point}{', ' + behind[one['run']] if one['run'] in behind else ''}", f"{one['replicas']}"]
            cells += [f"{rate['rate_rps']:.3g}"]
            for name in ("ttft_p95_ms", "output_tokens_per_s"):
                predicted, measured = rate[name]["predicted"], rate[name]["measured"]
                cells += ["-" if value is None else f"{value:.3g}" for value in (predicted, measured)]
                cells += [f"{predicted / measured - 1:+.1%}" if rate[name]["log_error"] is not None else "-"]
            yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/validation"))
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each measured rate")
    parser.add_argument("--search", type=float, default=240.0, help="length of each search, in seconds")
    parser.add_argument("--tables", action="store_true", help="print the tables of what was measured before")
    asked = parser.parse_args()
    if PROGRAM is None:
        sys.exit("nginx is missing; install nginx-light")
    if not asked.tables:
        if asked.out.exists():
            sys.exit(f"{asked.out} exists; name another folder with --out, or print its tables with --tables")
        asked.out.mkdir(parents=True)
        measure(asked.out.absolute(), asked.seconds, asked.search)
    print(f"One server's true rate, by long runs in virtual time: {true_rate(SERVICE, SLO_S):.2f} requests/s.\n")
    for line in tables(asked.out.absolute()):
        print(line)


if __name__ == "__main__":
    main()
