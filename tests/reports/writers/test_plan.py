"""Plans as a reader gets them: terminal, Markdown, page and manifest for a known demand."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from harness.capacity.demand import of_hours
from harness.capacity.plain import as_data
from harness.capacity.ranking import rank
from reports import plan
from reports.format import for_terminal
from reports.plots.plan import of_plan
from reports.writers.plan import as_hpa, as_html, as_markdown, show
from tests.planned import FAILS, candidate, point, terms

DAY = [1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 13, 12, 13, 14, 14, 13, 12, 10, 8, 6, 4, 2, 1]


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    """Plans for a day's profile: two levels, one of them of poor quality, and one that was tested at one rate."""
    small = candidate([point(9.0), point(11.0, FAILS)], level="q4_k_m", quality={"kl_mean": 0.031})
    poor = candidate(level="q2_k", quality_fails=("kl_mean is 0.4, more than 0.05.",))
    other = candidate([point(4.0)], level="f32", instance="p3.2xlarge")
    asked = terms(of_hours(DAY, "day.yaml"), growth="10%", api_price="0.50/1.50")
    found = rank([candidate(), small, poor, other], asked)
    return as_data(found, frozenset({"growth", "api_price"}))


def terminal(data: dict[str, Any], width: int) -> str:
    """What is printed."""
    out = io.StringIO()
    show(data, Console(file=out, width=width, highlight=False, color_system=None))
    return out.getvalue()


def test_the_terminal_is_as_agreed(data: dict[str, Any], golden: Callable[[str, str], None]) -> None:
    """At two widths; the answer is the last line."""
    screens = {width: terminal(data, width) for width in (100, 200)}
    golden("terminal-plan.txt", "".join(f"{'=' * width}\n{text}" for width, text in screens.items()))
    assert screens[100].rstrip().splitlines()[-1] == for_terminal(plan.answer(data))


def test_markdown_is_as_agreed(data: dict[str, Any], golden: Callable[[str, str], None]) -> None:
    """The answer first."""
    golden("plan.md", as_markdown(data))


def test_the_page_has_the_answer_and_both_pictures(data: dict[str, Any]) -> None:
    """And nothing that a name of a run could break."""
    named = data | {"plans": [{**one, "run": "<b>"} for one in data["plans"]]}
    page = as_html(named)
    assert "<td>&lt;b&gt;" in page.replace(' class="n"', "").replace(' class="short"', "")
    assert [plot.name for plot in of_plan(data)] == ["week", "chances"]
    assert plan.answer(data).split(",")[0] in page


def test_a_link_leads_to_a_run_of_any_name(data: dict[str, Any]) -> None:
    """A `#` or a `%` in a folder is part of the path, not of the address."""
    named = data | {"plans": [{**one, "path": "runs/50% #1", "run": "50"} for one in data["plans"]], "excluded": []}
    assert 'href="./runs/50%25%20%231/report.html"' in as_html(named)


def test_the_full_rate_of_a_plan_with_spot_machines_names_its_price() -> None:
    """It is that of a machine that is not interrupted."""
    data = as_data(rank([candidate()], terms(pricing="spot", interruptions_per_hour="5%")))
    assert [row[2].text for row in plan.costs(data).rows] == ["the demand", "full rate, on demand"]


def test_the_manifest_scales_between_the_night_and_the_peak(golden: Callable[[str, str], None]) -> None:
    """Spares included; the target is the rate at which another replica is to start."""
    data = as_data(rank([candidate()], terms(of_hours(DAY, "day.yaml"), scaling="auto")))
    text = as_hpa(data)
    golden("plan-hpa.yaml", text)
    deployment, scaler = YAML(typ="safe").load_all(text)
    best = data["plans"][0]
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (2, best["replicas"])
    assert deployment["spec"]["template"]["spec"]["nodeSelector"] == {"node.kubernetes.io/instance-type": "g5.xlarge"}


def test_without_a_plan_the_reason_is_the_answer() -> None:
    """With the command in a line of its own, no picture, and no number."""
    data = as_data(rank([candidate([point(2.0, FAILS)])], terms()))
    assert plan.answer(data).startswith("No plan: no tested rate surely holds; at the lowest, 2 requests/s")
    assert "harness run chat.yaml" in terminal(data, 200)
    assert of_plan(data) == []
    assert "NO PLAN" in as_html(data)
    with pytest.raises(ValueError, match="no plan"):
        as_hpa(data)


@pytest.mark.parametrize(
    ("usd", "text"), [(2937.52, "$2,938"), (99.5, "$99.50"), (0.178, "$0.178"), (0.0, "$0"), (None, "—")]
)
def test_money(usd: float | None, text: str) -> None:
    """Whole dollars from 100 on, cents below, three digits below one."""
    assert plan.money(usd) == text


def test_a_chance_is_never_certain() -> None:
    """It is estimated."""
    assert [plan.share(one) for one in (1.0, 0.975, 1e-20, None)] == [
        "> 99.9\u202f%", "97.5\u202f%", "< 0.1\u202f%", "—",
    ]  # fmt: skip
