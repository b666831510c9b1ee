"""What a process needs to send a share of a trial's load, as JSON, and the plan made anew from it.

Processes that share a plan do not send it to each other: each builds it from the scenario and checks the hash before
any connection is made. Of header values it has those that the scenario may store, and none that come from variables.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from engines.base import Endpoint, EngineError, ModelReference
from engines.models.source import resolve
from engines.models.tokenizer import Tokenizer, tokenizer
from harness.drivers.base import DriveSettings
from harness.drivers.offer import Offer
from harness.errors import TrialFailed
from harness.matrix import Cell, cell_at
from harness.records import Record, Status
from harness.scenario import as_checked
from harness.timeline import not_sent
from harness.workload import Schedule, Shard, build


@dataclass(frozen=True, slots=True)
class PartSpec:
    """A trial for those who send a share of it; JSON-able by `dataclasses.asdict`.

    scenario: as resolved.   cell, trial: indices.   settings: a DriveSettings.   salt: of the cell's prompts.
    target: an Endpoint, without headers.   refusal: of the cell, whose server refuses temperature 0.
    """

    scenario: Mapping[str, Any]
    cell: int
    trial: int
    plan_hash: str
    settings: Mapping[str, Any]
    salt: int = 0
    target: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None

    @classmethod
    def of(
        cls,
        scenario: Mapping[str, Any],
        cell: int,
        trial: int,
        plan_hash: str,
        settings: DriveSettings,
        to: Endpoint,
        salt: int = 0,
        refusal: str | None = None,
    ) -> PartSpec:
        """From what the process has that started the engine."""
        target = {name: value for name, value in asdict(to).items() if name != "headers"}
        return cls(scenario, cell, trial, plan_hash, asdict(settings), salt, target, refusal)

    @property
    def url(self) -> str:
        """The server's address."""
        return str(self.target["url"])

    def endpoint(self, headers: Mapping[str, str]) -> Endpoint:
        """Where to send, with the headers of every request."""
        return Endpoint(**{**self.target, "headers": headers})

    def drive_settings(self) -> DriveSettings:
        """How requests are treated."""
        return DriveSettings(**self.settings)

    def own_headers(self, env: Mapping[str, str]) -> dict[str, str]:
        """The headers of every request, their values from an environment.

        Raises TrialFailed, one sentence, where a variable that the scenario names is missing in it.
        """
        spec = cell_of(self, env).spec
        plain = {str(name): str(value) for name, value in dict(spec.options.get("headers") or {}).items()}
        key = {"Authorization": f"Bearer {spec.api_key}"} if spec.api_key else {}
        return {**plain, **spec.headers, **key}


def cell_of(part: PartSpec, env: Mapping[str, str] | None = None) -> Cell:
    """The cell, from the scenario. Raises TrialFailed with the reason where it cannot be run from here."""
    cell = cell_at(as_checked(part.scenario), part.cell, env)
    if not isinstance(cell, Cell):
        raise TrialFailed("this scenario has no such cell here" if cell is None else cell.reason)
    return cell if part.refusal is None else cell.refused(part.refusal)


def rebuild(part: PartSpec, env: Mapping[str, str] | None = None) -> Schedule:
    """The plan of the trial.

    Raises TrialFailed, one sentence, if it is not the one that was meant, or cannot be made here.
    """
    cell = cell_of(part, env)
    plan = cell.trials[part.trial]
    try:
        words = tokenizer_of(cell.spec.model)
    except EngineError as error:
        raise TrialFailed(f"the plan cannot be made here: {error}") from error
    schedule = build(plan.load, plan.workload, plan.seed, classes=plan.classes, tokenizer=words, salt=part.salt)
    if schedule.plan_hash != part.plan_hash:
        raise TrialFailed(
            f"the plan made here ({schedule.plan_hash[:12]}) is not the one to be sent ({part.plan_hash[:12]}): "
            "install the same version of harness here, and give it the same files and model"
        )
    return schedule


@functools.cache  # a process has one cell, and a hub is not to be asked again between its trials
def tokenizer_of(model: ModelReference | None) -> Tokenizer | None:
    """The tokenizer of the cell's model, where it can be had without the engine."""
    return None if model is None else tokenizer(resolve(model))


def lost_rows(
    schedule: Schedule, shard: Shard, seen: Collection[int] | Sequence[int], t0_ns: int, died_ns: int
) -> Iterator[Record]:
    """Records of what a process that died had not told of, in an open loop: `unfinished` where it had fallen due by
    then, `not_sent` where not. What a closed loop's users would have sent next, nobody knows.

    seen: requests whose records have come in.   t0_ns, died_ns: absolute, on one clock.
    """
    known = set(seen)
    offer = Offer(schedule, shard)
    offer.begin(t0_ns)
    for due in offer.close():
        if due.row.request in known:
            continue
        record = not_sent(due.row, due.phase, due.due_ns - t0_ns, schedule.loop)
        record.worker = shard.index
        record.error = "its load worker died"
        if due.due_ns <= died_ns:  # nobody saw more of it than until then
            record = replace(record, status=Status.UNFINISHED, done_ns=died_ns - t0_ns)
        yield record
