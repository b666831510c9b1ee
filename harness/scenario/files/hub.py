"""Data sets of the Hugging Face hub, by name: their files in the local cache, fetched at first use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from engines.base import ModelError
from engines.models.hub import Wanted, snapshot
from harness.errors import Problem, ScenarioError
from harness.scenario.base import Name, StrictModel

Column = Literal["prompt", "messages", "conversations", "system", "output_tokens"]
_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")
_HUB_ID = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"


class HubPrompts(StrictModel):
    """Data set of the hub, as its Parquet, JSON Lines, JSON or CSV files.

    They are fetched into the hub's cache at first use. With `HF_HUB_OFFLINE`, the cache must have them.
    """

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("file", "split"),)

    hub: Annotated[str, Field(pattern=_HUB_ID)] = Field(description="Name on the hub.", examples=["owner/name"])
    split: Name = Field(
        default="train",
        description="Part of the data set: files with this word in their names, or all if no file has such a word.",
        examples=["test"],
    )
    file: Name | None = Field(
        default=None,
        description="Instead of `split`: a file of the data set, or a pattern for several.",
        examples=["data/*.parquet"],
    )
    revision: Name | None = Field(default=None, description="Branch, tag or commit.", examples=["main"])
    columns: dict[Column, Name] = Field(
        default={},
        description="Names of the columns in the data set. Default: those of prompt files.",
        examples=[{"prompt": "instruction"}],
    )

    def __hash__(self) -> int:
        return hash((self.hub, self.split, self.file, self.revision))

    def irrelevant_keys(self) -> frozenset[str]:
        return frozenset({"split"} if self.file is not None else ())


def fetched(source: HubPrompts) -> list[Path]:
    """Return the files of a data set in the order of their names; raise ScenarioError if there are none."""
    for patterns in _patterns(source):
        folder = _snapshot(source.hub, source.revision, patterns)
        names = sorted(
            str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix in _SUFFIXES
        )
        chosen = _chosen(source, names)
        sets = sorted({(str(Path(name).parent), Path(name).suffix) for name in chosen})
        if len(sets) > 1:
            examples = ", ".join(str(Path(parent) / f"*{suffix}") for parent, suffix in sets[:4])
            raise _wrong(source, f"has several sets of files ({examples}); write `file` with one of them")
        if chosen:
            return [folder / name for name in chosen]
    part = f"file `{source.file}`" if source.file is not None else f"split `{source.split}`"
    found = f"; it has {', '.join(names[:4])}" if names else ""
    raise _wrong(source, f"has no {part} in Parquet, JSON or CSV{found}")


def _patterns(source: HubPrompts) -> Iterator[tuple[str, ...]]:
    """Yield the patterns of files to fetch; the later ones if the earlier ones match nothing."""
    if source.file is not None:
        yield (source.file,)
        return
    yield tuple(f"*{source.split}*{suffix}" for suffix in _SUFFIXES)
    yield tuple(f"*{suffix}" for suffix in _SUFFIXES)


def _chosen(source: HubPrompts, names: Sequence[str]) -> list[str]:
    if source.file is not None:
        return [name for name in names if fnmatch(name, source.file)]
    named = [name for name in names if source.split in re.split(r"[/._-]", name)]
    others = {"train", "test", "validation", "val", "dev", "valid"}
    whole = not any(others & set(re.split(r"[/._-]", name)) for name in names)
    return named or (list(names) if whole and source.split == "train" else [])


@lru_cache(maxsize=16)
def _snapshot(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    try:
        return snapshot(Wanted(name, "data set", "dataset", revision, patterns, "a file"))
    except ModelError as error:
        raise _problem(str(error)) from error


def _wrong(source: HubPrompts, reason: str) -> ScenarioError:
    return _problem(f"data set {source.hub} {reason}")


def _problem(reason: str) -> ScenarioError:
    return ScenarioError([Problem(reason, key="workload.prompts")])
