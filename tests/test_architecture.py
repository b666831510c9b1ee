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


def shown(path: Path) -> str:
    """A file as a failure names it."""
    return str(path.relative_to(ROOT))


def roots_of(path: Path) -> set[str]:
    """The packages that a file imports."""
    return {name.split(".")[0] for name in imports(path)}


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


def test_imports_go_down_only() -> None:
    """A module imports from its own package or those below, and only command line and API know the reports."""
    face = ROOT / "harness" / "__init__.py"
    assert ours(face) <= {"harness.api"}  # for types alone: the light commands are tested to load nothing heavy
    for path in sources("harness"):
        own = "" if path == face else room_of(name_of(path))
        for name in ours(path) - {"harness"} if own else ():
            package = name.split(".")[0]
            assert package != "reports" or own in ("cli", "api"), f"{shown(path)} imports {name}"
            if package == "harness":
                below = ROW_OF[room_of(name)] < ROW_OF[own] or room_of(name) == own
                assert below, f"{shown(path)} imports {name}, which is above it or beside it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Neither at their top nor inside of functions; a package's face is not asked."""
    waiting = {name: ours(path) for name, path in all_modules().items() if path.name != "__init__.py"}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, {name: sorted(needs & waiting.keys()) for name, needs in waiting.items()}


def test_only_one_package_knows_locust() -> None:
    """Importing it changes the whole interpreter."""
    own = ROOT / "harness" / "drivers" / "locust"
    others = [path for path in sources("harness") if own not in path.parents]
    assert not [shown(path) for path in others if roots_of(path) & {"locust", "gevent"}]


def test_a_package_shows_few_names() -> None:
    """What a package's face offers fits on ten fingers."""
    faces = [path for path in sources(*PACKAGES) if path.name == "__init__.py"]
    assert not {shown(path): len(names) for path in faces if len(names := exported(path)) > MOST_EXPORTS}


def exported(path: Path) -> list[str]:
    """The names in its `__all__`, or all that it defines."""
    body = ast.parse(path.read_text()).body
    listed = [ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign) and is_list(node)]
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return listed[0] if listed else [name for name in defined if not name.startswith("_")]


def is_list(node: ast.Assign) -> bool:
    """Whether it is `__all__`."""
    return ast.unparse(node.targets[0]) == "__all__"


def test_engines_do_not_know_the_harness() -> None:
    """Adapters stand on their own."""
    assert not [shown(path) for path in sources("engines") if "harness" in roots_of(path)]


def test_no_message_cuts_the_words_of_a_server_itself() -> None:
    """`masked` and the dialects' `cut` do: the start of a secret would be left of a text that was cut before. What is
    cut here is our own, or comes from a record, which has no secrets any more.
    """
    ours = {
        "'/'.join(segments[:first])",
        "schedule.plan_hash[:12]",
        "part.plan_hash[:12]",
        "reason[:LONGEST_REASON - 1]",
    }
    hear = {"dialects", "http", "process", "drivers"}
    cuts = {
        ast.unparse(place.value)
        for path in sources("engines", "harness")
        if hear & {*path.parts}
        for node in nodes(path.read_text())
        if isinstance(node, ast.JoinedStr)
        for place in node.values
        if isinstance(place, ast.FormattedValue) and any(isinstance(one, ast.Slice) for one in ast.walk(place))
    }
    assert cuts <= ours


def test_reports_know_the_manifest_and_nothing_else_of_the_harness() -> None:
    """What else they show is handed to them."""
    known = {name for path in sources("reports") for name in ours(path) if name.split(".")[0] == "harness"}
    assert known == {"harness.store.manifest"}


def test_files_and_functions_stay_short() -> None:
    """At most 600 lines a file and 50 a function."""
    for path in sources(*PACKAGES):
        text = path.read_text()
        assert text.count("\n") <= 600, shown(path)
        for node in nodes(text):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno + 1 <= 50, f"{shown(path)}: {node.name}"


def test_only_the_command_line_prints_and_exits() -> None:
    """Library code neither prints nor ends the process."""
    library = [path for path in sources("harness") if path.stem != "__main__" and "cli" not in path.parts]
    ends = {"print", "exit", "quit", "sys.exit", "os._exit"}
    assert not {shown(path): found for path in library if (found := calls_of(path) & ends)}


def calls_of(path: Path) -> set[str]:
    """What a module calls, but for its part that runs as a program."""
    before, _, _ = path.read_text().partition('if __name__ == "__main__":')
    every = (node.func for node in nodes(before) if isinstance(node, ast.Call))
    return {one.id if isinstance(one, ast.Name) else ast.unparse(one) for one in every}


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
