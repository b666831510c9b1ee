"""`harness import`: store result files of other tools, so that commands find them by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import AsJson, Labels
from harness.cli.output import say
from harness.errors import HarnessError, RunUnreadable, UsageError

_FILES = "Result files of vllm bench serve, AIPerf, GuideLLM, SGLang bench_serving or llm-d's benchmark_report."


def import_(
    files: Annotated[list[Path], typer.Argument(help=_FILES, show_default=False)],
    out: Annotated[Path | None, typer.Option(help="New folder for one file. [default: runs/<time>-<name>]")] = None,
    labels: Labels = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Store result files of other tools beside the runs, for `harness compare`."""
    from harness.comparison.foreign.reading import is_result

    if out is not None and len(files) > 1:
        raise UsageError("--out is for one file; leave it out, or import the files one by one")
    for file in files:
        if not is_result(file):
            raise UsageError(f"{file}: there is no such file")
    named = _labels(labels)
    stored, unread = list[dict[str, Any]](), list[RunUnreadable]()
    for file in files:
        try:
            stored.append(_stored(file, out, named))
        except RunUnreadable as error:
            if len(files) == 1:
                raise
            say(f"harness: {error}; skipped")
            unread.append(error)
    if as_json:
        print(json.dumps(stored, indent=2))
    if unread:
        raise typer.Exit(HarnessError.exit_code)


def _stored(file: Path, out: Path | None, labels: dict[str, str]) -> dict[str, Any]:
    """Store a file and say what it is."""
    from harness.comparison.foreign.imports import import_result
    from harness.store.run import new_run_path

    folder = out or new_run_path(file.stem)
    found = import_result(file, folder, labels)
    tool = " ".join(filter(None, (found.tool, found.version)))
    rows = "with its requests" if all(load.rows for load in found.loads) else "values only"
    say(f"{file}: {tool}, {rows}, load generator not verified; stored in {folder}")
    return {"file": str(file), "folder": str(folder), "tool": found.tool, "version": found.version}


def _labels(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"--label {text}: write KEY=VALUE, such as commit=abc")
        found[name] = value
    return found
