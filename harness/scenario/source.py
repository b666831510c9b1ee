"""Source files of a scenario as one tree of values with places.

The order is: `extends`, `--set`, `${VAR}`, relative paths, lists of rates.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from engines.http.addresses import TLS_FILES
from engines.secrets import looks_secret
from harness.errors import Problem, shortened
from harness.scenario.loads.kinds import LIST_VALUED
from harness.scenario.templates import shipped_names
from harness.scenario.yaml_tree import Node, Place, join, parse

_VARIABLE = re.compile(
    r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|(?P<wrong>\$\{)"
)
_ENV_OF_ENGINE = re.compile(r"engines\.\d+\.env\..+")
_SAFE_PLACES = (
    "write its name under `api_key_env` or `headers_env`, or use it in the engine's `env` for a variable whose name "
    "says that it is a secret, such as HF_TOKEN"
)


@dataclass(slots=True)
class Source:
    """Merged tree of a scenario (None if nothing can be checked) and the problems of reading it."""

    tree: Node | None
    problems: list[Problem]


def read(path: Path, *, sets: Sequence[str], labels: Sequence[str], env: Mapping[str, str] | None) -> Source:
    """Read a scenario file and everything it extends."""
    variables = os.environ if env is None else env
    return _completed(_read_with_parents(path, variables, ()), sets, labels, variables)


def read_text(
    text: str, name: str, *, sets: Sequence[str], labels: Sequence[str], env: Mapping[str, str] | None
) -> Source:
    """Read a scenario's text, which extends no file; problems call it `name`."""
    return _completed(Source(*parse(text, name, Path())), sets, labels, os.environ if env is None else env)


def _completed(source: Source, sets: Sequence[str], labels: Sequence[str], variables: Mapping[str, str]) -> Source:
    """Return the source with `--set`, labels, variables and located files."""
    if source.tree is None:
        return source
    for text in sets:
        _apply_set(source, text)
    for text in labels:
        _apply_label(source, text)
    source.tree = _fill(source.tree, variables, "", source.problems)
    source.tree = _located(source.tree, source.problems)
    source.tree = _expanded(source.tree)
    return source


def _read_with_parents(path: Path, env: Mapping[str, str], children: tuple[Path, ...]) -> Source:
    source = _read_file(path)
    if source.tree is None or not isinstance(source.tree.value, dict):
        return source
    extends = source.tree.value.pop("extends", None)
    if extends is None or extends.value is None:
        return source
    found: list[Problem] = []
    filled = _fill(extends, env, "extends", found)
    line = (*children, path)
    if found:
        return Source(source.tree, [*source.problems, *found])
    try:
        parent_path = path.parent / Path(str(filled.value)).expanduser()
        wrong = _wrong_parent(filled.value, parent_path, line)
    except (OSError, RuntimeError) as error:
        wrong = impossible(str(filled.value), error)
    if wrong:
        return Source(source.tree, [*source.problems, extends.place.problem(wrong, "extends")])
    parent = _read_with_parents(parent_path, env, line)
    merged = source.tree if parent.tree is None else merge(parent.tree, source.tree)
    return Source(merged, [*source.problems, *parent.problems])


def _wrong_parent(given: object, parent: Path, line: tuple[Path, ...]) -> str:
    """Return why a file cannot be extended, "" if it can. line: the files that lead to it."""
    if not isinstance(given, str):
        return "must be the path of one file"
    if parent.resolve() in {one.resolve() for one in line}:
        chain = " extends ".join(str(one) for one in (*line, parent))
        return f"extends itself: {chain}; break the circle"
    if not parent.is_file():
        why = "is a folder" if parent.is_dir() else "does not exist"
        return f"{parent} {why}; a path here is relative to this file"
    return ""


def _read_file(path: Path) -> Source:
    place = Place(str(path))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Source(None, [place.problem(f"no such file; {_instead_of(path)}")])
    except IsADirectoryError:
        return Source(None, [place.problem("is a folder; name a scenario file in it")])
    except UnicodeDecodeError as error:
        return Source(None, [place.problem(f"is not UTF-8 text (byte {error.start}); save it as UTF-8")])
    except OSError as error:
        return Source(None, [place.problem(f"cannot be read: {error.strerror or error}")])
    tree, problems = parse(text, str(path), path.parent)
    if tree is None or isinstance(tree.value, dict):
        return Source(tree, problems)
    if tree.value is None:
        return Source(None, [place.problem("is empty; write at least `engines:` and `load:`")])
    wrong = tree.place.problem("must be a mapping at the top, such as `engines: [...]` and `load: [...]`")
    return Source(None, [*problems, wrong])


def _instead_of(path: Path) -> str:
    """Return the advice for a file that does not exist."""
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", str(path)):
        return f"the address of a server begins with http:// or https://: `harness run http://{path}`"
    if path.stem in shipped_names():
        return f"`{path.stem}` names the shipped scenario: `harness run {path.stem}`"
    near = get_close_matches(path.stem, shipped_names(), n=1, cutoff=0.8)
    shipped = f"did you mean the shipped scenario `{near[0]}`? Or " if near else ""
    return f"{shipped}write a new one with `harness init --out my.yaml`"


def merge(parent: Node, child: Node) -> Node:
    """Return the child merged over the parent: mappings merge, everything else replaces."""
    if not (isinstance(parent.value, dict) and isinstance(child.value, dict)):
        return child
    merged = dict(parent.value)
    for key, value in child.value.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return replace(child, value=merged)


def _apply_set(source: Source, text: str) -> None:
    path, equals, written = text.partition("=")
    place = Place(f"--set {path}", folder=Path.cwd())  # The place omits the value, which may be a secret.
    parts = re.sub(r"\[(\d+)\]", r".\1", path.strip()).split(".")
    if not equals or not all(parts):
        source.problems.append(place.problem("must be `key=value`, such as `load.0.rate=4`"))
        return
    if parts == ["extends"]:
        source.problems.append(place.problem("must stand in the file: `--set` comes after the file that it extends"))
        return
    value, problems = (Node(None, place), []) if not written.strip() else parse(written, place.file, place.folder)
    if value is None:
        source.problems += [place.problem(problem.message) for problem in problems]
        return
    _apply(source, parts, _moved(value, place), place)


def _apply_label(source: Source, text: str) -> None:
    name, equals, value = text.partition("=")
    place = Place(f"--label {name}", folder=Path.cwd())
    if not equals or not name.strip():
        source.problems.append(place.problem("must be `key=value`, such as `commit=abc123`"))
        return
    _apply(source, ["labels", name.strip()], Node(value, place, place), place)


def _apply(source: Source, parts: Sequence[str], value: Node, place: Place) -> None:
    assert source.tree is not None
    changed = _set(source.tree, parts, value, place, "")
    if isinstance(changed, Problem):
        source.problems.append(changed)
    else:
        source.tree = changed


def _moved(node: Node, place: Place) -> Node:
    """Return the values, all at one place."""
    if isinstance(node.value, dict):
        return Node({key: _moved(child, place) for key, child in node.value.items()}, place, place)
    if isinstance(node.value, list):
        return Node([_moved(child, place) for child in node.value], place, place)
    return Node(node.value, place, place)


def _set(node: Node, parts: Sequence[str], value: Node, place: Place, path: str) -> Node | Problem:
    """Return the tree with one value replaced; missing mappings are created."""
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    here = join(path, head)
    if isinstance(node.value, list):
        if not head.isdecimal() or int(head) >= len(node.value):
            have = f"write an index from 0 to {len(node.value) - 1}" if node.value else "it is empty"
            return place.problem(f"`{path}` is a list and has no `{head}`; {have}")
        index = int(head)
        changed = _set(node.value[index], rest, value, place, here)
        if isinstance(changed, Problem):
            return changed
        return replace(node, value=[*node.value[:index], changed, *node.value[index + 1 :]])
    if isinstance(node.value, dict) or node.value is None:
        children = node.value or {}
        if head not in children and rest and (near := get_close_matches(head, children, n=1, cutoff=0.7)):
            return place.problem(f"there is no `{here}`; did you mean `{join(path, near[0])}`?")
        child = children.get(head, Node(None, place, place))
        changed = _set(child, rest, value, place, here)
        return changed if isinstance(changed, Problem) else replace(node, value={**children, head: changed})
    return place.problem(f"`{path}` is a plain value and has no `{head}`; set `{path}` itself")


def _fill(node: Node, env: Mapping[str, str], path: str, problems: list[Problem]) -> Node:
    """Return the tree with `${VAR}` and `${VAR:-default}` filled in every text; `$${` gives `${`."""
    if isinstance(node.value, dict):
        children = {key: _fill(child, env, join(path, key), problems) for key, child in node.value.items()}
        return replace(node, value=children)
    if isinstance(node.value, list):
        items = [_fill(child, env, join(path, index), problems) for index, child in enumerate(node.value)]
        return replace(node, value=items)
    if not isinstance(node.value, str) or "${" not in node.value:
        return node

    def filled(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        if match["wrong"]:
            why = "`${` is not closed or names no variable; write `${NAME}`, or `$${` for a literal `${`"
            problems.append(node.place.problem(why, path))
            return ""
        name, default = match["name"], match["default"]
        if default is not None and "${" in default:
            why = f"the default of {name} has another variable, which is not filled in; write a plain default"
            problems.append(node.place.problem(why, path))
            return ""
        is_kept = _ENV_OF_ENGINE.fullmatch(path) and looks_secret(path.rpartition(".")[2])
        if looks_secret(name) and not is_kept:
            why = f"the value of {name} would be stored with the results; {_SAFE_PLACES}"
            problems.append(node.place.problem(why, path))
        value = env.get(name)
        if default is not None:
            return value or default[2:]
        if value is None:
            hint = f"set it, or write `${{{name}:-default}}`"
            problems.append(node.place.problem(f"the environment variable {name} is not set; {hint}", path))
        return value or ""

    return replace(node, value=_VARIABLE.sub(filled, node.value))


def _located(tree: Node, problems: list[Problem]) -> Node:
    """Return the tree with the paths of named files resolved against the file that contains them."""

    def moved(node: Node, keys: Sequence[str], path: str) -> Node:
        if not keys:
            named = isinstance(node.value, str) and (path, node.value) != ("quality.text", "builtin")
            return _existing(node, path, problems) if named else node
        if isinstance(node.value, list) and keys[0] == "*":
            return replace(node, value=[moved(one, keys[1:], join(path, i)) for i, one in enumerate(node.value)])
        if not isinstance(node.value, dict):
            return node
        names = [*node.value] if keys[0] == "*" else [key for key in keys[:1] if key in node.value]
        changed = {name: moved(node.value[name], keys[1:], join(path, name)) for name in names}
        return replace(node, value={**node.value, **changed})

    for keys in (
        ("workload", "prompts"),
        ("classes", "*", "workload", "prompts"),
        ("load", "*", "file"),
        ("quality", "text"),
        ("plan", "demand"),
        ("plan", "prices"),
        ("engines", "*", "load", "*", "file"),
        *(("engines", "*", "tls", name) for name in TLS_FILES),
        *(("engines", "*", "variants", "*", "tls", name) for name in TLS_FILES),
    ):
        tree = moved(tree, keys, "")
    return tree


def _existing(node: Node, path: str, problems: list[Problem]) -> Node:
    try:
        found = node.place.folder / Path(str(node.value)).expanduser()
        wrong = "" if found.is_file() else f"{found} is not a file; a path here is relative to {node.place.folder}"
    except (OSError, RuntimeError) as error:
        found, wrong = Path(shortened(str(node.value))), impossible(str(node.value), error)  # is looked at again
    if wrong:
        problems.append(node.place.problem(wrong, path))
    return replace(node, value=str(found))


def impossible(path: str, error: OSError | RuntimeError) -> str:
    """Return the problem of a path that cannot be looked at. A RuntimeError is about its `~`."""
    why = error.strerror if isinstance(error, OSError) else "there is no such home folder"
    return f"{shortened(path)}: {why}; name another file"


def _expanded(tree: Node) -> Node:
    """Return the tree with one load per value of a list such as `rate: [1, 2]`, also in the engines' own loads."""
    tree = _expanded_block(tree, "load")
    engines = tree.value.get("engines") if isinstance(tree.value, dict) else None
    if not isinstance(tree.value, dict) or engines is None or not isinstance(engines.value, list):
        return tree
    blocks = [_expanded_block(block, f"engines.{i}.load") for i, block in enumerate(engines.value)]
    return replace(tree, value={**tree.value, "engines": replace(engines, value=blocks)})


def _expanded_block(block: Node, path: str) -> Node:
    loads = block.value.get("load") if isinstance(block.value, dict) else None
    if not isinstance(block.value, dict) or loads is None or not isinstance(loads.value, list):
        return block
    items = [one for i, item in enumerate(loads.value) for one in _expanded_load(item, f"{path}.{i}")]
    return replace(block, value={**block.value, "load": replace(loads, value=items)})


def _expanded_load(load: Node, path: str) -> Iterator[Node]:
    """Yield one load for each combination of the values of its lists, in the order of the file."""
    if not isinstance(load.value, dict):
        yield replace(load, written=path)
        return
    lists = {
        key: [replace(item, key=child.key, written=f"{path}.{key}.{i}") for i, item in enumerate(child.value)]
        for key, child in load.value.items()
        if key in LIST_VALUED and isinstance(child.value, list) and child.value
    }
    named = load.value.get("name")
    for combination in itertools.product(*lists.values()):
        chosen = dict(zip(lists, combination, strict=True))
        several = {key: node for key, node in chosen.items() if len(lists[key]) > 1}
        if several and named is not None and isinstance(named.value, str):
            suffix = "-".join(f"{key}-{_word(node, lists[key])}" for key, node in several.items())
            chosen["name"] = replace(named, value=f"{named.value}-{suffix}")
        yield replace(load, value={**load.value, **chosen}, written=path)


def _word(node: Node, among: Sequence[Node]) -> str:
    """Return a value of a list as part of a name; its number in the list if it has keys of its own."""
    return str(among.index(node) + 1 if isinstance(node.value, dict) else node.value)
