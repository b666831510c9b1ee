"""`harness quality`: scores the cells of a scenario, or of a model, an engine and levels, without any load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import check_formats, parse_wait
from harness.cli.report import show
from harness.cli.run import measure
from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.scenario.model import Scenario
    from harness.schedule.cells import Cell, Skip

_UNUSED_LOAD = {"kind": "single_user", "requests": 1}


def quality(
    scenario: Annotated[Path | None, typer.Argument(help="A scenario file.", show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Instead of a scenario: the model.")] = None,
    engine: Annotated[str, typer.Option(help="With --model: the engine, or several with commas.")] = "llama-server",
    levels: Annotated[str | None, typer.Option(help="With --model: the levels, such as q8_0,q4_0.")] = None,
    reference: Annotated[str | None, typer.Option(help="A level, or engine/level. Default: full precision.")] = None,
    text: Annotated[Path | None, typer.Option(help="The text to score. Default: the shipped one.")] = None,
    tokens: Annotated[int | None, typer.Option(help="How many tokens of it, at most. Default: 32768.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/<time>-<name>.")] = None,
    sets: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the scenario.")] = [],  # noqa: B006
    only: Annotated[str | None, typer.Option(metavar="KEY=VALUE,...", help="Only these cells.")] = None,
    formats: Annotated[list[str], typer.Option("--format", metavar="NAME", help="Reports to write.")] = [],  # noqa: B006
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing while running.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")] = False,
    wait: Annotated[str, typer.Option(help="Wait this long for another run on this machine to end.")] = "0s",
) -> None:
    """Compare levels with a reference: divergence, agreement, perplexity; no load is sent."""
    from harness.run.job import parse_only
    from harness.schedule.matrix import check_runnable, expand
    from harness.store.run import new_run_path

    given = {"reference": reference, "text": None if text is None else str(text.absolute()), "tokens": tokens}
    asked = {key: value for key, value in given.items() if value is not None}
    if (scenario is None) == (model is None):
        raise UsageError("name either a scenario file or a --model to be scored")
    if text is not None and not text.is_file():
        raise UsageError(f"--text names {text}, which is not a file; leave it out to score the shipped text")
    if scenario is None:
        wanted = of_model(str(model), engine.split(","), levels.split(",") if levels else [], asked)
    else:
        wanted = of_file(scenario, sets, asked)
    planned = without_loads(expand(wanted, only=parse_only(only)))
    check_runnable(planned)
    folder, kinds = out or new_run_path(wanted.title), check_formats(formats)
    report = measure(wanted, planned, folder, kinds, wait_s=parse_wait(wait), quiet=quiet, locust={})
    show(report, as_json=as_json, quiet=quiet)
    raise typer.Exit(report.exit_code)


def of_model(model: str, engines: Sequence[str], levels: Sequence[str], asked: Mapping[str, Any]) -> Scenario:
    """A scenario of these cells. Raises ScenarioError if it makes no sense."""
    from harness.scenario.reader import restore

    blocks = [{"engine": name, **({"quantization": list(levels)} if levels else {})} for name in engines]
    tree = {"name": "quality", "model": model, "engines": blocks, "load": [_UNUSED_LOAD], "quality": dict(asked)}
    return restore(tree, Path("quality.yaml"))


def of_file(path: Path, sets: Sequence[str], asked: Mapping[str, Any]) -> Scenario:
    """The scenario in a file, with what was asked on the command line over its `quality`."""
    from harness.scenario.quality import Quality
    from harness.scenario.reader import load

    more = [f"quality.{key}={value}" for key, value in asked.items()]
    wanted = load(path, sets=[*sets, *more])
    return wanted if wanted.quality is not None else wanted.model_copy(update={"quality": Quality()})


def without_loads(planned: Sequence[Cell | Skip]) -> list[Cell | Skip]:
    """The same cells with nothing to be driven; those of later repetitions are left out, their text is the same."""
    from harness.schedule.cells import Cell

    first = min(one.repetition for one in planned)
    return [replace(one, trials=()) if isinstance(one, Cell) else one for one in planned if one.repetition == first]
