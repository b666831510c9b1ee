"""Words: the field's term stands where a private phrase stood (docs/glossary.md)."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A phrase, as a regular expression, and the term to write instead.
PRIVATE = {
    r"\b(is|are|be) worth (only |about |no more |so many |[0-9{])": "effective sample size",
    r"\bbeaten\b(?! path)": "dominated",
    r"\bgives? up\b|\bgiven up\b|\bgave up\b": "cancelled",
    r"\bbroken? off\b|\bbroke off\b|\bbreaks off\b": "interrupted, incomplete",
    r"\bcan(not)? be had\b": "available, unavailable",
    r"\bwithout a word\b": "without output",
    r"\boffer less\b": "lower the request rate",
    r"\bcasts? doubt\b|\bspeaks? against\b": "warning, reason",
    r"\b[Ww]hoever\b": "the noun it stands for",
}
PLACES = sorted(
    path
    for path in [
        *(path for package in ("harness", "engines", "reports") for path in (ROOT / package).rglob("*.py")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    ]
)


def test_no_private_phrase_stands_for_a_term() -> None:
    """In no docstring, comment, message or page."""
    assert not {str(path.relative_to(ROOT)): found for path in PLACES if (found := private(path))}


def private(path: Path) -> list[tuple[str, str]]:
    """The private phrases of a file, each with the term to write."""
    text = re.sub(r"\s+(# )?", " ", path.read_text())
    return [(m.group(0), term) for phrase, term in PRIVATE.items() for m in re.finditer(phrase, text)]
