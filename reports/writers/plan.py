"""Writers of plans: for a terminal, Markdown, a page, and a manifest of replicas for Kubernetes to edit."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from reports import plan
from reports.format import dotted, for_terminal, for_xml
from reports.tables.base import Table
from reports.writers.grid import grid_of_table
from reports.writers.markdown import escape, section

_LABEL = 14
_LEFT_OUT = ("run", "KL, nats", "1M input", "1M tokens", "J/token", "tokens per $", "chance", "note", "least sure")
_FOLDED = ("Assumptions",)


def show(data: Mapping[str, Any], console: Console) -> None:
    """Print the plans, what else they would be, the sentences, and the answer last."""
    for table in plan.tables(data):
        if table.title not in _FOLDED:
            _print(table, console)
    for label, text in plan.lines(data):
        console.print(Text.assemble((f" {label:<{_LABEL - 1}}", "bold"), for_terminal(text)), soft_wrap=True)
    for label, text in (("ASSUMED", assumed(data)), ("NOT MODELLED", " ".join(plan.folded(data)))):
        console.print(Text.assemble((f" {label:<{_LABEL - 1}}", "bold"), for_terminal(text)), soft_wrap=True)
    console.print()
    tone = "bold green" if data["plans"] else "bold yellow"
    console.print(Text(for_terminal(plan.answer(data)), style=tone), soft_wrap=True)


def _print(table: Table, console: Console) -> None:
    console.print(Text(for_terminal(table.title), style="dim"))
    for line in grid_of_table(table, console.width, _LEFT_OUT, "plan.html (--open)"):
        console.print(line, no_wrap=True, overflow="crop")
    console.print()


def assumed(data: Mapping[str, Any]) -> str:
    """Return all assumptions in one line, those of the user marked."""
    return dotted(f"{one['key']} {one['value']}{'*' if one['given'] else ''}" for one in data["assumptions"])


def as_markdown(data: Mapping[str, Any]) -> str:
    """Return the plans for a document: the answer first."""
    lines = [f"## {escape(plan.answer(data))}", ""]
    for table in plan.tables(data):
        if table.title not in _FOLDED:
            lines += section(table, level=3, folded=False)
    lines += [f"- **{label.capitalize()}**: {escape(text)}" for label, text in plan.lines(data)]
    lines += ["", "<details><summary>Assumptions, and what is not modelled</summary>", ""]
    lines += section(plan.assumptions(data), level=3, folded=False)
    lines += [*(f"- {escape(one)}" for one in plan.folded(data)), "", "</details>", ""]
    return "\n".join(lines)


def as_html(data: Mapping[str, Any], folder: Path = Path()) -> str:
    """Return the page: the answer with both pictures first, then every table.

    Args:
        folder: Folder of the page, from which its links to the reports of the runs start.
    """
    from reports.plots.plan import of_plan
    from reports.writers.html import page

    shown = [table for table in plan.tables(data) if table.title not in _FOLDED]
    runs = {one["path"]: one["run"] for one in (*data["plans"], *data["excluded"])}
    return page(
        "plan.html",
        page_title=f"Plan · {plan.answer(data)}",
        title=plan.answer(data),
        has_plan=bool(data["plans"]),
        subject=plan.demand(data),
        plots=of_plan(data),
        lines=plan.lines(data),
        tables=shown,
        assumptions=plan.assumptions(data),
        not_modelled=plan.folded(data),
        runs=[(name, _address(path, folder)) for path, name in runs.items()],
        footer=dotted(runs),
    )


def _address(path: str, folder: Path) -> str:
    """Return the address of a run's page from a folder."""
    return f"./{quote(os.fsencode(Path(os.path.relpath(path, folder), 'report.html')))}"


def as_hpa(data: Mapping[str, Any]) -> str:
    """Return a Deployment's replicas and a HorizontalPodAutoscaler for Kubernetes, to edit.

    Raises ValueError without a plan.
    """
    if not data["plans"]:
        raise ValueError("there is no plan to export")
    best = data["plans"][0]
    name = re.sub(r"[^a-z0-9-]+", "-", f"{best['model']}-{best['engine']}".lower()).strip("-") or "llm"
    hours = [row["replicas"] for row in data["week"]]
    least = max(1, min((round(one) for one in hours if one), default=best["base"]) + best["spares"])
    return _HPA.format(
        answer=for_xml(plan.answer(data)),
        run=for_xml(best["run"]),
        name=name[:50].strip("-"),
        least=least,
        most=best["replicas"],
        instance=re.sub(r"[^A-Za-z0-9._-]+", "-", best["instance"]),
        target=f"{math.floor(1000 * best['scale_out_rps'])}m",
        dwell=round(next(_seconds(one["value"]) for one in data["assumptions"] if one["key"] == "min_dwell")),
    )


def _seconds(text: str) -> float:
    """Return the seconds of a duration as `assumptions` writes it."""
    return float(text.removesuffix("ms")) / 1000 if text.endswith("ms") else float(text.removesuffix("s"))


_HPA = """\
# {answer}
# Measured in {run}. Edit names, image and the metric of requests per second to those of your cluster.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {most}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      nodeSelector:
        node.kubernetes.io/instance-type: {instance}
      containers:
      - name: server
        image: EDIT-ME
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: {least}
  maxReplicas: {most}
  metrics:
  - type: Pods
    pods:
      metric: {{name: requests_per_second}}
      target: {{type: AverageValue, averageValue: {target}}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: {dwell}
"""
