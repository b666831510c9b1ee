"""Fourteen real nights: an embedded server of which a commit of known place is slower, from the alert to that commit.

python -m benchmarks.nights [--out FOLDER]; a folder that has some nights goes on. docs/regress.md says what it shows.

Each night builds the commit of its day, starts it and measures it. Eleven nights tell the noise. Then eight commits
arrive on one day, and one of them makes tokens slower, by the larger of LEAST and TIMES the s.d. of the nights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scorecard.play import environment
from harness.store.run import MANIFEST

QUIET, SLOW, ARRIVED, GUILTY = 11, 3, 8, 5
"""Nights before and after the change; commits of its day; and which of them it is, from 1."""
LEAST, TIMES = 0.08, 5.0
FIRST = datetime(2026, 11, 16, 2, tzinfo=UTC)
METRIC, STATISTIC = "tpot_ms", "p50"
PAIRS = "4..6"
SEED = 16
_WAIT = ("--wait", "20m", "--yes")
_WHO = {f"GIT_{role}_{what}": "nights@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
_SERVE = """#!/bin/sh
exec {python} -m benchmarks.scorecard.served --port "$1" --stretch "$(cat "$(dirname "$0")/stretch")"
"""
_BUILD = """#!/bin/sh
# A build that keeps a processor busy: load beside it would be measured with it.
set -e
cd "$(dirname "$0")"
begin=$(date +%s.%N)
mkdir -p "builds/$1"
git -C product archive "$1" | tar -x -C "builds/$1"
head -c 30000000 /dev/urandom | gzip -6 > "builds/$1/ballast"
echo "$begin $(date +%s.%N) $1" >> builds.log
"""
_SCENARIO = """name: nightly
seed: {seed}
labels: {{commit: none}}
engines:
  - engine: http
    command: {command}
    request: {{cache_prompt: false}}
repetitions: 2
workload: {{prompt_tokens: 8, output_tokens: {{dist: fixed, value: 16, exact: true}}}}
load: [{{kind: single_user, requests: 15, warmup: 300ms}}]
"""


class NightFailed(Exception):
    """A command of the nights ended otherwise than expected; one sentence."""


@dataclass(frozen=True)
class Nights:
    """Nights in a folder: the product's repository, its builds, the runs, their history and the bisection."""

    folder: Path

    @property
    def last(self) -> int:
        """Number of the last night, from 1."""
        return QUIET + SLOW

    def make(self) -> None:
        """Make what lacks: the nights, one after the other, then the bisection. Raises NightFailed."""
        self._prepare()
        for number in range(1, self.last + 1):
            self._commit_until(number)
            if not self.told(number).exists():
                self._night(number)
                print(self._line(number), flush=True)
        if not (self.folder / "bisect" / "bisection.json").exists():
            self._bisect()

    def told(self, number: int) -> Path:
        """Return the file with the alerts of a night."""
        return self.folder / f"told-{number:02}" / "alerts.json"

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of the logarithms of the nights before the change."""
        return statistics.stdev(np.log([self._value(number) for number in range(1, QUIET + 1)]))

    @property
    def slowdown(self) -> float:
        """Relative size of the change, to a thousandth. Nights are compared by their logarithms, so it is one, too."""
        return round(max(LEAST, math.expm1(TIMES * self.deviation)), 3)

    def commits(self) -> list[str]:
        """Return the commits of the product, oldest first."""
        return self._git("log", "--format=%H", "--reverse").split()

    def commit_of(self, number: int) -> str:
        """Return the commit that a night measures: one a day, but ARRIVED of them on the day of the change."""
        return self.commits()[_place_of(number)]

    @property
    def guilty(self) -> str:
        """Commit that makes tokens slower."""
        return self.commits()[QUIET - 1 + GUILTY]

    def _prepare(self) -> None:
        product = self.folder / "product"
        if not (product / ".git").exists():
            product.mkdir(parents=True, exist_ok=True)
            self._git("init", "-q", "-b", "main")
        (self.folder / "build.sh").write_text(_BUILD)
        command = f"sh {shlex.quote(str(self.folder))}/builds/{{label.commit}}/serve {{port}}"
        (self.folder / "nightly.yaml").write_text(_SCENARIO.format(command=json.dumps(command), seed=SEED))

    def _commit_until(self, number: int) -> None:
        """Make the commits up to that of a night. Those of the change need the nights before it."""
        made = len(self.commits()) if (self.folder / "product" / "serve").exists() else 0
        for place in range(made, _place_of(number) + 1):
            stretch = 1.0 if place < QUIET - 1 + GUILTY else 1 + self.slowdown
            product = self.folder / "product"
            (product / "serve").write_text(_SERVE.format(python=shlex.quote(sys.executable)))
            (product / "stretch").write_text(f"{stretch:g}\n")
            (product / "change").write_text(f"{place}\n")
            self._git("add", ".")
            self._git("commit", "-q", "-m", f"Change {place}")

    def _night(self, number: int) -> None:
        """Build, measure, keep and judge one night."""
        commit, run = self.commit_of(number), self.folder / "runs" / f"night-{number:02}"
        self._run(["sh", str(self.folder / "build.sh"), commit], {0})
        shutil.rmtree(run, ignore_errors=True)
        self._harness("run", "nightly.yaml", "--label", f"commit={commit}", "--out", str(run), "--quiet", *_WAIT)
        _stamp(run, FIRST + timedelta(days=number - 1))
        self._harness("history", "add", str(run))
        confirm = ["--confirm"] if number == self.last else []
        where = ["--html", "site", "--reports", "../runs/{run}/report.html", "--alerts", str(self.told(number).parent)]
        self._harness("regress", *where, *confirm, allowed={0, 5})

    def _bisect(self) -> None:
        good, bad = self.suspects()
        build = f"sh {shlex.quote(str(self.folder / 'build.sh'))} {{commit}}"
        number = f"{METRIC} {STATISTIC} +{50 * self.slowdown:.3g}%"
        what = ["--scenario", "nightly.yaml", "--repo", "product", "--set", "labels.commit={commit}", "--build", build]
        how = ["--fail-on", number, "--pairs", PAIRS, "--out", "bisect", *_WAIT]
        self._harness("bisect", good, bad, *what, *how, allowed={0, 6})

    def alerts(self, number: int) -> list[dict[str, Any]]:
        """Return the alerts of a night that are new."""
        return [one for one in json.loads(self.told(number).read_text())["alerts"] if one["new"]]

    def alert(self) -> dict[str, Any] | None:
        """Return the alert of the change; None if it was not told."""
        every = [one for number in range(QUIET + 1, self.last + 1) for one in self.alerts(number)]
        return next((one for one in every if one["state"] == "regressed"), None)

    def suspects(self) -> tuple[str, str]:
        """Return the commits between which the number changed. Raises NightFailed without an alert."""
        alert = self.alert()
        if alert is None:
            raise NightFailed("the change was not told, so there is nothing to bisect")
        good, bad = alert["suspects"]
        return good, bad

    def bisection(self) -> dict[str, Any]:
        """Return the result of the bisection."""
        found: dict[str, Any] = json.loads((self.folder / "bisect" / "bisection.json").read_text())
        return found

    def loads_beside_builds(self) -> list[str]:
        """Return the runs of which a trial ran while a build did: there must be none."""
        builds = [tuple(map(float, line.split()[:2])) for line in (self.folder / "builds.log").read_text().splitlines()]
        beside = []
        for manifest in sorted(self.folder.glob("**/manifest.json")):
            for begin, end in _trials(json.loads(manifest.read_text())):
                if any(begin < build_end and build_begin < end for build_begin, build_end in builds):
                    beside.append(str(manifest.parent.relative_to(self.folder)))
        return beside

    def _value(self, number: int) -> float:
        return float(self._points()[number - 1]["value"])

    def _points(self) -> list[dict[str, Any]]:
        words = ["show", METRIC, STATISTIC, "--json"]
        found: list[dict[str, Any]] = json.loads(self._harness("history", *words))["points"]
        return found

    def _line(self, number: int) -> str:
        said = "; ".join(f"{one['state']}: {one['title']}" for one in self.alerts(number)) or "nothing new"
        return f"night {number:2}  {self.commit_of(number)[:10]}  {self._value(number):6.2f} ms  {said}"

    def _git(self, *arguments: str) -> str:
        fixed = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        dates = {f"GIT_{role}_DATE": FIRST.isoformat() for role in ("AUTHOR", "COMMITTER")}
        return self._run(["git", "-C", str(self.folder / "product"), *arguments], {0}, {**_WHO, **fixed, **dates})

    def _harness(self, *arguments: str, allowed: Sequence[int] = (0,)) -> str:
        return self._run([sys.executable, "-m", "harness.cli.main", *arguments], allowed)

    def _run(self, command: Sequence[str], allowed: Sequence[int], more: Mapping[str, str] | None = None) -> str:
        """Return the output of a command, which is also kept. Raises NightFailed for another exit code."""
        log = self.folder / "nights.log"
        with log.open("a") as errors:
            errors.write(f"$ {shlex.join(command)}\n")
            errors.flush()
            env = {**environment(), **(more or {})}
            ended = subprocess.run(command, cwd=self.folder, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
            errors.write(ended.stdout)
        if ended.returncode not in allowed:
            raise NightFailed(f"`{shlex.join(command)}` ended with {ended.returncode}; see {log}")
        return ended.stdout


def _place_of(number: int) -> int:
    """Return the place of a night's commit, from 0."""
    return number - 1 if number <= QUIET else number - 2 + ARRIVED


def _stamp(run: Path, at: datetime) -> None:
    """Give a stored run the time of a night."""
    stored = json.loads((run / MANIFEST).read_text())
    (run / MANIFEST).write_text(json.dumps({**stored, "created_utc": at.isoformat()}))


def _trials(manifest: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield when each trial began and ended, in seconds since 1970."""
    for cell in manifest["cells"]:
        for trial in cell["trials"]:
            if trial["ended_ns"] is not None:
                t0_s = datetime.fromisoformat(trial["t0_utc"]).timestamp()
                begin_ns, end_ns = (trial[name] - trial["t0_ns"] for name in ("begun_ns", "ended_ns"))
                yield t0_s + begin_ns / 1e9, t0_s + end_ns / 1e9


def report(nights: Nights) -> tuple[list[str], bool]:
    """Return what was found, a line each, and whether all of it is right."""
    alert = nights.alert()
    lines = [f"s.d. of {QUIET} nights {100 * nights.deviation:.2f} %; the change is {100 * nights.slowdown:.1f} %"]
    if alert is None:
        return [*lines, "FOUND   no"], False
    told = next(number for number in range(1, nights.last + 1) if alert in nights.alerts(number))
    placed = alert["since"][:10] == f"{FIRST + timedelta(days=QUIET):%Y-%m-%d}"
    lines += [f"FOUND   in night {told}: {alert['title']}", f"PLACED  {alert['since'][:10]}, right: {_yes(placed)}"]
    lines += [f"PAIRS   of both builds: {alert['confirmed']}"]
    found = nights.bisection()
    named = [(one["version"], one["chance"]) for one in found["guilty"]]
    right = [version for version, _ in named] == [nights.guilty]
    each = ", ".join(f"{version[:10]} ({100 * (chance or 0):.1f} %)" for version, chance in named)
    lines += [
        f"COMMIT  {each} of {found['steps']}, {found['pairs']} pairs; guilty is {nights.guilty[:10]}: {_yes(right)}"
    ]
    beside = nights.loads_beside_builds()
    lines += [f"BUILDS  loads beside a build: {', '.join(beside) or 'none'}"]
    before = [one for number in range(1, QUIET + 1) for one in nights.alerts(number)]
    lines += [f"FALSE   alerts before the change: {len(before)}"]
    good = placed and right and not beside and not before and alert["confirmed"] is True
    return lines, good


def _yes(right: bool) -> str:
    return "yes" if right else "NO"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what lacks, and print what was found; 1 if something is not right."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was started ends, too
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nights", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="build/nights", help="folder; one that has some nights goes on")
    nights = Nights(Path(parser.parse_args(arguments).out).resolve())
    nights.folder.mkdir(parents=True, exist_ok=True)
    try:
        nights.make()
        lines, good = report(nights)
    except NightFailed as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(["", *lines, "", f"Runs, history, site and bisection: {nights.folder}"]))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
