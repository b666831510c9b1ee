"""Strict YAML files of prices and demands: every mistake with its line, as in a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from harness.errors import Problem, ScenarioError, refusal
from harness.scenario.base import StrictModel
from harness.scenario.checks import in_order, placed, problems_of
from harness.scenario.yaml_tree import Node, parse

M = TypeVar("M", bound=StrictModel)


def read_strict(path: Path, model: type[M], example: str) -> M:
    """Return the content of a YAML file as a model.

    Args:
        example: Content to write where the file is empty or no mapping.

    Raises ScenarioError, which lists every mistake with its place.
    """
    tree, problems = parse_file(path, example)
    try:
        found = model.model_validate(tree.plain())
    except ValidationError as error:
        raise ScenarioError(in_order([*problems, *problems_of(error, tree)])) from None
    if problems:
        raise ScenarioError(problems)
    return found


def parse_file(path: Path, example: str) -> tuple[Node, list[Problem]]:
    """Return the mapping of a YAML file. Raises ScenarioError if it has none."""
    text = text_of(path)
    if not text.strip():
        raise wrong(path, f"is empty; write `{example}`")
    tree, problems = parse(text, str(path), path.parent)
    if tree is None or not isinstance(tree.value, dict):
        mapping = [] if tree is None else [tree.place.problem(f"must be a mapping, such as `{example}`")]
        raise ScenarioError([*problems, *mapping])
    return tree, problems


def text_of(path: Path) -> str:
    """Return the text of a file. Raises ScenarioError if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise wrong(path, "no such file; name one that exists") from None
    except IsADirectoryError:
        raise wrong(path, "is a folder; name a file in it") from None
    except UnicodeDecodeError as error:
        raise wrong(path, f"is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise wrong(path, refusal(error) or str(error)) from error


def wrong(path: Path, message: str, line: int | None = None, key: str = "") -> ScenarioError:
    """Return the error of one mistake in a file."""
    return ScenarioError([Problem(message, key, str(path), line)])


def wrong_at(tree: Node, key: str, message: str) -> ScenarioError:
    """Return the error of one mistake under a key of a file."""
    return ScenarioError(placed([Problem(message, key)], tree))
