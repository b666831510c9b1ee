"""Expected time and number of requests of a plan. The bounds that a budget is checked against are in `estimate`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engines.base import Speed
from harness.scenario.lengths import Length
from harness.scenario.loads.saturate import Saturate
from harness.scenario.model import Scenario
from harness.scenario.workload import Workload
from harness.schedule.cells import Cell, Skip, TrialPlan
from harness.schedule.speed import speed_of

RUN_S, PROCESS_S, TRIAL_S = 4.0, 3.0, 0.2  # for checks and reports, for each process of a cell, and each trial
_POINTS = 400
LONGEST_START_TO_REPEAT_S = 20.0  # a start from memory is measured after a shorter one


def run_time_s(scenario: Scenario, planned: Sequence[Cell | Skip]) -> float:
    """Return the expected time of a run, with starts, scoring and reports."""
    cells = [cell for cell in planned if isinstance(cell, Cell)]
    scored = min((cell.repetition for cell in cells), default=1) if scenario.quality is not None else 0
    return RUN_S + sum(_cell_time_s(scenario, cell, cell.repetition == scored) for cell in cells)


def _cell_time_s(scenario: Scenario, cell: Cell, scored: bool) -> float:
    speed = speed_of(cell)
    starts = len(cell.trials) if scenario.restart == "per_trial" else 1
    start_s = speed.start_s * (2 if 0 < speed.start_s < LONGEST_START_TO_REPEAT_S else 1)
    scoring_s = scenario.quality.tokens * speed.prompt_token_s if scored and scenario.quality is not None else 0.0
    trials_s = sum(TRIAL_S + trial_time_s(plan, speed) for plan in cell.trials)
    return starts * (PROCESS_S + start_s) + scoring_s + trials_s


def trial_time_s(plan: TrialPlan, speed: Speed) -> float:
    """Return the expected time of a trial, from its first request to its last reply."""
    load, request_s = plan.load, request_time_s(plan, speed)
    if (users := load.user_count) is not None:
        if load.measured_s is not None:
            return load.warmup_s + load.measured_s + request_s
        rounds_s = math.ceil((load.measured_count or 0) / users) * round_time_s(plan, speed)
        return load.warmup_s + rounds_s + request_time_s(plan, speed, users / (users + 1)) - request_s
    sending_s = load.expected_time_s(plan.workload).low
    work_s = _planned_requests(plan, speed) * request_s / speed.slots if speed.slots else 0.0
    return max(sending_s, min(work_s, sending_s + plan.timeout_s)) + request_s


def likely_requests(plan: TrialPlan, speed: Speed) -> float:
    """Return the expected number of requests, with the warm-up and the load that goes on until replies have come."""
    planned = _planned_requests(plan, speed)
    if plan.load.user_count is not None:
        return planned
    late_s = trial_time_s(plan, speed) - plan.load.expected_time_s(plan.workload).low
    most = plan.load.further_requests(plan.workload).high or 0.0
    return planned + min(most, plan.load.closing_rate * late_s)


def _planned_requests(plan: TrialPlan, speed: Speed) -> float:
    """Return the number of requests up to the end of the window; of a closed loop with a duration, by the speed."""
    load = plan.load
    if isinstance(load, Saturate):
        return _searched_requests(load, request_time_s(plan, speed), speed.slots)
    known = load.expected_requests(plan.workload).high
    if known is not None or load.user_count is None or load.measured_s is None:
        return known or 0.0
    return max(1.0, (load.warmup_s + load.measured_s) / round_time_s(plan, speed)) * load.user_count


def _searched_requests(load: Saturate, request_s: float, slots: int | None) -> float:
    """Return the requests of a search that lasts its whole time near the rate that the slots serve."""
    least = load.expected_requests().low
    if slots is None or request_s <= 0:
        return least
    return max(least, load.within_s * min(slots / request_s, load.largest_rate or math.inf))


def round_time_s(plan: TrialPlan, speed: Speed) -> float:
    """Return the time from one request of a user to the next: reply, waiting for a slot, and thinking."""
    users, request_s = plan.load.user_count or 1, request_time_s(plan, speed)
    waiting = users / min(users, speed.slots or users)
    return max(request_s + plan.load.mean_think_s(plan.workload), request_s * waiting, 1e-6)


def request_time_s(plan: TrialPlan, speed: Speed, share: float | None = None) -> float:
    """Return the mean time of a request in a slot, at most its time-out; `share`: with that quantile of lengths."""
    parts = [(one.weight, one.workload or plan.workload) for one in plan.classes.values()] or [(1.0, plan.workload)]
    again = history_share(plan.load.turns_of(plan.workload))
    total_s = sum(weight * _work_s(workload, again, speed, share) for weight, workload in parts)
    return min(total_s / sum(weight for weight, _ in parts), plan.timeout_s)


def _work_s(workload: Workload, again: float, speed: Speed, share: float | None) -> float:
    lengths = (workload.prompt_tokens, workload.output_tokens)
    prompt, output = (one.expected_tokens if share is None else one.quantile(share) for one in lengths)
    return speed.first_s + (1 + again) * prompt * speed.prompt_token_s + max(0.0, output - 1) * speed.token_s


def history_share(turns: Length | None) -> float:
    """Return the mean number of earlier turns in a request: E[n (n - 1) / 2] / E[n]."""
    if turns is None:
        return 0.0
    counts = [turns.quantile((i + 0.5) / _POINTS) for i in range(_POINTS)]
    return sum(n * (n - 1) / 2 for n in counts) / sum(counts)
