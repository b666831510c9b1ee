"""Shipped scenario files, which run as they are or serve as templates."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError
from harness.scenario.base import near
from harness.scenario.yaml_tree import parse

EDITOR_LINE = "# yaml-language-server: $schema=schema.json\n"


def scenario_folder() -> Path:
    """Return the folder of the shipped files: inside an installed package, or in the source tree."""
    here = Path(__file__).resolve().parent.parent
    installed = here / "shipped_scenarios"
    return installed if installed.is_dir() else here.parent / "scenarios"


def list_scenarios() -> dict[str, str]:
    """Return the descriptions of the shipped scenarios by name."""
    return {path.stem: _description(path) for path in sorted(scenario_folder().glob("*.yaml"))}


def shipped_names() -> list[str]:
    """Return the names of the shipped scenarios."""
    return [each.stem for each in scenario_folder().glob("*.yaml")]


def shipped_path(name: str) -> Path:
    """Return the file of a shipped scenario; raise UsageError for an unknown name."""
    if name not in (known := shipped_names()):
        raise UsageError(f"unknown shipped scenario {name!r}; {near(name, known)}")
    return scenario_folder() / f"{name}.yaml"


def runnable(path: Path) -> Path:
    """Return the file of a shipped scenario if a path is only its name, such as `quickstart`, else the path."""
    name = path.name.replace("-", "_")
    is_name = not path.suffix and path.parent == Path() and name in shipped_names() and not path.is_file()
    return shipped_path(name) if is_name else path


def init_template(kind: str) -> str:
    """Return the text of a shipped scenario; raise UsageError for an unknown name."""
    return shipped_path(kind).read_text(encoding="utf-8").removeprefix(EDITOR_LINE)


def _description(path: Path) -> str:
    tree, _ = parse(path.read_text(encoding="utf-8"), path.name, path.parent)
    found = tree.value.get("description") if tree is not None and isinstance(tree.value, dict) else None
    return "" if found is None else " ".join(str(found.value).split())
