"""`harness quality`: score the configurations of a scenario, or of a model, an engine and levels, without any load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.commands.report import show
from harness.cli.commands.run import measure
from harness.cli.options import SCENARIO_HELP, AsJson, Only, Out, Quiet, Sets, Wait, check_formats, parse_wait
from harness.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.scenario.model import Scenario

_UNUSED_LOAD = {"kind": "single_user", "requests": 1}


def quality(
    scenario: Annotated[Path | None, typer.Argument(help=SCENARIO_HELP, show_default=False)] = None,
    model: Annotated[str | None, typer.Option(help="Model, instead of a scenario.")] = None,
    engine: Annotated[str, typer.Option(help="With --model: engines (comma-separated).")] = "llama-server",
    levels: Annotated[str | None, typer.Option(help="With --model: levels (comma-separated), e.g. q8_0,q4_0.")] = None,
    reference: Annotated[str | None, typer.Option(help="Level, or engine/level. [default: full precision]")] = None,
    text: Annotated[Path | None, typer.Option(help="Text to score. [default: the shipped text]")] = None,
    tokens: Annotated[int | None, typer.Option(help="Number of its tokens to score, at most. [default: 32768]")] = None,
    out: Out = None,
    sets: Sets = [],  # noqa: B006
    only: Only = None,
    formats: Annotated[list[str], typer.Option("--format", metavar="NAME", help="Report formats.")] = [],  # noqa: B006
    quiet: Quiet = False,
    as_json: AsJson = False,
    wait: Wait = "0s",
) -> None:
    """Compare levels with a reference: divergence, agreement, perplexity; no load is sent."""
    from harness.run.job import Job, parse_only
    from harness.schedule.cells import without_loads
    from harness.schedule.matrix import check_runnable, expand
    from harness.store.run import new_run_path

    given = {"reference": reference, "text": None if text is None else str(text.absolute()), "tokens": tokens}
    settings = {key: value for key, value in given.items() if value is not None}
    if (scenario is None) == (model is None):
        raise UsageError("name either a scenario file or a --model to be scored")
    if text is not None and not text.is_file():
        raise UsageError(f"--text names {text}, which is not a file; leave it out to score the shipped text")
    if scenario is None:
        wanted = _of_model(str(model), engine.split(","), levels.split(",") if levels else [], settings)
    else:
        wanted = _of_file(scenario, sets, settings)
    planned = without_loads(expand(wanted, only=parse_only(only)))
    check_runnable(planned)
    folder, kinds = out or new_run_path(wanted.title), check_formats(formats)
    job = Job(wanted, planned, folder, stored=False)
    report = measure(job, kinds, wait_s=parse_wait(wait), quiet=quiet, locust={})
    show(report, as_json=as_json, quiet=quiet)
    raise typer.Exit(report.exit_code)


def _of_model(model: str, engines: Sequence[str], levels: Sequence[str], settings: Mapping[str, Any]) -> Scenario:
    """Return a scenario of these configurations; raise ScenarioError if it is not valid."""
    from harness.scenario.reader import restore

    blocks = [{"engine": name, **({"quantization": list(levels)} if levels else {})} for name in engines]
    tree = {"name": "quality", "model": model, "engines": blocks, "load": [_UNUSED_LOAD], "quality": dict(settings)}
    return restore(tree, Path("quality.yaml"))


def _of_file(path: Path, sets: Sequence[str], settings: Mapping[str, Any]) -> Scenario:
    """Return the scenario in a file; settings of the command line replace those of its `quality`."""
    from harness.scenario.quality import Quality
    from harness.scenario.reader import load

    wanted = load(path, sets=[*sets, *(f"quality.{key}={value}" for key, value in settings.items())])
    return wanted if wanted.quality is not None else wanted.model_copy(update={"quality": Quality()})
