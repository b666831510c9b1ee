"""What a plan will use before it runs: requests, tokens, time; and whether the budget allows it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.http.addresses import is_loopback
from harness.errors import UsageError
from harness.scenario.base import listed
from harness.scenario.lengths import FixedLength, Length
from harness.scenario.loads import Burst, Load, OpenOrClosed, Ramp, Sessions, SingleUser, Steps, Trace
from harness.scenario.model import Budget, Scenario
from harness.scenario.workload import Workload
from harness.schedule.cells import Cell, Skip, TrialPlan

if TYPE_CHECKING:
    from harness.scenario.traces import Trace as Rows


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is known to lie between two bounds; high None: no bound is known."""

    low: float
    high: float | None

    def __add__(self, other: Range) -> Range:
        high = None if self.high is None or other.high is None else self.high + other.high
        return Range(self.low + other.low, high)

    def times(self, factor: float) -> Range:
        """Both bounds multiplied."""
        return Range(self.low * factor, None if self.high is None else self.high * factor)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a plan will use.

    requests: expected number, warm-up included; where arrivals are random this is their mean; `high` with those that
    keep the load up until the measured ones have ended.   tokens: prompt and output together, at their mean lengths
    (`high` None for prompts from a file).   time_s: without starting engines.
    """

    cells: int
    skipped: int
    trials: int
    requests: Range
    tokens: Range
    time_s: Range


_POINTS = 400
NOTHING = Range(0.0, 0.0)
ONE_TURN = Workload()


def estimate(planned: Iterable[Cell | Skip]) -> Estimate:
    """The sum over all cells that can run."""
    cells = list(planned)
    runnable = [cell for cell in cells if isinstance(cell, Cell)]
    plans = [plan for cell in runnable for plan in cell.trials]
    requests = [
        expected_requests(plan.load, plan.workload) + further_requests(plan.load, plan.workload) for plan in plans
    ]
    return Estimate(
        cells=len(runnable),
        skipped=len(cells) - len(runnable),
        trials=len(plans),
        requests=sum(requests, NOTHING),
        tokens=sum((_tokens(plan, one) for plan, one in zip(plans, requests, strict=True)), NOTHING),
        time_s=sum((expected_time_s(plan.load, plan.workload) for plan in plans), NOTHING),
    )


def expected_requests(load: Load, workload: Workload = ONE_TURN) -> Range:
    """How many requests a load sends, those of its warm-up included."""
    if isinstance(load, Sessions):
        return _requests_of_sessions(load, workload)
    warmup = _warmup_rate(load) * load.warmup_s
    if isinstance(load, Burst) and load.spike is not None:
        return _exactly(load.spike.requests + (load.rate or 0.0) * (load.warmup_s + (load.duration_s or 0.0)))
    if _is_open(load):
        measured = load.requests if load.duration_s is None else _requests_within(load, load.duration_s)
        return _exactly((measured or 0) + warmup)
    if isinstance(load, Trace):
        return _exactly(load.sample * len(_rows(load).due_ns))
    if load.requests is not None:
        return _exactly(load.requests)
    return Range(float(_users(load)), None)


def further_requests(load: Load, workload: Workload = ONE_TURN) -> Range:
    """How many requests may follow those, so that the last measured ones meet as much load as the first: as many again
    where a number limits the load, those of a time-out where time does.
    """
    if isinstance(load, Trace) or (isinstance(load, Burst) and load.rate is None):
        return NOTHING
    if isinstance(load, Sessions):
        again = load.rate * load.timeout_s
        begun = again if load.sessions is None else min(float(load.sessions), again)
        return Range(0.0, begun * _turns(load, workload).expected_tokens)
    if not _is_open(load):
        return Range(0.0, None if load.requests is None else float(load.requests) if _users(load) > 1 else 0.0)
    again = _last_rate(load) * load.timeout_s
    return Range(0.0, again if load.requests is None else min(float(load.requests), again))


def expected_time_s(load: Load, workload: Workload = ONE_TURN) -> Range:
    """How long a load takes, from the first request due to the last answered."""
    if isinstance(load, Sessions) and load.sessions is not None:
        turns = _turns(load, workload)
        think_time = load.think_time or workload.think_time
        think_s = (turns.expected_tokens - 1) * (0.0 if think_time is None else think_time.expected_s)
        return Range(load.warmup_s + (load.sessions - 1) / load.rate + think_s, None)
    if isinstance(load, Burst) and load.spike is not None:
        offered = load.warmup_s + max(load.duration_s or 0.0, load.spike.at_s + load.spike.within_s)
        return Range(offered, offered + load.timeout_s)
    if load.duration_s is not None:
        offered = load.warmup_s + load.duration_s
        return Range(offered, offered + load.timeout_s)
    if isinstance(load, Trace):
        offered = load.time_scale * int(_rows(load).due_ns[-1]) / 1e9
        return Range(offered, offered + load.timeout_s)
    requests = load.requests or 0
    if _is_open(load):
        offered = load.warmup_s + _seconds_until(load, requests)
        return Range(offered, offered + load.timeout_s)
    rounds = math.ceil(requests / _users(load))
    think_s = _think_s(load, workload)
    return Range((rounds - 1) * think_s, rounds * (load.timeout_s + think_s))


def _requests_of_sessions(load: Sessions, workload: Workload) -> Range:
    """From first turns alone, where the window may end before the others, to all turns of all conversations."""
    turns = _turns(load, workload).expected_tokens
    if load.duration_s is None:
        return _exactly((load.sessions or 0) * turns + load.rate * load.warmup_s * turns)
    begun = load.rate * (load.warmup_s + load.duration_s)
    return Range(begun, begun * turns)


def _think_s(load: Load, workload: Workload) -> float:
    """Mean time between a user's requests; within conversations that of their turns."""
    own_s = load.think_time.expected_s if isinstance(load, SingleUser | OpenOrClosed) else 0.0
    if workload.turns is None or workload.think_time is None:
        return own_s
    first = 1 / workload.turns.expected_tokens
    return first * own_s + (1 - first) * workload.think_time.expected_s


def _turns(load: Load, workload: Workload) -> Length:
    """Turns of a conversation, in turns; one each where there are no conversations."""
    own = load.turns if isinstance(load, Sessions) else None
    return own or workload.turns or FixedLength(value=1)


def check_budget(scenario: Scenario, planned: Sequence[Cell | Skip], *, consent: bool) -> None:
    """Whether a plan may run: raises UsageError if it exceeds the scenario's budget, cannot promise to keep it, or
    needs a consent that is not given.
    """
    problems = over_budget(scenario.budget, estimate(planned))
    question = None if consent else needs_consent(scenario, planned)
    if problems or question:
        raise UsageError("; ".join([*problems, *([question] if question else [])]))


def over_budget(budget: Budget, wanted: Estimate) -> list[str]:
    """A sentence for each part of the budget that the plan exceeds or cannot promise to keep."""
    problems = []
    for name, allowed, used in (
        ("requests", budget.requests, wanted.requests),
        ("tokens", budget.tokens, wanted.tokens),
        ("seconds", budget.time_s, wanted.time_s),
    ):
        if allowed is None:
            continue
        need = f"the plan needs about {used.low:,.0f} {name}"
        if used.low > allowed:
            problems.append(f"{need}, `budget` allows {allowed:,.0f}; shorten it or raise the budget")
        elif used.high is not None and used.high > allowed and name != "seconds":
            most = f"and {used.high:,.0f} at most with the load that goes on until the measured requests have ended"
            problems.append(f"{need} {most}, `budget` allows {allowed:,.0f}; raise it or lower `timeout`")
        elif used.high is None:
            problems.append(f"`budget` allows {allowed:,.0f} {name}, but the plan has no bound; {_REMEDY[name]}")
    return problems


_REMEDY = {
    "requests": "give closed loads (`users`, `single_user`) `requests` instead of `duration`",
    "tokens": "give closed loads `requests` instead of `duration`, and `prompt_tokens` instead of `prompts`",
    "seconds": "give every load a `duration`",
}


def needs_consent(scenario: Scenario, planned: Sequence[Cell | Skip]) -> str | None:
    """Why somebody must agree before this is run: it sends load to another machine without a budget. None: nobody."""
    budget = scenario.budget
    if any(part is not None for part in (budget.requests, budget.tokens, budget.time_s)):
        return None
    cells = [cell for cell in planned if isinstance(cell, Cell) and cell.scope == "client"]
    urls = [url for cell in cells for url in listed(cell.spec.options.get("url")) if not is_loopback(url)]
    if not urls:
        return None
    targets = list(dict.fromkeys(urls))
    what = f"{', '.join(targets)} {'is' if len(targets) == 1 else 'are'} not on this machine"
    return f"{what}; add a `budget` such as `{{requests: 1000}}`, or `--yes`"


def _rows(load: Trace) -> Rows:
    from harness.scenario.traces import read_trace  # here, because it needs numpy, which `harness list` does without

    return read_trace(load.file)


def _is_open(load: Load) -> bool:
    return isinstance(load, Burst | Steps) or (isinstance(load, OpenOrClosed) and load.rate is not None)


def _mean_rate(load: Load) -> float:
    """Requests per second over whole periods; of a ramp, the rate without it."""
    if isinstance(load, Burst | Steps):
        return load.mean_rate
    return (load.rate or 0.0) if isinstance(load, OpenOrClosed) else 0.0


def _warmup_rate(load: Load) -> float:
    if isinstance(load, Steps):
        return load.steps[0].rate
    ramp, rate = _ramp(load), _mean_rate(load)
    return rate if ramp is None else ramp.ends(rate)[0]


def _last_rate(load: Load) -> float:
    """Of the load that goes on behind the window."""
    if isinstance(load, Steps):
        return load.steps[-1].rate
    ramp, rate = _ramp(load), _mean_rate(load)
    return rate if ramp is None else ramp.ends(rate)[1]


def _requests_within(load: Load, seconds: float) -> float:
    ramp, rate = _ramp(load), _mean_rate(load)
    return rate * seconds if ramp is None else ramp.requests_within(rate, seconds)


def _seconds_until(load: Load, requests: int) -> float:
    ramp, rate = _ramp(load), _mean_rate(load)
    return requests / rate if ramp is None else ramp.seconds_until(rate, requests)


def _ramp(load: Load) -> Ramp | None:
    return load.ramp if isinstance(load, OpenOrClosed) else None


def _users(load: Load) -> int:
    return (load.users if isinstance(load, SingleUser | OpenOrClosed) else None) or 1


def _exactly(number: float) -> Range:
    return Range(float(number), float(number))


def _tokens(plan: TrialPlan, requests: Range) -> Range:
    """Tokens of a trial, what conversations send again included; a prompt from a file counts nothing to the lower
    bound.
    """
    if isinstance(plan.load, Trace):
        rows = _rows(plan.load)
        return _exactly(plan.load.sample * (int(rows.prompt_tokens.sum()) + int(rows.output_tokens.sum())))
    parts = [(one.weight, one.workload or plan.workload) for one in plan.classes.values()] or [(1.0, plan.workload)]
    total = sum(weight for weight, _ in parts)
    again = _history_share(_turns(plan.load, plan.workload))
    known = sum(weight / total * (1 + again) * _tokens_per_request(workload) for weight, workload in parts)
    used = requests.times(known)
    return Range(used.low, None) if any(workload.prompts is not None for _, workload in parts) else used


def _history_share(turns: Length) -> float:
    """Earlier turns that a request carries with it, in the mean over all requests: E[n (n - 1) / 2] / E[n]."""
    counts = [turns.quantile((i + 0.5) / _POINTS) for i in range(_POINTS)]
    return sum(n * (n - 1) / 2 for n in counts) / sum(counts)


def _tokens_per_request(workload: Workload) -> float:
    prompt = 0.0 if workload.prompts is not None else workload.prompt_tokens.expected_tokens
    return prompt + workload.output_tokens.expected_tokens
