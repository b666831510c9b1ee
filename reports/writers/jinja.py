"""Templates of pages: texts are escaped, an unknown name is an error, and each is compiled once in a process."""

from __future__ import annotations

import re

from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup, escape

_TICKS = re.compile(r"`([^`]+)`")


class Compiled(BytecodeCache):
    """Compiled templates in memory: a page has an environment of its own, as names in it are the page's."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.known:
            bucket.bytecode_from_string(self.known[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.known[bucket.key] = bucket.bytecode_to_string()


_COMPILED = Compiled()


def templates() -> Environment:
    """Return an environment of all templates."""
    jinja = Environment(
        loader=PackageLoader("reports.writers"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_COMPILED,
    )
    jinja.filters["ticks"] = ticks
    return jinja


def ticks(text: str) -> Markup:
    """Return a text with what stands between backticks as code."""
    return Markup(_TICKS.sub(r"<code>\1</code>", str(escape(text))))
