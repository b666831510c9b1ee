"""Who imports whom, how long files and functions may be, and what the light commands may load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom up: each imports from itself and from those before it. A name stands for a module or a package.
ORDER = (
    ("errors",),
    ("units",),
    ("seeding",),
    ("records",),
    ("metrics",),
    ("signals",),
    ("processes",),
    ("scenario",),
    ("telemetry",),
    ("store",),
    ("prices",),
    ("schedule",),
    ("drivers",),
    ("analysis",),
    ("saturation",),
    ("quality",),
    ("verdict",),
    ("fits",),
    ("run",),
    ("results",),
    ("comparison",),
    ("tuning",),
    ("history",),
    ("capacity",),
    ("cli",),
    ("api",),
    ("__main__",),
)
ROW_OF = {name: row for row, names in enumerate(ORDER) for name in names}
MOST_EXPORTS = 10
HEAVY = {"pandas", "matplotlib", "torch", "locust", "scipy", "pyarrow", "xllamacpp", "numpy", "gguf", "vllm"}
HEAVY |= {"asyncio", "psutil", "aiohttp", "jinja2"}  # small, and together as long as all the rest of a command
PACKAGES = ("harness", "engines", "reports")


def sources(*packages: str) -> list[Path]:
    """Every Python file of these packages."""
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


@cache
def nodes(text: str) -> tuple[ast.AST, ...]:
    """All of a program, parsed once for every test that asks."""
    return tuple(ast.walk(ast.parse(text)))


def imports(path: Path) -> Iterator[str]:
    """The modules a file imports, wherever in it the import stands."""
    for node in nodes(path.read_text()):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """The name in ORDER under which a module of harness/ stands: "harness.store.run" -> "store"."""
    return module.split(".")[1]


def name_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def ours(path: Path) -> set[str]:
    """The modules of this repository that a file imports, wherever in it the import stands."""
    return {name for name in imports(path) if name in all_modules()} - {name_of(path)}


@cache
def all_modules() -> dict[str, Path]:
    """Every module by its name."""
    return {name_of(path): path for path in sources(*PACKAGES)}


def test_every_module_of_harness_has_a_place() -> None:
    """A new package finds its place in the order, or this fails; few files stand beside the packages."""
    rooms = {room_of(name) for name in all_modules() if name.startswith("harness.")}
    assert rooms == set(ROW_OF)
    assert len(list((ROOT / "harness").glob("*.py"))) <= 10


@pytest.mark.parametrize("path", sources("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    """A module imports from its own package or those below, and only command line and API know the reports."""
    if path == ROOT / "harness" / "__init__.py":
        assert ours(path) <= {"harness.api"}  # for types alone: the light commands are tested to load nothing heavy
        return
    own = room_of(name_of(path))
    for name in ours(path) - {"harness"}:
        package = name.split(".")[0]
        assert package != "reports" or own in ("cli", "api"), f"{path.name} imports {name}"
        if package == "harness":
            assert ROW_OF[room_of(name)] <= ROW_OF[own], f"{own} imports {name}"
            assert ROW_OF[room_of(name)] < ROW_OF[own] or room_of(name) == own, f"{own} imports {name}, its neighbour"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Neither at their top nor inside of functions; a package's face is not asked."""
    waiting = {name: ours(path) for name, path in all_modules().items() if path.name != "__init__.py"}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, {name: sorted(needs & waiting.keys()) for name, needs in waiting.items()}


@pytest.mark.parametrize("path", sources("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_package_knows_locust(path: Path) -> None:
    """Importing it changes the whole interpreter."""
    if (ROOT / "harness" / "drivers" / "locust") not in path.parents:
        assert not [name for name in imports(path) if name.split(".")[0] in ("locust", "gevent")]


@pytest.mark.parametrize(
    "path", [path for path in sources(*PACKAGES) if path.name == "__init__.py"], ids=lambda path: name_of(path)
)
def test_a_package_shows_few_names(path: Path) -> None:
    """What a package's face offers fits on ten fingers."""
    body = ast.parse(path.read_text()).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    listed = [ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign) and is_list(node)]
    assert len(listed[0] if listed else [name for name in defined if not name.startswith("_")]) <= MOST_EXPORTS


def is_list(node: ast.Assign) -> bool:
    """Whether it is `__all__`."""
    return ast.unparse(node.targets[0]) == "__all__"


@pytest.mark.parametrize("path", sources("engines"), ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_do_not_know_the_harness(path: Path) -> None:
    """Adapters stand on their own."""
    assert not [name for name in imports(path) if name.split(".")[0] == "harness"]


@pytest.mark.parametrize(
    "path",
    [path for path in sources("engines", "harness") if {"dialects", "http", "process", "drivers"} & {*path.parts}],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_message_cuts_the_words_of_a_server_itself(path: Path) -> None:
    """`masked` and the dialects' `cut` do: the start of a secret would be left of a text that was cut before. What is
    cut here is our own, or comes from a record, which has no secrets any more.
    """
    ours = {
        "'/'.join(segments[:first])",
        "schedule.plan_hash[:12]",
        "part.plan_hash[:12]",
        "reason[:LONGEST_REASON - 1]",
    }
    cuts = {
        ast.unparse(place.value)
        for node in nodes(path.read_text())
        if isinstance(node, ast.JoinedStr)
        for place in node.values
        if isinstance(place, ast.FormattedValue) and any(isinstance(one, ast.Slice) for one in ast.walk(place))
    }
    assert cuts <= ours


@pytest.mark.parametrize("path", sources("reports"), ids=lambda path: str(path.relative_to(ROOT)))
def test_reports_know_the_manifest_and_nothing_else_of_the_harness(path: Path) -> None:
    """What else they show is handed to them."""
    assert {name for name in ours(path) if name.split(".")[0] == "harness"} <= {"harness.store.manifest"}


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_short(path: Path) -> None:
    """At most 600 lines a file and 50 a function."""
    text = path.read_text()
    assert text.count("\n") <= 600
    for node in nodes(text):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 50, f"{path.name}: {node.name}"


@pytest.mark.parametrize("path", sources("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    """Library code neither prints nor ends the process."""
    if path.stem == "__main__" or "cli" in path.parts:
        return
    main = 'if __name__ == "__main__":'
    calls = {
        node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        for node in nodes(path.read_text().partition(main)[0])
        if isinstance(node, ast.Call)
    }
    assert not calls & {"print", "exit", "quit", "sys.exit", "os._exit"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["list", "scenarios"]])
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    """Help, version and lists answer without any of the large libraries."""
    program = (
        "import sys\n"
        "from harness.cli.app import main\n"
        f"sys.argv = ['harness', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        f"loaded = sorted({HEAVY!r} & set(sys.modules))\n"
        "assert not loaded, loaded\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
