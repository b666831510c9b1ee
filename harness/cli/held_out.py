"""Checks of a plan's predictions: a stored run of replicas, or a held-out point that is predicted, then measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from harness.errors import Interrupted, ScenarioError, TrialFailed, UsageError

if TYPE_CHECKING:
    from harness.capacity.held_out import HeldOut
    from harness.capacity.measured import Candidate
    from harness.capacity.ranking import Ranking
    from harness.run.job import Job
    from harness.scenario.plan import Assumptions


def check_asked(texts: Sequence[str]) -> tuple[dict[str, int], list[HeldOut]]:
    """Return what `--validate` names: stored runs with their replicas, and held-out points. Raises UsageError."""
    from harness.capacity.held_out import is_point, points_of

    points = [point for text in texts if is_point(text) for point in points_of(text)]
    return _replicas([text for text in texts if not is_point(text)]), points


def _replicas(texts: Sequence[str]) -> dict[str, int]:
    found = {}
    for text in texts:
        run, _, number = text.rpartition("=")
        if not run or not number.isdecimal() or not int(number):
            raise UsageError(
                f"--validate {text}: write RUN=N with the number of its replicas, a point such as rate=1.15, or all"
            )
        found[run] = int(number)
    return found


def checks(ranking: Ranking, texts: Sequence[str], *, consent: bool, wait_s: float) -> None:
    """Make the checks that `--validate` asks for, of the cheapest plan's candidate, and keep them.

    Args:
        consent: Load on another machine is allowed without a budget.
        wait_s: Longest time that a measurement waits for another run on this machine to end.
    """
    stored, points = check_asked(texts)
    if not stored and not points:
        return
    if ranking.best is None:
        raise UsageError(f"--validate {texts[0]}: there is no plan to check; measure a rate that holds")
    one, assumed = ranking.best.candidate, ranking.terms.assumed
    for run, replicas in stored.items():
        _check_stored(one, run, replicas, assumed)
    # All are predicted before the first is measured.
    for made in [_predicted(one, point, assumed, number, consent=consent) for number, point in enumerate(points)]:
        _measure(made, one, assumed, wait_s)


def _check_stored(one: Candidate, run: str, replicas: int, assumed: Assumptions) -> None:
    from harness.capacity.held_out import HeldOut
    from harness.capacity.measured import read_candidates
    from harness.capacity.track_record import keep
    from harness.capacity.validation import as_record, validate
    from harness.store.run import RUNS

    several = read_candidates(run, assumed.attainment, one.instance)
    record = as_record(validate(one, several, replicas, assumed), one, HeldOut(f"{run}={replicas}", replicas=replicas))
    keep(record | {"predicted_utc": None, "measured_utc": _now()}, RUNS, several[0].path.name)


@dataclass(frozen=True, slots=True)
class _Prediction:
    """Held-out point with the record of what is predicted there, and the job that measures it."""

    point: HeldOut
    record: dict[str, Any]
    job: Job


def _predicted(one: Candidate, point: HeldOut, assumed: Assumptions, number: int, *, consent: bool) -> _Prediction:
    from harness.capacity.held_out import scenario_of
    from harness.capacity.track_record import keep
    from harness.capacity.validation import planned_rate, predictions
    from harness.store.run import RUNS

    assert one.capacity is not None
    rate = planned_rate(one.capacity, point, assumed)
    earlier = sum(check["asked"] == point.text for check in records())
    job = _job(one, point, scenario_of(point, one, rate, earlier), number)
    job.check(consent=consent)
    record = predictions(one, point, rate, assumed) | {"predicted_utc": _now(), "measured_utc": None}
    keep(record, RUNS, job.folder.name)
    return _Prediction(point, record, job)


def _job(one: Candidate, point: HeldOut, changed: dict[str, Any], number: int) -> Job:
    """Return the job that measures a point: the candidate's configuration alone."""
    from harness.run.entries import cell_entry
    from harness.run.job import Job
    from harness.run.resume import with_secrets
    from harness.scenario.reader import restore
    from harness.schedule.cells import Cell
    from harness.schedule.matrix import check_variables, expand
    from harness.store.run import MANIFEST, new_run_path

    try:
        scenario = restore(changed, one.path / MANIFEST)
    except ScenarioError as error:
        first = error.problems[0]
        raise UsageError(f"--validate {point.text}: {first.key}: {first.message}") from None
    planned = expand(scenario)
    if point.url is None:
        planned = [cell for cell in planned if cell_entry(cell).keys == one.keys]
    elif one.keys[0]:
        planned = [cell for cell in planned if cell_entry(cell).keys[0] in ("", one.keys[0])]
    check_variables(planned)
    planned = [with_secrets(cell, None) if isinstance(cell, Cell) else cell for cell in planned]
    folder = new_run_path(f"{scenario.title}-{number + 1}")
    notes = (f"held-out point `{point.text}` of a plan from {one.run}",)
    return Job(scenario, planned, folder, stored=False, notes=notes)


def _measure(made: _Prediction, one: Candidate, assumed: Assumptions, wait_s: float) -> None:
    """Measure a point, and add to its record what was found. The prediction stays as it was.

    Raises Interrupted if the user stopped the measurement; the prediction stays, without a score.
    """
    from harness.capacity.track_record import keep
    from harness.capacity.validation import as_record, scored
    from harness.cli.commands.run import measure
    from harness.drivers.locust.options import LOOPBACK_BIND, options
    from harness.store.run import RUNS, Run

    alone: dict[str, Any] = {"expect_workers": 0, "bind": LOOPBACK_BIND, "workers_within_s": 0.0}
    locust = options(made.job.scenario, web=False, **alone)
    measure(made.job, ("html", "json"), wait_s=wait_s, quiet=False, locust=locust)
    if Run.open(made.job.folder).manifest.status == "interrupted":
        raise Interrupted(f"interrupted: `{made.point.text}` was not measured to its end and is not scored")
    other = _candidate(made, one, assumed)
    record = as_record(scored(one, other, made.point, assumed), one, made.point) | {"run": made.job.folder.name}
    keep(record | {"predicted_utc": made.record["predicted_utc"], "measured_utc": _now()}, RUNS, made.job.folder.name)


def _candidate(made: _Prediction, one: Candidate, assumed: Assumptions) -> Candidate:
    """Return what was measured at a point. Raises TrialFailed if nothing was."""
    from harness.capacity.measured import read_candidates

    try:
        (found,) = read_candidates(str(made.job.folder), assumed.attainment, one.instance)
    except (UsageError, ValueError) as error:
        raise TrialFailed(f"--validate {made.point.text}: the point could not be scored: {error}") from None
    return found


def records() -> list[dict[str, Any]]:
    """Return the checks that are kept beside the runs."""
    from harness.capacity.track_record import kept
    from harness.store.run import RUNS

    return kept(RUNS)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
