"""Problems of a scenario as sentences with a place: pydantic's errors, and mistakes between sections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from harness.errors import Problem
from harness.records import Loop
from harness.scenario.base import MISSING_KEY, MISTAKEN_KEY, UNKNOWN_KEY, near
from harness.scenario.engines import EngineBlock
from harness.scenario.limits import RESERVED_CLASSES, is_split, parse_limit
from harness.scenario.loads.kinds import KEYS_OF_SUSTAINED, Load
from harness.scenario.model import Scenario
from harness.scenario.places import right_place
from harness.scenario.workload import Workload
from harness.scenario.yaml_tree import Node, Place, join


def problems_of(error: ValidationError, tree: Node, *, of_scenario: bool = False) -> list[Problem]:
    """Return every mistake; a mistake that several expanded loads share is listed once.

    Args:
        of_scenario: Whether the file is a scenario, whose sections may be mistaken for each other.
    """
    found = []
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # The list is not empty: its items are wrong, and have problems of their own.
        place, key = _locate(tree, details)
        elsewhere = _elsewhere(details, key, tree) if of_scenario else ""
        found.append(place.problem(elsewhere or _message(details, key), key))
    return list(dict.fromkeys(found))


def _elsewhere(details: ErrorDetails, key: str, tree: Node) -> str:
    """Return the sentence for a key that another section has; "" if none has, or the section knows what is meant."""
    if details["type"] != UNKNOWN_KEY:
        return ""
    blocks = _items(_children(tree).get("engines"))
    names = [_children(block).get("engine") for block in blocks]
    steps = key.split(".")
    if steps[0] == "engines":
        names = names[int(steps[1]) :][:1] if len(steps) > 1 and steps[1].isdecimal() else []
    engines = tuple(name.value for name in names if name is not None and isinstance(name.value, str))
    where = right_place(key, details.get("input"), engines)
    return f"unknown key here; {where}" if where else ""


def placed(problems: Iterable[Problem], tree: Node) -> list[Problem]:
    """Return the distinct problems; those without a place get the place of their key."""
    found = []
    for problem in problems:
        if problem.file is None:
            node, key = _at(tree, problem.key)
            problem = node.anchor.problem(problem.message, key)
        found.append(problem)
    return list(dict.fromkeys(found))


def _at(tree: Node, wanted: str) -> tuple[Node, str]:
    """Return the value under a dotted key, or its nearest ancestor, and the key as the file numbers it."""
    node, key = tree, ""
    for step in wanted.split("."):
        inner = _children(node).get(step)
        if step.isdecimal() and int(step) < len(_items(node)):
            inner = _items(node)[int(step)]
        if inner is None:
            return node, wanted
        node, key = inner, inner.written or join(key, step)
    return node, key


def in_order(problems: list[Problem]) -> list[Problem]:
    """Sort by line within each file; files keep the order in which they first occur."""
    files = [problem.file for problem in problems]
    return sorted(problems, key=lambda one: (files.index(one.file), one.line or 0, one.column or 0))


def without_echoes(first: list[Problem], later: list[Problem]) -> list[Problem]:
    """Merge two lists of problems; if a value could not be read (a variable is missing), keep only that problem."""
    unread = {(one.file, one.line, one.column) for one in first if one.line is not None}
    return [*first, *(one for one in later if one not in first and (one.file, one.line, one.column) not in unread)]


def cross_problems(tree: Node) -> Iterator[Problem]:
    """Yield mistakes between sections: limits of unknown classes, mixed loads without classes, missing models."""
    top = _children(tree)
    classes = _children(top.get("classes"))
    for name, node in classes.items():
        if name in RESERVED_CLASSES or is_split(name):
            yield node.anchor.problem(f"`{name}` is reserved for results; rename the class", join("classes", name))
    yield from _limit_classes(top.get("limits"), "limits", classes)
    for path, load in _loads(top):
        keys = _children(load)
        yield from _limit_classes(keys.get("limits"), join(path, "limits"), classes)
        kind = keys.get("kind")
        if kind is not None and kind.value == "mixed" and not classes:
            message = "`mixed` needs `classes`; add them, or write `kind: sustained`"
            yield kind.place.problem(message, join(path, "kind"))
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
        engine, levels = keys.get("engine"), _items(keys.get("quantization"))
        every_level_has_one = bool(levels) and all("model" in _children(level) for level in levels)
        if engine is not None and engine.value == "llama-server" and not every_level_has_one:
            message = f"`{engine.value}` needs a model; write `model: tiny`, or a folder, `.gguf` file or hub id"
            yield engine.place.problem(message, f"engines.{i}.engine")


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
        kind, inner = _children(node).get("kind"), _children(node).get(str(step))
        if isinstance(step, int) and step < len(_items(node)):
            inner = _items(node)[step]
        if kind is not None and step == kind.value and kind_of is not node:
            kind_of = node  # The alternative's name can also be a key: `kind: steps` has `steps`.
        elif inner is not None:
            node, key = inner, inner.written or join(key, step)
        elif position == len(steps) - 1 and details["type"] in (MISSING_KEY, "missing"):
            return node.anchor, join(key, step)
    at_key = details["type"] in (UNKNOWN_KEY, MISTAKEN_KEY) or isinstance(node.value, dict)
    return (node.anchor if at_key else node.place), key


def _message(details: ErrorDetails, key: str) -> str:
    kind, context = details["type"], details.get("ctx", {})
    shown = _shown(details.get("input"))
    if kind == "value_error" and "error" in context:
        return str(context["error"])
    if kind == "literal_error":
        known = _words(context["expected"])
        match = get_close_matches(str(details.get("input")).lower(), known, n=1, cutoff=0.6)
        hint = f"; did you mean `{match[0]}`?" if match else ""
        return f"must be {' or '.join(f'`{word}`' for word in known)}, found {shown}{hint}"
    if kind == "union_tag_invalid":
        tag, known = str(context["tag"]), _words(context["expected_tags"])
        if "sustained" in known and tag in _BESIDE_SUSTAINED:
            return f"unknown kind `{tag}`; write `kind: sustained` with `{_BESIDE_SUSTAINED[tag]}`"
        return f"unknown {context['discriminator'].strip(_QUOTE)} `{tag}`; {near(tag, known)}"
    if kind == "union_tag_not_found":
        return _without_tag(context["discriminator"].strip(_QUOTE), details.get("input"))
    if kind == "string_type" and isinstance(details.get("input"), Mapping | list | tuple):
        named = isinstance(details.get("input"), Mapping) and key.endswith(".engine")
        return f"must be a text, found {shown}" + ("; write the keys beside `engine`, or under `options`" * named)
    if kind in ("tuple_type", "list_type"):
        return _no_list(key.rpartition(".")[2], details.get("input"))
    if kind in ("model_type", "model_attributes_type") and key.startswith("engines.") and shown[:1] == "'":
        return f"{_MAPPING.format(shown=shown)}; write `{{engine: {shown.strip(_QUOTE)}}}`"
    bare = shown.strip("'")
    unquote = f"; write {bare} without quotes" if shown[:1] == "'" and bare.replace(".", "", 1).isdecimal() else ""
    return _SIMPLE[kind].format(shown=shown, unquote=unquote, **context) if kind in _SIMPLE else details["msg"]


def _no_list(section: str, given: Any) -> str:
    """Return the sentence for a value that must be a list; a mapping may also have a likely wrong key."""
    sentence = _LIST.format(shown=_shown(given))
    if not isinstance(given, Mapping):
        return sentence
    if section == "load" and "kind" not in given:
        return f"{sentence}; each {_without_tag('kind', given)}"
    fixes = EngineBlock.mistaken_keys if section == "engines" else {}
    wrong = [f"; `{key}`: {fix.format(value=given[key])}" for key, fix in fixes.items() if key in given]
    return sentence + "".join(wrong)


def _without_tag(name: str, given: Any) -> str:
    """Return the sentence for a mapping that lacks its `kind` or `dist`; its other keys may tell which is meant."""
    if name != "kind":
        return f"needs `{name}`, such as `{name}: fixed`"
    keys = given if isinstance(given, Mapping) else {}
    if "burst_rate" in keys or "spike" in keys:
        return "needs `kind`; write `kind: burst`"
    named = [word for word in KEYS_OF_SUSTAINED if keys.get(word)]
    if not named:
        return "needs `kind`, such as `kind: single_user`"
    return f"needs `kind`; write `kind: sustained` with `{KEYS_OF_SUSTAINED[named[0]]}: {given[named[0]]}`"


_QUOTE = "'"
# Words mistaken for a kind of load, each with the key to write beside `kind: sustained`.
_BESIDE_SUSTAINED = {"users": "users: 4", "rate": "rate: 2"} | {
    name: f"arrivals: {name}" for name in ("constant", "poisson", "gamma")
}
_LIST = "must be a list, found {shown}; write `[...]` or a `- ` before each item"
_MAPPING = "must be a mapping of keys, found {shown}"
_SIMPLE = {
    "greater_than": "must be more than {gt:g}, found {shown}",
    "greater_than_equal": "must be at least {ge:g}, found {shown}",
    "less_than": "must be less than {lt:g}, found {shown}",
    "less_than_equal": "must be at most {le:g}, found {shown}",
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "dict_type": _MAPPING,
    "float_type": "must be a number, found {shown}{unquote}",
    "int_type": "must be a whole number, found {shown}{unquote}",
    "bool_type": "must be true or false, found {shown}",
    "string_type": "must be a text, found {shown}; put it in quotes",
    "finite_number": "must be a finite number, found {shown}",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "contains characters that are not allowed here: {shown}",
    "path_type": "must be a path, found {shown}",
}


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


def conversation_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield the mistakes in conversations."""
    workload, loads = scenario.workload, loads_by_key(scenario)
    talks = [load for load in loads.values() if load.loop is Loop.PARTLY_OPEN]
    yield from _load_problems(loads, workload)
    for name, one in scenario.classes.items():
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
        elif load.kind == "mixed":
            yield Problem("`workload.turns` cannot be combined with `kind: mixed`; remove the classes", key=key)
        elif load.user_count is None:
            why = f"`workload.turns` needs users who wait for replies, and a `{load.kind}` at a rate has none"
            yield Problem(f"{why}; write `users`, `kind: single_user` or `kind: sessions`", key=key)


def _prompt_problems(workload: Workload) -> Iterator[Problem]:
    prompts = workload.prompts
    if prompts is None or (isinstance(prompts, Path) and not prompts.is_file()):
        return
    from harness.scenario.files.prompts import summary  # numpy is heavy, and `harness list` does not need it

    if not summary(prompts).all_text:
        why = "contains prompts as token ids, to which no reply can be appended; write texts for conversations"
        yield Problem(why, key="workload.prompts", file=str(prompts) if isinstance(prompts, Path) else None)


def length_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield each length of a load's own prompts that the workload's prompts cannot have."""
    for key, load in loads_by_key(scenario).items():
        if getattr(load, "prompt_tokens", None) is None:
            continue
        workload = load.workload_of(scenario.workload)
        why = workload.too_short_for_its_prefix()
        if workload.prompts is not None:
            why = "cannot be combined with `workload.prompts`, which have lengths of their own; leave it out"
        if why:
            yield Problem(why, key=f"{key}.prompt_tokens")


def search_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield the workloads whose requests are cancelled where a search for the largest rate would judge them."""
    if not any(load.kind == "saturate" for load in loads_by_key(scenario).values()):
        return
    workloads = {"workload": scenario.workload}
    workloads |= {f"classes.{name}.workload": one.workload for name, one in scenario.classes.items() if one.workload}
    for key, workload in workloads.items():
        if workload.cancel is not None:
            why = "a search cannot judge requests that are cancelled; leave `cancel` out"
            yield Problem(why, key=f"{key}.cancel")


def name_problems(scenario: Scenario) -> Iterator[Problem]:
    """Yield each load whose name another load before it has: their results would be mixed up."""
    seen: set[tuple[str, str]] = set()
    for key, load in loads_by_key(scenario).items():
        if load.name is None:
            continue
        named = key.rpartition(".")[0], load.name
        if named in seen:
            yield Problem(f"another load is named `{load.name}` too; rename one of them", key=f"{key}.name")
        seen.add(named)


def loads_by_key(scenario: Scenario) -> dict[str, Load]:
    """Return all loads, those of the engines included, by their keys in the file."""
    found = {f"load.{i}": load for i, load in enumerate(scenario.load)}
    for i, block in enumerate(scenario.engines):
        found |= {f"engines.{i}.load.{j}": load for j, load in enumerate(block.load or ())}
    return found
