"""Characters that a place cannot show or must not be given, out of texts that come from servers, files and users."""

from __future__ import annotations

import re

# XML 1.0 has no way to write these, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def for_xml(text: str) -> str:
    """Text without what XML cannot hold."""
    return _FORBIDDEN.sub("\ufffd", text)


def for_terminal(text: str) -> str:
    """One line without escape sequences, which a terminal would obey, and without what turns its direction."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
