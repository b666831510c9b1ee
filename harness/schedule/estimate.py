"""Estimated requests, tokens, time and memory of a plan, and the check against the budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engines.cores import usable_cores
from engines.http.addresses import is_loopback
from harness.errors import UsageError
from harness.prices.price import asked_price_of
from harness.scenario.base import listed
from harness.scenario.loads.kinds import Trace
from harness.scenario.model import Scenario
from harness.scenario.workload import Workload
from harness.schedule.cells import Cell, Skip, TrialPlan
from harness.schedule.duration import history_share, likely_requests
from harness.schedule.speed import speed_of
from harness.telemetry.cgroup import free_memory_bytes
from harness.units import NOTHING, Range, format_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated use of a plan.

    Attributes:
        requests: Expected number, warm-up included. `high` includes those sent until the measured ones have ended.
        tokens: Prompt and output tokens at their mean lengths; `high` is None for prompts from a file.
        time_s: Time without the starts of engines.
        likely_requests: Number at the engines' expected speeds, warm-up included.
        likely_tokens: Tokens of these requests; prompts from a file count as empty.
        reads_prompts: True if prompts come from a file.
    """

    cells: int
    skipped: int
    trials: int
    requests: Range
    tokens: Range
    time_s: Range
    likely_requests: float
    likely_tokens: float
    reads_prompts: bool


BYTES_PER_REQUEST = 128  # upper bound while the plan is made; tests/harness/schedule/test_size.py measures it
BYTES_PER_USER = 2048
BYTES_PER_BYTE_OF_A_TRACE = 16


def estimate(planned: Iterable[Cell | Skip]) -> Estimate:
    """Return the sum over all cells that can run."""
    cells = list(planned)
    runnable = [cell for cell in cells if isinstance(cell, Cell)]
    plans = [plan for cell in runnable for plan in cell.trials]
    requests = [all_requests(plan) for plan in plans]
    speeds = [speed for cell in runnable for speed in [speed_of(cell)] * len(cell.trials)]
    likely = [likely_requests(plan, speed) for plan, speed in zip(plans, speeds, strict=True)]
    return Estimate(
        cells=len(runnable),
        skipped=len(cells) - len(runnable),
        trials=len(plans),
        requests=sum(requests, NOTHING),
        tokens=sum((_tokens(plan, one) for plan, one in zip(plans, requests, strict=True)), NOTHING),
        time_s=sum((plan.load.expected_time_s(plan.workload) for plan in plans), NOTHING),
        likely_requests=sum(likely),
        likely_tokens=sum(_tokens(plan, Range.exactly(one)).low for plan, one in zip(plans, likely, strict=True)),
        reads_prompts=any(workload.prompts is not None for plan in plans for workload in plan.workloads),
    )


def all_requests(plan: TrialPlan) -> Range:
    """Return the number of requests that a trial sends, including those after its window."""
    return plan.load.expected_requests(plan.workload) + plan.load.further_requests(plan.workload)


def check_budget(scenario: Scenario, planned: Sequence[Cell | Skip], *, consent: bool) -> None:
    """Raise UsageError if a plan may exceed the budget, or needs a consent that is not given."""
    question = None if consent else needs_consent(scenario, planned)
    if problems := [*over_budget(scenario, estimate(planned)), *([question] if question else [])]:
        raise UsageError("; ".join(problems))


def over_budget(scenario: Scenario, wanted: Estimate) -> list[str]:
    """Return a sentence for each part of the budget that the plan may exceed."""
    budget, problems = scenario.budget, _over_usd(scenario, wanted)
    allowances, uses = (budget.requests, budget.tokens, budget.time_s), (wanted.requests, wanted.tokens, wanted.time_s)
    for name, allowed, used in zip(_FIX, allowances, uses, strict=True):
        if allowed is None:
            continue
        need = f"the plan needs about {used.low:,.0f} {name}"
        if used.low > allowed:
            problems.append(f"{need}, `budget` allows {allowed:,.0f}; shorten it or raise the budget")
        elif used.high is not None and used.high > allowed and name != "seconds":
            most = f"and at most {used.high:,.0f} with the load that goes on until the measured requests have ended"
            problems.append(f"{need} {most}, `budget` allows {allowed:,.0f}; raise it or lower `timeout`")
        elif used.high is None:
            problems.append(f"`budget` allows {allowed:,.0f} {name}, but the plan has no upper bound; {_FIX[name]}")
    return problems


def _over_usd(scenario: Scenario, wanted: Estimate) -> list[str]:
    """Return why a plan may cost more than the budget allows. Raises UsageError if a price is unknown that is asked."""
    allowed, price = scenario.budget.usd, asked_price_of(scenario)
    if allowed is None:
        return []
    if price is None:
        return ["`budget.usd` needs the machine's price; name it, such as `instance: g5.xlarge`"]
    least = price.usd_per_hour * wanted.time_s.low / 3600
    if least > allowed:
        cost = f"the plan costs about {least:.2f} USD ({price.text})"
        return [f"{cost}, `budget` allows {allowed:.2f}; shorten it or raise the budget"]
    if wanted.time_s.high is None:
        return [f"`budget` allows {allowed:.2f} USD, but the plan has no upper bound; {_FIX['seconds']}"]
    return []


_FIX = {
    "requests": "give closed loads (`users`, `single_user`) `requests` instead of `duration`",
    "tokens": "give closed loads `requests` instead of `duration`, and `prompt_tokens` instead of `prompts`",
    "seconds": "give every load a `duration`",
}


def needs_consent(scenario: Scenario, planned: Sequence[Cell | Skip]) -> str | None:
    """Return a sentence if consent is needed, because load is sent to another machine without a budget."""
    budget = scenario.budget
    if any(part is not None for part in (budget.requests, budget.tokens, budget.time_s, budget.usd)):
        return None
    cells = [cell for cell in planned if isinstance(cell, Cell) and cell.scope == "client"]
    urls = [url for cell in cells for url in listed(cell.spec.options.get("url")) if not is_loopback(url)]
    if not urls:
        return None
    targets = dict.fromkeys(urls)
    remote = f"{', '.join(targets)} {'is' if len(targets) == 1 else 'are'} not on this machine"
    return f"{remote}; add a `budget` such as `{{requests: 1000}}`, or `--yes`"


def _tokens(plan: TrialPlan, requests: Range) -> Range:
    """Return the tokens of a trial, repeated history included; prompts from a file add 0 to the lower bound."""
    recorded = plan.load.recorded_tokens()
    if recorded is not None:
        return Range.exactly(recorded)
    parts = [(one.weight, one.workload or plan.workload) for one in plan.classes.values()] or [(1.0, plan.workload)]
    total = sum(weight for weight, _ in parts)
    again = history_share(plan.load.turns_of(plan.workload))
    known = sum(weight / total * (1 + again) * _tokens_per_request(workload) for weight, workload in parts)
    used = requests.times(known)
    return Range(used.low, None) if any(workload.prompts is not None for _, workload in parts) else used


def _tokens_per_request(workload: Workload) -> float:
    prompt = 0.0 if workload.prompts is not None else workload.prompt_tokens.expected_tokens
    return prompt + workload.output_tokens.expected_tokens


def plan_too_large(plan: TrialPlan, plans: int = 1, free_bytes: int | None = None) -> str | None:
    """Return a sentence if the memory is too small for a plan, which could stop the whole machine.

    Args:
        plans: Number of processes that make the plan.
        free_bytes: Free memory; None: that of this machine.
    """
    allowed = int((free_memory_bytes() if free_bytes is None else free_bytes) / 2 / plans)
    needed, requests, fix = _needed(plan, allowed)
    if needed <= allowed:
        return None
    share = "half of the free memory" + ("" if plans == 1 else f", shared by {plans} processes")
    limit = f"{format_bytes(allowed)} are allowed for a plan ({share})"
    return f"{requests} need about {format_bytes(needed)} of memory, and {limit}; {fix}"


def processes_of(plan: TrialPlan, *, served: bool) -> int:
    """Return the number of processes of this machine that make a plan; `served`: the engine is behind a socket."""
    if not served:
        return 1
    if plan.load.driver == "locust":
        return 2
    if plan.load.cap is not None:
        return 1
    workers = usable_cores() - 1 if plan.load.workers == "auto" else int(plan.load.workers)
    return 1 if workers <= 1 else 1 + workers


def _needed(plan: TrialPlan, allowed: int) -> tuple[float, str, str]:
    """Return the needed bytes, their cause and the fix."""
    load = plan.load
    if isinstance(load, Trace):
        size = load.file.stat().st_size if load.file.exists() else 0
        return float(size * BYTES_PER_BYTE_OF_A_TRACE), f"the requests of {load.file}", "write a part of them into it"
    if (users := load.user_count) is not None:  # Their requests are made during the trial.
        return float(users * BYTES_PER_USER), f"{users:,} users", f"write {_rounded(allowed // BYTES_PER_USER)} at most"
    most = all_requests(plan).high or 0.0
    fewer = f"lower the rate, or shorten the load, until there are {_rounded(allowed // BYTES_PER_REQUEST)} at most"
    number = f"{most:,.0f}" if most < 1e15 else f"{most:.2g}"
    return most * BYTES_PER_REQUEST, f"about {number} planned requests", fewer


def _rounded(number: int) -> str:
    """Round down to two digits, because the free memory changes."""
    return f"{number - number % 10 ** max(0, len(str(number)) - 2):,}"
