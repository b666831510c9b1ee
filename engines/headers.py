"""Request headers that a scenario gives."""

from __future__ import annotations

import re

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIGNS = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_OURS = frozenset({"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"})


def check_header(name: str, value: str = "") -> None:
    """Raises ValueError, one sentence without the value, for a header that cannot be sent or is not the user's."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header; write letters, digits and `-`")
    if name.lower() in _OURS:
        raise ValueError(f"the header {name} is set by the harness; leave it out")
    if not _SIGNS.fullmatch(value):
        raise ValueError(f"the value of the header {name} holds a line break or a sign that no header can carry")
