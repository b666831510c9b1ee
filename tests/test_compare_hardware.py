"""`harness compare --across hardware`: what each machine measured, and what that costs there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.forked import harness as command
from tests.planned import stored_run

pytestmark = pytest.mark.slow
ACROSS = ("--across", "hardware")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/`: 23,040 requests an hour on an A100, and on a machine without a name."""
    folder = tmp_path_factory.mktemp("hardware")
    stored_run(folder / "runs" / "gpu", {"f16": {2.0: 150.0, 6.4: 200.0}}, scenario={"instance": "a100-40gb"})
    stored_run(folder / "runs" / "new", {"f16": {2.0: 150.0, 6.4: 200.0}})
    return folder


def test_a_published_table_of_costs_is_one_command(stored: Path) -> None:
    """$4.10 an hour and 23,040 requests are $0.178 for 1,000."""
    ended = command("compare", "gpu", "new", *ACROSS, "--instance", "new=cpu-32-core", "--json", cwd=stored)
    rows = json.loads(ended.out)["hardware"]
    full = {row["run"]: row for row in rows if row["full"]}
    assert full["gpu"]["requests_per_hour"] == pytest.approx(23_040, rel=0.01)
    assert f"{full['gpu']['per_1k_requests_usd']:.3f}" == "0.178"
    assert full["new"]["usd_per_hour"] == 1.536
    assert full["gpu"]["per_1m_output_usd"] == pytest.approx(full["gpu"]["per_1k_requests_usd"] / 0.064, rel=0.02)
    assert full["gpu"]["joules_per_output_token"] is None


def test_the_tables_stand_before_the_comparison(stored: Path, tmp_path: Path) -> None:
    """Each run once, with the date of its price; in the document and on the page, too."""
    arguments = ("--instance", "new=g5.xlarge", "--format", "md,html", "--out", str(tmp_path))
    ended = command("compare", "gpu", "new", *ACROSS, *arguments, cwd=stored)
    text = ended.out.replace("\u202f", " ")
    assert text.startswith("Machines")
    assert "a100-40gb on demand $4.1 an hour, as of 2026-11" in text
    assert text.count("gpu (a100-40gb)") == 2
    assert text.index("Costs") < text.index("Gate")
    for name in ("comparison.md", "comparison.html"):
        written = (tmp_path / name).read_text()
        assert "Machines" in written
        assert "0.178" in written
    assert "Throughput against speed per user, of each machine" in written
    assert "Tokens per dollar against speed per user" in written


def test_a_machine_without_a_price_has_no_cost(stored: Path) -> None:
    """It is unknown; an unknown name is an error."""
    ended = command("compare", "new", "gpu", *ACROSS, "--json", cwd=stored)
    rows = json.loads(ended.out)["hardware"]
    assert {row["per_1k_requests_usd"] for row in rows if row["run"] == "new"} == {None}
    ended = command("compare", "new", "gpu", *ACROSS, "--instance", "new=a100", cwd=stored)
    assert ended.code == 2
    assert "no instance 'a100' in the shipped prices; did you mean `a100-40gb`" in ended.err
    ended = command("compare", "new", "gpu", "--instance", "new=a100-40gb", cwd=stored)
    assert (ended.code, "add --across hardware" in ended.err) == (2, True)
