"""Result files of other tools: found out by their content, and read. Damaged, foreign and future ones are named."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from os.path import isfile
from pathlib import Path
from typing import Any

from harness.comparison.foreign import aiperf, benchmark_report, guidellm, sglang, vllm_bench
from harness.comparison.foreign.base import ForeignRun, ForeignUnreadable
from harness.errors import RunUnreadable
from harness.store.run import IMPORTED

KNOWN = (vllm_bench.TOOL, aiperf.TOOL, guidellm.TOOL, sglang.TOOL, benchmark_report.TOOL)
_READERS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], ForeignRun]], ...] = (
    (guidellm.fits, guidellm.read),
    (aiperf.fits, aiperf.read),
    (sglang.fits, sglang.read),
    (vllm_bench.fits, vllm_bench.read),
    (benchmark_report.fits, benchmark_report.read),
)
_YAML = (".yaml", ".yml")
_AIPERF_SUMMARY = "profile_export_aiperf.json"


def read_foreign(path: Path) -> ForeignRun:
    """Return the result of a file, or of AIPerf's folder. Raises RunUnreadable, one sentence that names the file."""
    file = path / _AIPERF_SUMMARY if path.is_dir() else path
    try:
        return _read(file)
    except ForeignUnreadable as error:
        raise RunUnreadable(f"{file}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise RunUnreadable(f"{file}: a value is not of the form that its tool writes: {_short(error)}") from error


def is_result(path: Path) -> bool:
    """Return whether a path is for `read_foreign`: a file, or AIPerf's folder."""
    folder = isfile(path / _AIPERF_SUMMARY) and not isfile(path / IMPORTED)
    return isfile(path) or folder  # unlike Path's, it is no error if a name is too long


def files_of(path: Path) -> list[Path]:
    """Return the files of a result: itself, and AIPerf's requests beside it."""
    file = path / _AIPERF_SUMMARY if path.is_dir() else path
    beside = {".json": _rows_beside, ".jsonl": _summary_beside}.get(file.suffix, lambda _: None)(file)
    return [file] if beside is None else [file, beside]


def _short(error: Exception) -> str:
    return f"{type(error).__name__} {error}"[:120]


def _read(file: Path) -> ForeignRun:
    found, notes = _objects(file)
    if aiperf.fits_row(found[0]):
        summary = _summary_beside(file)
        return _noted(aiperf.read_rows(found), notes) if summary is None else _read(summary)
    parts = [_one(data) for data in found]
    first = parts[0]
    if any(part.tool != first.tool or part.model != first.model for part in parts):
        raise ForeignUnreadable("it has results of several tools or models; split it")
    run = replace(first, loads=tuple(load for part in parts for load in part.loads))
    if first.tool == aiperf.TOOL:
        run, more = _with_rows(run, file)
        notes += more
    return _noted(run, notes)


def _noted(run: ForeignRun, notes: list[str]) -> ForeignRun:
    return replace(run, notes=(*run.notes, *notes))


def _one(data: Mapping[str, Any]) -> ForeignRun:
    for fits, read in _READERS:
        if fits(data):
            return read(data)
    raise ForeignUnreadable(f"it is no result of a tool that can be read: {', '.join(KNOWN)}")


def _with_rows(run: ForeignRun, file: Path) -> tuple[ForeignRun, list[str]]:
    """Return a summary of AIPerf with the requests of the file beside it, and what is to be said of that."""
    beside = _rows_beside(file)
    if beside is None:
        return run, []
    try:
        lines, notes = _objects(beside)
        return aiperf.with_rows(run, [line for line in lines if aiperf.fits_row(line)]), notes
    except ForeignUnreadable as error:
        return run, [f"{beside.name} is left out: {error}."]


def _summary_beside(file: Path) -> Path | None:
    """Return AIPerf's summary of the requests of a file; None if there is none."""
    found = (file.with_name(f"{file.stem}{ending}.json") for ending in ("_aiperf", ""))
    return next((one for one in found if one.is_file()), None)


def _rows_beside(file: Path) -> Path | None:
    """Return the file in which AIPerf put the requests of a summary; None if there is none."""
    found = file.with_name(f"{file.stem.removesuffix('_aiperf')}.jsonl")
    return found if found.is_file() else None


def _objects(file: Path) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return the JSON objects of a file, one or one a line, and a sentence on lines that were left out."""
    try:
        content = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ForeignUnreadable("it is no text: neither JSON nor YAML") from None
    except OSError as error:
        raise ForeignUnreadable(f"it cannot be read: {error.strerror or error}") from None
    if not content.strip():
        raise ForeignUnreadable("it is empty")
    try:
        return [_mapping(json.loads(content))], []
    except ValueError as error:
        if file.suffix in _YAML:
            return [_mapping(_from_yaml(content))], []
        return _from_lines(content, error)


def _mapping(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ForeignUnreadable("it is no JSON object")
    return data


def _from_lines(content: str, error: ValueError) -> tuple[list[Mapping[str, Any]], list[str]]:
    """Return one object a line. Raises ForeignUnreadable with the `error` of the whole if there is none."""
    found: list[Mapping[str, Any]] = []
    bad: list[int] = []
    for place, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                found.append(_mapping(json.loads(line)))
            except (ValueError, ForeignUnreadable):
                bad.append(place)
    if not found:
        raise ForeignUnreadable(f"it is damaged or half-written: {error}") from None
    several = f"{len(bad)} lines are damaged and left out" if len(bad) > 1 else ""
    return found, [several or f"Line {bad[0]} is damaged and left out."] if bad else []


def _from_yaml(content: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(content)
    except (YAMLError, RecursionError) as error:
        raise ForeignUnreadable(f"it is damaged or half-written: {' '.join(str(error).split())[:120]}") from None
