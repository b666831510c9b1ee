"""Writer of feed.xml: the alerts of a board as an Atom feed (RFC 4287), the latest first."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from reports import board as boards
from reports.board import Alert, Board
from reports.format import for_xml
from reports.names import ended

ATOM = "http://www.w3.org/2005/Atom"
MOST = 50


def render(board: Board) -> str:
    """Return the feed; its addresses are relative to the folder of the site."""
    ET.register_namespace("", ATOM)
    title = boards.title_of(board)
    root = ET.Element(_name("feed"))
    _text(root, "id", _urn(title))
    _text(root, "title", f"{title}: alerts")
    _text(root, "updated", _time(board["made"]))
    _text(ET.SubElement(root, _name("author")), "name", "harness")
    ET.SubElement(root, _name("link"), rel="self", type="application/atom+xml", href="feed.xml")
    ET.SubElement(root, _name("link"), rel="alternate", type="text/html", href="index.html")
    latest = sorted(board["alerts"], key=lambda alert: alert["since"], reverse=True)
    for alert in latest[:MOST]:
        _entry(root, alert, board)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _entry(root: ET.Element, alert: Alert, board: Board) -> None:
    entry = ET.SubElement(root, _name("entry"))
    _text(entry, "id", _urn(alert["id"]))
    _text(entry, "title", ": ".join(filter(None, (boards.state_beside(alert), alert["title"]))))
    _text(entry, "updated", _time(alert["since"]))
    ET.SubElement(entry, _name("link"), rel="alternate", type="text/html", href=f"index.html#{boards.anchor_of(alert)}")
    ET.SubElement(entry, _name("category"), term=for_xml(alert["state"]))
    parts = [boards.sentence(alert, board), boards.capital(alert["cause"]), boards.names_of(alert, board)]
    _text(entry, "summary", " ".join(ended(part) for part in parts if part))


def _name(tag: str) -> str:
    return f"{{{ATOM}}}{tag}"


def _text(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, _name(tag)).text = for_xml(text)


def _urn(name: str) -> str:
    """Return an identity that is the same every night."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"harness:{name}").urn


def _time(at: str) -> str:
    """Return a time as RFC 3339 has it."""
    found = datetime.fromisoformat(at)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
