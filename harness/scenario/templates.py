"""The scenario files that come with the harness: to run as they are, or to begin one's own with."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError
from harness.scenario.base import near
from harness.scenario.yaml_tree import parse

EDITOR_LINE = "# yaml-language-server: $schema=schema.json\n"


def scenario_folder() -> Path:
    """Where the shipped files lie: inside an installed package, or in the source tree."""
    here = Path(__file__).resolve().parent.parent
    installed = here / "shipped_scenarios"
    return installed if installed.is_dir() else here.parent / "scenarios"


def list_scenarios() -> dict[str, str]:
    """Name and description of every shipped scenario, by name."""
    return {path.stem: _description(path) for path in sorted(scenario_folder().glob("*.yaml"))}


def shipped_path(name: str) -> Path:
    """The file of a shipped scenario.

    Raises UsageError if there is none of that name.
    """
    path = scenario_folder() / f"{name}.yaml"
    known = [each.stem for each in scenario_folder().glob("*.yaml")]
    if name not in known:
        raise UsageError(f"there is no shipped scenario {name!r}; {near(name, known)}")
    return path


def init_template(kind: str) -> str:
    """The text of a shipped scenario, to be saved as one's own.

    Raises UsageError if there is none of that name.
    """
    return shipped_path(kind).read_text(encoding="utf-8").removeprefix(EDITOR_LINE)


def _description(path: Path) -> str:
    tree, _ = parse(path.read_text(encoding="utf-8"), path.name, path.parent)
    found = tree.value.get("description") if tree is not None and isinstance(tree.value, dict) else None
    return "" if found is None else " ".join(str(found.value).split())
