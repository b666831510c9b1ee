"""Writer of junit.xml: one test case per trial and per limit.

A violated limit is a `failure`. What could not be measured or checked is an `error`: a trial that is incomplete or
whose load was not the planned one, a limit that is undecided or on an invalid metric. A skipped cell is `skipped`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree as ET

from reports.data import ReportData, keys_of_verdict, place
from reports.format import for_xml
from reports.tables.base import cell_name


def render(data: ReportData) -> str:
    """Return the document."""
    suite = ET.Element("testsuite", name=for_xml(data.title), hostname="localhost")
    if data.manifest.created_utc:
        at = datetime.fromisoformat(data.manifest.created_utc).astimezone(UTC)
        suite.set("timestamp", at.strftime("%Y-%m-%dT%H:%M:%S"))  # the schema allows no zone
    for cell in data.manifest.cells:
        if not cell.trials:
            _outcome(_case(suite, cell_name(cell, data), "cell"), cell.status, cell.reason or "")
    for cell, trial in data.trials():
        window = data.facts_of(cell.id, trial.id).get("window") or {}
        case = _case(suite, cell_name(cell, data), trial.load, seconds=float(window.get("end_s") or 0.0))
        judged = data.validity_of(cell.id, trial.id)
        if trial.status != "complete":
            _outcome(case, trial.status, trial.reason or "")
        elif judged and judged.get("load_failed"):
            _add(case, "error", "invalid", _sentences(judged))
        elif judged and judged["reasons"]:
            ET.SubElement(case, "system-out").text = for_xml(_sentences(judged))
    for verdict in data.verdicts:
        case = _case(suite, place(keys_of_verdict(verdict)), f"{verdict['load']}: {verdict['limit']}")
        if verdict["outcome"] != "pass":
            kind = "failure" if verdict["outcome"] == "fail" else "error"
            _add(case, kind, verdict["outcome"], verdict["sentence"])
    suite.set("time", f"{sum(float(case.get('time', 0)) for case in suite):.3f}")
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(1 for _ in suite.iter(tag))))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _case(suite: ET.Element, where: str, name: str, seconds: float = 0.0) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=for_xml(where), name=for_xml(name), time=f"{seconds:.3f}")


def _sentences(judged: dict[str, Any]) -> str:
    return " ".join(reason["sentence"] for reason in judged["reasons"])


def _outcome(case: ET.Element, status: str, reason: str) -> None:
    if status in ("skipped", "pending"):
        _add(case, "skipped", status, reason)
    elif status != "complete":
        _add(case, "error", status, reason)


def _add(case: ET.Element, tag: str, kind: str, message: str) -> None:
    ET.SubElement(case, tag, {"type": kind, "message": for_xml(message)}).text = for_xml(message)
