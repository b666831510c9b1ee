"""`harness plan`: how many replicas of which machine hold a demand, and for how much."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import AsJson, Wait, Yes, machines_of, parse_wait
from harness.cli.output import table_console
from harness.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from harness.capacity.measured import Candidate

_RUNS = "Runs with loads at several rates and an `slo` or limits: folder, name, latest or KEY=VALUE of a label."
_DEMAND = "Requests per second, or a .csv, .parquet or .yaml file of the demand. [default: `plan` of the scenario]"
_PRICES = "YAML file with prices of machines, added to the shipped ones. [default: `plan` of the scenario]"
_INSTANCE = "Machine that the runs are of, or RUN=NAME of one. [default: `instance` of each scenario]"
_VALIDATE = (
    "Predict a point, measure it, keep the error: rate=1.15, cv=2, output=1.2, replicas=2,url=URL, all. "
    "RUN=N: a stored run against N replicas."
)
_ASSUMED = "Assumed: "
_FORMATS = ("html", "md", "json")
_EXPORTS = ("hpa",)


def _assumption(meaning: str, metavar: str | None = None) -> Any:
    return typer.Option(help=f"{_ASSUMED}{meaning}.", show_default=False, metavar=metavar)


Growth = Annotated[str | None, _assumption("growth of the demand, such as 20%", "SHARE")]
ForecastError = Annotated[str | None, _assumption("standard deviation of the peak's forecast", "SHARE")]
Headroom = Annotated[str | None, _assumption("part of a replica's rate to plan with [80%]", "SHARE")]
Imbalance = Annotated[float | None, _assumption("rate of the busiest replica / mean [1.1]")]
Survive = Annotated[str | None, _assumption("loss to survive: nothing, replica or zone [replica]", "LOSS")]
Zones = Annotated[int | None, _assumption("zones that replicas are spread over [3]")]
ScalingOption = Annotated[str | None, _assumption("replicas: fixed, auto or hours [fixed]", "KIND")]
HoursOption = Annotated[str | None, _assumption("working hours, such as 'mon-fri 09:00-18:00 Europe/Berlin'", "HOURS")]
StartUp = Annotated[str | None, _assumption("time to get and boot a machine [5m]", "TIME")]
MinDwell = Annotated[str | None, _assumption("least time that a replica is kept [10m]", "TIME")]
PricingOption = Annotated[str | None, _assumption("on_demand, spot, reserved or owned [on_demand]", "KIND")]
Interruptions = Annotated[str | None, _assumption("chance that a spot machine is lost in an hour", "SHARE")]
SpotRisk = Annotated[str | None, _assumption("accepted chance that spot machines do not suffice [0.1%]", "SHARE")]
Pools = Annotated[int | None, _assumption("pools of spot machines [2]")]
Attainment = Annotated[str | None, _assumption("share of requests that must meet the `slo` [95%]", "SHARE")]
Chance = Annotated[str | None, _assumption("chance that the peak is held [95%]", "SHARE")]
PromptTokens = Annotated[float | None, _assumption("mean prompt of the demand [as measured]")]
OutputTokens = Annotated[float | None, _assumption("mean reply of the demand [as measured]")]
ApiPrice = Annotated[str | None, _assumption("API's USD per million input/output tokens, such as 0.50/1.50", "PRICE")]
Seed = Annotated[int | None, _assumption("seed of the draws [1]")]


def plan(
    runs: Annotated[list[str], typer.Argument(help=_RUNS, show_default=False)],
    demand: Annotated[str | None, typer.Option(metavar="RATE|FILE", help=_DEMAND)] = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help=_PRICES)] = None,
    instance: Annotated[list[str], typer.Option(metavar="NAME", help=_INSTANCE)] = [],  # noqa: B006
    validate: Annotated[list[str], typer.Option(metavar="POINT|RUN=N", help=_VALIDATE)] = [],  # noqa: B006
    growth: Growth = None,
    forecast_error: ForecastError = None,
    headroom: Headroom = None,
    imbalance: Imbalance = None,
    survive: Survive = None,
    zones: Zones = None,
    scaling: ScalingOption = None,
    hours: HoursOption = None,
    start_up: StartUp = None,
    min_dwell: MinDwell = None,
    pricing: PricingOption = None,
    interruptions_per_hour: Interruptions = None,
    spot_risk: SpotRisk = None,
    pools: Pools = None,
    attainment: Attainment = None,
    chance: Chance = None,
    prompt_tokens: PromptTokens = None,
    output_tokens: OutputTokens = None,
    api_price: ApiPrice = None,
    seed: Seed = None,
    formats: Annotated[list[str], typer.Option("--format", metavar="NAME", help="Files: html, md, json.")] = [],  # noqa: B006
    exports: Annotated[list[str], typer.Option("--export", metavar="KIND:FILE", help="Manifest: hpa:FILE.")] = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="Folder for the files. [default: here]")] = None,
    opens: Annotated[bool, typer.Option("--open", help="Write plan.html and show it.")] = False,
    as_json: AsJson = False,
    yes: Yes = False,
    wait: Wait = "0s",
) -> None:
    """Plan replicas and cost for a demand, from measured rates, prices and assumptions."""
    from harness.scenario.plan import KEYS

    given = locals()
    options = {key: given[key] for key in KEYS if given.get(key) is not None}
    wanted, manifests = _wanted([*formats, *(["html"] if opens else [])]), _exports(exports)
    data = planned(runs, demand, prices, instance, options, validate, consent=yes, wait_s=parse_wait(wait))
    files = store(data, wanted, out or Path())
    _export(data, manifests)
    if opens:
        webbrowser.open(files["html"].absolute().as_uri())
    _shown(data, as_json=as_json)
    raise typer.Exit(ExitCode.HOLDS if data["plans"] else ExitCode.CANNOT_TELL)


def planned(
    runs: Sequence[str],
    demand: str | None,
    prices: Path | None,
    instances: Sequence[str],
    options: Mapping[str, Any],
    validate: Sequence[str] = (),
    *,
    consent: bool = False,
    wait_s: float = 0.0,
) -> dict[str, Any]:
    """Return the plans as plain data. Raises UsageError or ScenarioError for what cannot be planned.

    Args:
        validate: Checks of the predictions that are made first, as the command is given them.
        consent: They may load another machine without a budget.
        wait_s: Longest time that they wait for another run on this machine to end.
    """
    from harness.capacity.demand_files import read_demand
    from harness.capacity.plain import as_data
    from harness.capacity.plan import Terms
    from harness.capacity.ranking import rank
    from harness.capacity.track_record import errors
    from harness.cli.held_out import check_asked, checks, records
    from harness.prices.catalogue import read_catalogue

    check_asked(validate)
    stated = dict(_stated(runs))
    own_demand, own_prices = stated.pop("demand", None), stated.pop("prices", None)
    catalogue = read_catalogue(prices or (None if own_prices is None else Path(own_prices)))
    if demand is None and own_demand is None:
        raise UsageError("--demand is missing; write requests per second, such as `--demand 12`, or name a file")
    asked = read_demand(demand or str(own_demand), options, catalogue, stated)
    machines = machines_of(instances, runs)
    for name in machines.values():
        catalogue.find(name)
    candidates = [one for run in runs for one in _candidates(run, asked.assumed.attainment, machines)]
    ranking = rank(candidates, Terms(asked.demand, asked.assumed, catalogue, asked.hours))
    checks(ranking, validate, consent=consent, wait_s=wait_s)
    kept = records()
    return as_data(ranking, asked.given) | {"checks": kept, "planner_errors": errors(kept)}


def _stated(runs: Sequence[str]) -> Mapping[str, Any]:
    """Return the `plan` of the runs' scenarios. Raises UsageError where two state different ones."""
    from harness.store.run import Run, find_run

    each = {run: Run.open(find_run(run)).manifest.scenario.get("plan") for run in runs}
    stated = {run: section for run, section in each.items() if isinstance(section, dict)}
    first = next(iter(stated), None)
    for run, section in stated.items():
        if section != stated[first or run]:
            raise UsageError(f"the scenarios of {first} and {run} state different `plan`; plan each alone")
    return stated[first] if first is not None else {}


def _candidates(run: str, attainment: float, machines: Mapping[str, str]) -> list[Candidate]:
    from harness.capacity.measured import read_candidates

    return read_candidates(run, attainment, machines.get(run, machines.get("")))


def _wanted(formats: Sequence[str]) -> list[str]:
    names = [name for text in formats for name in text.split(",")]
    for name in names:
        if name not in _FORMATS:
            raise UsageError(f"--format {name}: known are {', '.join(_FORMATS)}")
    return list(dict.fromkeys(names))


def _exports(exports: Sequence[str]) -> list[Path]:
    files = []
    for text in exports:
        kind, _, file = text.partition(":")
        if kind not in _EXPORTS or not file:
            raise UsageError(f"--export {text}: there is no such export; write hpa:FILE")
        if not Path(file).parent.is_dir() or Path(file).is_dir():
            raise UsageError(f"--export {text}: {file} cannot be a file; name one in a folder that exists")
        files.append(Path(file))
    return files


def store(data: dict[str, Any], formats: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write the files of plans; return them by format. Raises StorageFailed if one cannot be written."""
    from harness.store.streams import storage_errors
    from reports.files import replace
    from reports.writers import plan as writers

    renderers = {"md": writers.as_markdown, "json": _as_json}
    files = {}
    for name in formats:
        files[name] = folder / f"plan.{name}"
        text = writers.as_html(data, folder) if name == "html" else renderers[name](data)
        with storage_errors(files[name]):
            folder.mkdir(parents=True, exist_ok=True)
            replace(files[name], text)
    return files


def _export(data: dict[str, Any], files: Sequence[Path]) -> None:
    from harness.store.streams import storage_errors
    from reports.files import replace
    from reports.writers.plan import as_hpa

    for file in files:
        if not data["plans"]:
            raise UsageError(f"--export hpa:{file}: there is no plan to export; measure a rate that holds")
        with storage_errors(file):
            replace(file, as_hpa(data))


def _shown(data: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(_as_json(data), end="")
        return
    from reports.writers.plan import show

    show(data, table_console())


def _as_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
