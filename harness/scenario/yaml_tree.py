"""Tree of a YAML 1.2 text, with file, line and column of every value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from harness.errors import Problem

MOST_VALUES = 100_000
_LONGEST_SHOWN = 60
_PLAIN_TAGS = re.compile(r"tag:yaml\.org,2002:(str|int|float|bool|null|timestamp|map|seq)")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEXADECIMAL = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
    | {".nan": float("nan"), ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf")}
)


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a value; lines and columns count from 1, and relative paths start at `folder`."""

    file: str
    line: int | None = None
    column: int | None = None
    folder: Path = Path()

    def problem(self, message: str, key: str = "") -> Problem:
        """Return a problem at this place."""
        return Problem(message, key, self.file, self.line, self.column)


Value: TypeAlias = "dict[str, Node] | list[Node] | str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Node:
    """Value with its place, the place of its key if any, and the dotted key in the file's numbering (`written`)."""

    value: Value
    place: Place
    key: Place | None = None
    written: str | None = None

    @property
    def anchor(self) -> Place:
        return self.key or self.place

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


@dataclass(slots=True)
class _Builder:
    file: str
    folder: Path
    problems: list[Problem] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    count: int = 0

    def place(self, node: Any) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1, self.folder)

    def build(self, node: Any, path: str = "", key: Place | None = None) -> Node:
        place = self.place(node)
        self.count += 1
        if id(node) in self.open:
            raise _TooDeep(place.problem("an alias is inside its own anchor", path))
        if self.count > MOST_VALUES:
            raise _TooDeep(place.problem(f"more than {MOST_VALUES} values", path))
        if not _PLAIN_TAGS.fullmatch(str(node.tag)):
            self.problems.append(place.problem(f"the tag `{node.tag}` is not supported; write plain values", path))
        self.open.append(id(node))
        value = self._value(node, path)
        self.open.pop()
        return Node(value, place, key)

    def _value(self, node: Any, path: str) -> Value:
        if isinstance(node, MappingNode):
            return dict(self._items(node, path))
        if isinstance(node, SequenceNode):
            return [self.build(child, join(path, index)) for index, child in enumerate(node.value)]
        return core_scalar(str(node.value)) if node.style is None else str(node.value)

    def _items(self, node: MappingNode, path: str) -> Iterator[tuple[str, Node]]:
        seen: dict[str, Place] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node)
            if not isinstance(key_node, ScalarNode):
                self.problems.append(place.problem("a key must be a plain word", path))
                continue
            name = str(key_node.value)
            if name in seen:
                why = f"given twice, first in line {seen[name].line}; keep one"
                self.problems.append(place.problem(why, join(path, name)))
                continue
            seen[name] = place
            yield name, self.build(value_node, join(path, name), place)


class _TooDeep(Exception):
    """Tree without end, or too large; its argument is the problem."""


def parse(text: str, file: str, folder: Path) -> tuple[Node | None, list[Problem]]:
    """Return the tree of a YAML text and its problems; no tree if the text is empty or not YAML."""
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        why = _layout_mistake(text.splitlines(), mark.line if mark else -1, error.problem or "")
        return None, [place.problem(f"is not YAML: {why or error.problem or error.context}")]
    except YAMLError as error:
        return None, [Place(file).problem(f"is not YAML: {str(error).splitlines()[0]}")]
    except RecursionError:
        return None, [Place(file).problem("is nested too deeply")]
    if root is None:
        return None, [Place(file).problem("is empty; write at least `engines:` and `load:`")]
    builder = _Builder(file, folder)
    try:
        return builder.build(root), builder.problems
    except _TooDeep as error:
        return None, [*builder.problems, error.args[0]]


def _layout_mistake(lines: Sequence[str], number: int, problem: str) -> str | None:
    """Return wrong indentation in plain words; None if the problem is another one."""
    above = next((at for at in range(number - 1, -1, -1) if lines[at].split("#")[0].strip()), None)
    if above is None or number >= len(lines):
        return None
    line = lines[number]
    if "'\\t'" in problem:
        return f"line {number + 1} contains a tab; indent it with spaces"
    own, before = (len(one) - len(one.lstrip(" ")) for one in (line, lines[above]))
    if "<block end>" not in problem and not ("mapping values" in problem and own > before):
        return None
    how = "more than" if own > before else "less than" if own < before else "like"
    shown = line.strip()[:_LONGEST_SHOWN]
    return f"line {number + 1} `{shown}` is indented {how} line {above + 1}; align it with the keys or items beside it"


def core_scalar(text: str) -> str | int | float | bool | None:
    """Return the value of an unquoted scalar under the core schema of YAML 1.2."""
    key = text.lower() if text[-4:].lower() in (".nan", ".inf") else text
    if key in _CONSTANTS:
        constant: bool | float | None = _CONSTANTS[key]
        return constant
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 1000 else text
    if _OCTAL_OR_HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


def join(path: str, part: str | int) -> str:
    """Return a dotted key with one more part."""
    return f"{path}.{part}" if path else str(part)
