"""`extends`, `--set` and `${VAR}`: how several sources become one tree."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.secrets import looks_secret
from harness.scenario.source import merge, read
from harness.scenario.yaml_tree import Node, Place, core_scalar, parse

HERE = Place("test")
KEYS = st.sampled_from(["a", "b", "c"])
TREES = st.recursive(
    st.one_of(st.integers(-9, 9), st.sampled_from(["x", "y"]), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=3)


def node_of(value: Any) -> Node:
    """A tree of nodes from plain data."""
    if isinstance(value, dict):
        return Node({key: node_of(child) for key, child in value.items()}, HERE)
    if isinstance(value, list):
        return Node([node_of(child) for child in value], HERE)
    return Node(value, HERE)


def merged(parent: Any, child: Any) -> Any:
    """The obvious merge, to check against."""
    if not (isinstance(parent, dict) and isinstance(child, dict)):
        return child
    return {
        key: merged(parent[key], child[key]) if key in parent and key in child else {**parent, **child}[key]
        for key in {**parent, **child}
    }


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The path of everything in a tree, the root left out."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for key, child in children for leaf in leaves(child, (*path, str(key)))]
    return [*([path] if path else []), *inner]


def data_of(folder: Path, text: str, *, sets: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Any:
    """Return the data of a text without problems."""
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    source = read(path, sets=sets, labels=(), env=env or {})
    assert source.tree is not None
    assert source.problems == []
    return source.tree.plain()


@given(MAPPINGS, MAPPINGS)
def test_mappings_merge_and_everything_else_replaces(parent: Any, child: Any) -> None:
    """The child wins key by key."""
    assert merge(node_of(parent), node_of(child)).plain() == merged(parent, child)


@given(MAPPINGS, MAPPINGS, MAPPINGS)
def test_merging_the_same_file_again_changes_nothing(a: Any, b: Any, c: Any) -> None:
    """A second merge of the same file changes nothing."""
    left = merge(merge(node_of(a), node_of(b)), node_of(c)).plain()
    assert merge(node_of(left), node_of(c)).plain() == left


@given(MAPPINGS.filter(bool), TREES, st.data())
def test_a_setting_changes_one_value_and_nothing_else(tree: Any, value: Any, data: Any) -> None:
    """Every value in the tree can be set by its dotted path."""
    import tempfile

    path = data.draw(st.sampled_from(leaves(tree)))
    expected = deepcopy(tree)
    at = expected
    for step in path[:-1]:
        at = at[int(step) if isinstance(at, list) else step]
    at[int(path[-1]) if isinstance(at, list) else path[-1]] = value
    with tempfile.TemporaryDirectory() as folder:
        setting = f"{'.'.join(path)}={json.dumps(value)}"
        assert data_of(Path(folder), json.dumps(tree), sets=(setting,)) == expected


def test_a_setting_makes_what_is_missing(tmp_path: Path) -> None:
    """Mappings on the way are made; indices may be written in brackets."""
    found = data_of(tmp_path, "a: [{b: 1}]\n", sets=("slo.ttft=500ms", "a[0].b={c: [1, x]}", "d="))
    assert found == {"a": [{"b": {"c": [1, "x"]}}], "slo": {"ttft": "500ms"}, "d": None}


def test_settings_come_after_the_parent_and_variables_last(tmp_path: Path) -> None:
    """A value that was replaced needs no variable any more."""
    (tmp_path / "base.yaml").write_text("a: ${NEVER}\nb: {c: 1, d: 2}\nl: [1, 2]\n")
    text = "extends: ${BASE:-base.yaml}\nb: {c: 3}\nl: [9]\ne: ${X}-${Y:-y}-${Z:-}-$${X}-$5\n"
    found = data_of(tmp_path, text, sets=("a=1",), env={"X": "x: [1]", "Y": ""})
    assert found == {"a": 1, "b": {"c": 3, "d": 2}, "l": [9], "e": "x: [1]-y--${X}-$5"}


def test_grandparents_count(tmp_path: Path) -> None:
    """A parent may itself extend a file, relative to its own folder."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "grand.yaml").write_text("a: 1\nb: 1\nc: 1\n")
    (tmp_path / "deep" / "parent.yaml").write_text("extends: grand.yaml\nb: 2\nc: 2\n")
    assert data_of(tmp_path, "extends: deep/parent.yaml\nc: 3\n") == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("no", "no"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"),
        ("1e3", 1000.0), ("-.5", -0.5), ("0x1F", 31), ("0o17", 15), ("017", 17), ("true", True), ("Null", None),
        ("~", None), ("+12", 12), (".inf", float("inf")), ("30s", "30s"), (".", "."), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_bare_words_follow_the_core_schema(text: str, value: object) -> None:
    """Section 10.3.2 of YAML 1.2.2, and nothing of YAML 1.1."""
    assert core_scalar(text) == value
    assert type(core_scalar(text)) is type(value)


@given(TREES)
def test_json_is_read_exactly(value: Any) -> None:
    """JSON is YAML 1.2, so its values arrive unchanged."""
    tree, problems = parse(json.dumps({"value": value}), "s.yaml", Path())
    assert problems == []
    assert tree is not None
    assert tree.plain() == {"value": value}


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Any text is a tree or at least one problem."""
    tree, problems = parse(text, "s.yaml", Path())
    assert tree is not None or problems


def test_a_small_file_that_unfolds_into_a_huge_one_is_refused() -> None:
    """Aliases of aliases must not eat the memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    tree, problems = parse("\n".join(lines), "s.yaml", Path())
    assert tree is None
    assert "more than 100000 values" in str(problems[-1])


@pytest.mark.parametrize(
    ("name", "secret"), [("HF_TOKEN", True), ("API_KEY", True), ("MAX_TOKENS", False), ("KEYS", False)]
)
def test_secrets_are_known_by_their_name(name: str, secret: bool) -> None:
    """Only whole words of a name count."""
    assert looks_secret(name) is secret
