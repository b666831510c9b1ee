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
ROWS: dict[int, str] = {
    10: "cli command console outlets glance doctor listing quality_command report run_format",
    8: "calibrator jobs run resume references results",
    7: "trial story entries engine_start supervisor load_worker load_workers locust_alone locust_load locust_master "
    "locust_process locust_worker worker quality_child unrecorded gate decision decision_rows memory_need pareto "
    "ratios recommendation setting_notes",
    6: "analysis cache_split cell_samples validity client_signals bursts columns chunks gap_counts latencies rates "
    "window passing reading server_facts engine_reasons "
    "backend_split distributions machine facts series series_clouds series_curves series_machine series_time "
    "divergence quality quality_scores quality_text greedy responses "
    "quality_summary energy energy_facts telemetry_facts memory_parts memory_peaks throttling token_truth books "
    "queue_guard steady sample_size repetitions prompt_reuse",
    5: "store streams load_part worker_count locust_order locust_records stats ordered means metric metrics texts "
    "machine_metrics progress exclusive memory_check plan_size lost_rows reference machine_checks install_checks",
    4: "drivers server_pages page_reader telemetry provenance calibration",
    3: "timeline virtual_time pressure cgroup child_process known_process ticks "
    "process_tree process_gauges host_gauges kept_files file_cache",
    2: "matrix cells combinations run_order trial_plans refusals selection identity devices gpus interpreter "
    "gpu_gauges nvidia_gpus amd_gpus engine_support estimate templates workload traffic repeats timing chains",
    1: "scenario engine_problems engine_section metrics_pages page_names traffic_section quality_section "
    "scenario_source scenario_problems yaml_nodes strict_model loads load_parts session_load conversation_problems "
    "lengths quantities limits sentences "
    "arrivals rate_shapes prompts prefixes traces seeding records "
    "format_columns format_json format_manifest",
    0: "errors reasons stop_signals thresholds known_server __init__",
}
ROW_OF = {module: row for row, modules in ROWS.items() for module in modules.split()}
HEAVY = {"pandas", "matplotlib", "torch", "locust", "scipy", "pyarrow", "xllamacpp", "numpy", "gguf", "vllm"}
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


def module_of(path: Path) -> str:
    """The name in ROWS under which a file of harness/ stands: its folder's, or its own."""
    return path.relative_to(ROOT / "harness").with_suffix("").parts[0]


def test_every_module_of_harness_has_a_row() -> None:
    """A new file finds its place in the table, or this fails."""
    assert {module_of(path) for path in sources("harness")} == set(ROW_OF)


@pytest.mark.parametrize("path", sources("harness"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path: Path) -> None:
    """A module imports from its own row or the rows below it, and only the top row knows the reports."""
    own = ROW_OF[module_of(path)]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "reports":
            assert own == 10, f"{path.name} imports {name}"
        if parts[0] == "harness" and len(parts) > 1 and parts[1] in ROW_OF:
            assert ROW_OF[parts[1]] <= own, f"{path.name} (row {own}) imports {name} (row {ROW_OF[parts[1]]})"


@pytest.mark.parametrize("path", sources("engines", "reports"), ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_and_reports_do_not_know_the_harness(path: Path) -> None:
    """Adapters and reports stand on their own."""
    assert not [name for name in imports(path) if name.split(".")[0] == "harness"]


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
    if ROW_OF[module_of(path)] == 10:
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
        "from harness.cli import main\n"
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
