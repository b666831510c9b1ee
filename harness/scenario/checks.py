"""Problems of a scenario as sentences with a place: pydantic's errors, and mistakes between sections.

Options of engines are checked by constructing each engine without starting it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from engines import engine_class
from engines.base import EngineError, EngineSpec, ModelReference
from harness.errors import Problem
from harness.records import Loop
from harness.scenario.base import MISSING_KEY, NOT_BUILT, UNKNOWN_KEY, near
from harness.scenario.limits import RESERVED_CLASSES, is_split, parse_limit
from harness.scenario.loads import Load
from harness.scenario.workload import TrafficClass, Workload
from harness.scenario.yaml_tree import Node, Place, join

if TYPE_CHECKING:
    from harness.scenario.engines import EngineBlock
    from harness.scenario.model import Scenario

_LIST_KINDS = ("tuple_type", "list_type")
_MAPPING_KINDS = ("model_type", "model_attributes_type", "dict_type")
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def problems_of(error: ValidationError, tree: Node) -> list[Problem]:
    """Return every mistake; a mistake that several expanded loads share is listed once."""
    found: dict[str, Problem] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # The list is not empty: its items are wrong, and have problems of their own.
        place, key = _locate(tree, details)
        problem = place.problem(_message(details, key), key)
        found.setdefault(str(problem), problem)
    return list(found.values())


def placed(problems: Iterable[Problem], tree: Node) -> list[Problem]:
    """Return the distinct problems; those without a place get the place of their key."""
    found: dict[str, Problem] = {}
    for problem in problems:
        if problem.file is None:
            node, key = _at(tree, problem.key)
            problem = node.anchor.problem(problem.message, key)
        found.setdefault(str(problem), problem)
    return list(found.values())


def _at(tree: Node, wanted: str) -> tuple[Node, str]:
    """Return the value under a dotted key, or its nearest ancestor, and the key as the file numbers it."""
    node, key = tree, ""
    for step in wanted.split("."):
        inner = _children(node).get(step)
        if inner is None and step.isdecimal():
            items = _items(node)
            inner = items[int(step)] if int(step) < len(items) else None
        if inner is None:
            return node, wanted
        node, key = inner, inner.written or join(key, step)
    return node, key


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort by line within each file; files keep the order in which they first occur."""
    listed = list(problems)
    files = list(dict.fromkeys(problem.file for problem in listed))
    return sorted(listed, key=lambda one: (files.index(one.file), one.line or 0, one.column or 0))


def without_echoes(first: Iterable[Problem], later: Iterable[Problem]) -> list[Problem]:
    """Merge two lists of problems; if a value could not be read (a variable is missing), keep only that problem."""
    read = list(first)
    unread = {(one.file, one.line, one.column) for one in read if one.line is not None}
    echoes = [one for one in later if one not in read and (one.file, one.line, one.column) in unread]
    return [*read, *(one for one in later if one not in read and one not in echoes)]


def cross_problems(tree: Node) -> Iterator[Problem]:
    """Yield mistakes between sections: limits of unknown classes, mixed loads without classes, missing models."""
    top = _children(tree)
    classes = _children(top.get("classes"))
    for name, node in classes.items():
        if name in RESERVED_CLASSES or is_split(name):
            yield node.place.problem(f"`{name}` is reserved for results; rename the class", join("classes", name))
    yield from _limit_classes(top.get("limits"), "limits", classes)
    for path, load in _loads(top):
        keys = _children(load)
        yield from _limit_classes(keys.get("limits"), join(path, "limits"), classes)
        kind = keys.get("kind")
        if kind is not None and kind.value == "mixed" and not classes:
            yield kind.place.problem(
                "`mixed` needs `classes`; add them, or write `kind: sustained`", join(path, "kind")
            )
    yield from _missing_models(top)


def _loads(top: Mapping[str, Node]) -> Iterator[tuple[str, Node]]:
    for i, load in enumerate(_items(top.get("load"))):
        yield load.written or f"load.{i}", load
    for i, block in enumerate(_items(top.get("engines"))):
        for j, load in enumerate(_items(_children(block).get("load"))):
            yield load.written or f"engines.{i}.load.{j}", load


def _limit_classes(limits: Node | None, path: str, classes: Mapping[str, Node]) -> Iterator[Problem]:
    for i, node in enumerate(_items(limits)):
        if not isinstance(node.value, str):
            continue
        try:
            name = parse_limit(node.value).class_name
        except ValueError:
            continue  # The model reports this mistake.
        if name is not None and name not in classes and not is_split(name):
            hint = near(name, classes) if classes else "there are no `classes`"
            yield node.place.problem(f"unknown class `{name}`; {hint}", join(path, i))


def _missing_models(top: Mapping[str, Node]) -> Iterator[Problem]:
    named = top.get("model")
    if named is not None and named.value not in (None, []):
        return
    for i, block in enumerate(_items(top.get("engines"))):
        keys = _children(block)
        engine = keys.get("engine")
        if engine is not None and engine.value == "llama-server" and not _every_level_has_a_model(keys):
            message = f"`{engine.value}` needs a model; write `model: tiny`, or a folder, `.gguf` file or hub id"
            yield engine.place.problem(message, f"engines.{i}.engine")


def _every_level_has_a_model(keys: Mapping[str, Node]) -> bool:
    levels = _items(keys.get("quantization"))
    return bool(levels) and all("model" in _children(level) for level in levels)


def _children(node: Node | None) -> Mapping[str, Node]:
    return node.value if node is not None and isinstance(node.value, dict) else {}


def _items(node: Node | None) -> list[Node]:
    return node.value if node is not None and isinstance(node.value, list) else []


def _locate(tree: Node, details: ErrorDetails) -> tuple[Place, str]:
    """Return the place and the dotted key of an error, without the alternatives' names that pydantic adds."""
    node, key = tree, ""
    steps = details["loc"]
    kind_of: Node | None = None
    for position, step in enumerate(steps):
        value, last = node.value, position == len(steps) - 1
        if step == _kind(node) and kind_of is not node:
            kind_of = node  # The alternative's name can also be a key: `kind: steps` has `steps`.
        elif isinstance(value, dict) and step in value:
            node = value[str(step)]
            key = node.written or join(key, step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            node = value[step]
            key = node.written or join(key, step)
        elif last and details["type"] in (MISSING_KEY, "missing"):
            return node.anchor, join(key, step)
    at_key = details["type"] in (UNKNOWN_KEY, NOT_BUILT) or isinstance(node.value, dict)
    return (node.anchor if at_key else node.place), key


def _kind(node: Node) -> Any:
    kind = _children(node).get("kind")
    return None if kind is None else kind.value


def _message(details: ErrorDetails, key: str) -> str:
    kind, context = details["type"], details.get("ctx", {})
    shown = _shown(details.get("input"))
    if kind == "value_error" and "error" in context:
        return str(context["error"])
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {context[name]:g}, found {shown}"
    if kind == "literal_error":
        return f"must be {_either(context['expected'])}, found {shown}{_did_you_mean(details, context['expected'])}"
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        known = _words(context["expected_tags"])
        if "sustained" in known and tag in _KEYS_OF_SUSTAINED:
            return f"unknown kind `{tag}`; write `kind: sustained` with `{_KEYS_OF_SUSTAINED[tag]}`"
        return f"unknown {context['discriminator'].strip(_QUOTE)} `{tag}`; {near(tag, known)}"
    if kind == "union_tag_not_found":
        name = context["discriminator"].strip(_QUOTE)
        return f"needs `{name}`, such as `{name}: {_FIRST[name]}`"
    if kind == NOT_BUILT:
        message = details["msg"]
        return message if message.startswith("`") else f"`{key.rpartition('.')[2]}` {message}"
    simple = _SIMPLE.get(kind)
    return simple(shown) if simple else details["msg"]


_QUOTE = "'"
_KEYS_OF_SUSTAINED = {"users": "users: 4", "rate": "rate: 2"} | {
    name: f"arrivals: {name}" for name in ("constant", "poisson", "gamma")
}
"""Words mistaken for a kind of load, each with the key to write beside `kind: sustained`."""
_FIRST = {"kind": "single_user", "dist": "fixed"}
_SIMPLE: dict[str, Callable[[str], str]] = (
    dict.fromkeys(_LIST_KINDS, lambda shown: f"must be a list, found {shown}; write `[...]` or a `- ` before each item")
    | dict.fromkeys(_MAPPING_KINDS, lambda shown: f"must be a mapping of keys, found {shown}")
    | {
        "float_type": lambda shown: f"must be a number, found {shown}{_quoted_number(shown)}",
        "int_type": lambda shown: f"must be a whole number, found {shown}{_quoted_number(shown)}",
        "bool_type": lambda shown: f"must be true or false, found {shown}",
        "string_type": lambda shown: f"must be a text, found {shown}; put it in quotes",
        "finite_number": lambda shown: f"must be a finite number, found {shown}",
        "too_short": lambda _: "must not be empty",
        "string_too_short": lambda _: "must not be empty",
        "string_pattern_mismatch": lambda shown: f"contains characters that are not allowed here: {shown}",
        "path_type": lambda shown: f"must be a path, found {shown}",
    }
)


def _quoted_number(shown: str) -> str:
    inside = shown.strip("'")
    number = inside.replace(".", "", 1).isdecimal()
    return f"; write {inside} without quotes" if number and shown.startswith("'") else ""


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _words(expected: str) -> list[str]:
    return [word.strip(" '") for word in expected.replace(" or ", ",").split(",") if word.strip(" '")]


def _either(expected: str) -> str:
    return " or ".join(f"`{word}`" for word in _words(expected))


def _did_you_mean(details: ErrorDetails, expected: str) -> str:
    match = get_close_matches(str(details.get("input")), _words(expected), n=1, cutoff=0.6)
    return f"; did you mean `{match[0]}`?" if match else ""


def engine_problems(scenario: Scenario) -> list[Problem]:
    """Return wrong options of the engines, each with its key.

    An engine that cannot be imported here is not checked; its cells are skipped with the reason.
    """
    model = ModelReference(scenario.model[0].name) if scenario.model else None
    return [problem for number, block in enumerate(scenario.engines) for problem in _of_block(block, number, model)]


def _of_block(block: EngineBlock, number: int, model: ModelReference | None) -> Iterator[Problem]:
    own = next((level.model for level in block.quantization if level.model), None)
    model = model or (ModelReference(own) if own else None)
    shared = {**block.options, **block.http_options()}
    if not block.variants:
        yield from _wrong(block, shared, model, f"engines.{number}.options")
    for name, variant in block.variants.items():
        merged = variant.merged_options()
        key = f"engines.{number}.variants.{name}" if merged else f"engines.{number}.options"
        yield from _wrong(block, {**shared, **merged}, model, key)


def _wrong(block: EngineBlock, options: Mapping[str, Any], model: ModelReference | None, key: str) -> Iterator[Problem]:
    try:
        kind = engine_class(block.engine)
    except EngineError:
        return
    try:
        kind(EngineSpec(block.engine, model, options=options))
    except EngineError as error:
        yield Problem(str(error), key=key)


def conversation_problems(
    loads: Mapping[str, Load], workload: Workload, classes: Mapping[str, TrafficClass]
) -> Iterator[Problem]:
    """Yield the mistakes in conversations; `loads` are named by their keys in the file."""
    talks = [load for load in loads.values() if load.loop is Loop.PARTLY_OPEN]
    yield from _load_problems(loads, workload)
    for name, one in classes.items():
        if one.workload is not None and (one.workload.turns or one.workload.think_time):
            why = "conversations cannot be mixed with other traffic; write `turns` in `workload`"
            yield Problem(why, key=f"classes.{name}.workload")
    if workload.think_time is not None and workload.turns is None and not talks:
        why = "applies between the turns of a conversation; add `turns`, or write `think_time` in the load"
        yield Problem(why, key="workload.think_time")
    if workload.repeat is not None and talks:
        why = "cannot be combined with `kind: sessions`, where every turn has another history; leave it out"
        yield Problem(why, key="workload.repeat")
    if talks or workload.turns is not None:
        yield from _prompt_problems(workload)


def _load_problems(loads: Mapping[str, Load], workload: Workload) -> Iterator[Problem]:
    for key, load in loads.items():
        if load.loop is Loop.PARTLY_OPEN:
            if load.turns_of(workload) is None:
                yield Problem("needs `turns`, such as `turns: 3`, here or in `workload`", key=key)
        elif workload.turns is None:
            continue
        elif load.mixes_classes:
            yield Problem("`workload.turns` cannot be combined with `kind: mixed`; remove the classes", key=key)
        elif load.user_count is None:
            why = f"`workload.turns` needs users who wait for replies, and a `{load.kind}` at a rate has none"
            yield Problem(f"{why}; write `users`, `kind: single_user` or `kind: sessions`", key=key)


def _prompt_problems(workload: Workload) -> Iterator[Problem]:
    if workload.prompts is None or not workload.prompts.is_file():
        return
    from harness.scenario.prompt_files import FilePrompts  # numpy is heavy, and `harness list` does not need it

    if not FilePrompts(workload.prompts, None).all_text:
        why = "contains prompts as token ids, to which no reply can be appended; write texts for conversations"
        yield Problem(why, key="workload.prompts", file=str(workload.prompts))


def loads_by_key(loads: Sequence[Load], blocks: Sequence[Sequence[Load] | None]) -> dict[str, Load]:
    """Return all loads of a scenario, also those of its engine blocks, by their keys in the file."""
    found: dict[str, Load] = {f"load.{number}": load for number, load in enumerate(loads)}
    for place, own in enumerate(blocks):
        found |= {f"engines.{place}.load.{number}": load for number, load in enumerate(own or ())}
    return found
