"""Measure from Python: the command in a process of its own, for which event loops and threads are no obstacle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.api.result import RunResult
from harness.errors import (
    ExitCode,
    HarnessError,
    Interrupted,
    ScenarioError,
    StorageFailed,
    TrialFailed,
    UsageError,
)
from harness.processes import module_command, own_packages_first
from harness.scenario.base import as_name
from harness.store.run import MANIFEST, new_run_path, refuse_existing

Numbers = float | Sequence[float]
_ERRORS: dict[int, type[HarnessError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.INTERRUPTED: Interrupted,
    ExitCode.TRIAL_FAILED: TrialFailed,
}


def benchmark(
    scenario: str | Path | None = None,
    *,
    url: str | None = None,
    rate: Numbers | None = None,
    users: Numbers | None = None,
    max_concurrency: Numbers | None = None,
    retries: int | None = None,
    duration: str | None = None,
    prompt_tokens: Numbers | None = None,
    output_tokens: Numbers | None = None,
    limits: Sequence[str] = (),
    set: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    yes: bool = False,
    quiet: bool = False,
) -> RunResult:
    """Run a scenario, or measure a running server by its address, as `harness run` does; return the stored run.

    Progress goes to standard error. Ctrl-C stops the run in order; a second one stops it at once. If this process is
    killed, the run stops in order.

    Args:
        scenario: File, or the name of a shipped scenario.
        url: Address of a server, instead of a scenario; rate to limits belong to it.
        max_concurrency: Most requests in flight beside a rate. Of several lengths each is a load.
        retries: How often a failed request is sent again. Default: never.
        set: Values of keys, such as {"load.0.rate": 8}.
        out: New folder for the run. Default: runs/<time>-<name>.
        yes: Allow load on a remote server without a `budget`.

    Raises RunDirectoryExists if `out` exists, UsageError for what the command refuses, TrialFailed if nothing could be
    measured, Interrupted if the user stopped it before anything was.
    """
    _check(scenario, url, set or {}, labels or {})
    named = str(scenario if url is None else url)
    name = as_name(Path(named).stem if url is None else named) or "run"
    folder = new_run_path(name) if out is None else Path(out)
    refuse_existing(folder)
    of_url: dict[str, Any] = {"rate": _listed(rate), "users": _listed(users), "duration": duration}
    of_url |= {"max-concurrency": _listed(max_concurrency), "retries": retries}
    of_url |= {"prompt-tokens": _listed(prompt_tokens), "output-tokens": _listed(output_tokens)}
    options = [*_options(of_url, limits, set or {}, labels or {}), "--out", str(folder)]
    options += [*(["--yes"] if yes else []), *(["--quiet"] if quiet else [])]
    code, said = _run(module_command("harness.api.command", "run", named, *options))
    if not (folder / MANIFEST).is_file():
        raise _ERRORS.get(code, StorageFailed)(said.removeprefix("harness: ") or f"harness ended with exit code {code}")
    return RunResult(folder)


def _check(scenario: str | Path | None, url: str | None, values: Mapping[str, Any], labels: Mapping[str, str]) -> None:
    """Raise UsageError for what is no single run. Other mistakes are the command's to tell."""
    from harness.scenario.reader import load

    if (scenario is None) == (url is None):
        raise UsageError("name either a scenario or the url of a server")
    if scenario is None:
        return
    sets = [f"{key}={_as_json(value)}" for key, value in values.items()]
    with suppress(ScenarioError):
        given = [f"{key}={value}" for key, value in labels.items()]
        if load(Path(scenario), sets=sets, labels=given).compare is not None:
            raise UsageError(f"{scenario} has `compare`, so it is a gate of two sides: use `harness run`")


def _options(
    of_url: Mapping[str, Any], limits: Sequence[str], values: Mapping[str, Any], labels: Mapping[str, str]
) -> list[str]:
    """Return the options of the command; None is not stated."""
    options = [text for name, value in of_url.items() if value is not None for text in (f"--{name}", str(value))]
    options += [text for limit in limits for text in ("--limit", limit)]
    options += [text for key, value in values.items() for text in ("--set", f"{key}={_as_json(value)}")]
    return options + [text for key, value in labels.items() for text in ("--label", f"{key}={value}")]


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=os.fspath)


def _listed(numbers: Numbers | None) -> str | None:
    """Return numbers as the command takes them."""
    if numbers is None:
        return None
    several = [numbers] if isinstance(numbers, int | float) else numbers
    return ",".join(str(one) if isinstance(one, int) else f"{one:g}" for one in several)


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command in a process group of its own; pass its lines on. Return its exit code and its last line."""
    last = ""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    environment = own_packages_first(os.environ)
    with subprocess.Popen(command, env=environment, text=True, errors="replace", process_group=0, **pipes) as process:
        assert process.stderr is not None
        while True:
            try:
                for line in process.stderr:
                    sys.stderr.write(line)
                    last = line.strip() or last
                return process.wait(), last
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
