"""Placeholders in a command line: two are known, the rest is an error or text."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.process.placeholders import command_of, filled, literal, names_in, problem_with

VALUES = {"port": "8000", "model": "m", "label.commit": "a1 b2"}
BRACED = st.text(st.sampled_from("{}$ ab.-_1\"':,"), max_size=30)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("serve {model} --port {port}", "serve m --port 8000"),
        ('serve --override \'{"a": {"b": 1}}\' {port}', 'serve --override \'{"a": {"b": 1}}\' 8000'),
        ("serve '{\"port\":{port}}'", "serve '{\"port\":8000}'"),
        ("out/{label.commit}/serve {port}", "out/a1 b2/serve 8000"),
        ("echo {{port}} {{x}}", "echo {port} {x}"),
        ("echo {{{port}}}", "echo {{port}}"),
        ("sh -c 'echo ${HOME} ${port}'", "sh -c 'echo ${HOME} ${port}'"),
        ("find . -exec rm {} ;", "find . -exec rm {} ;"),
        ("grep 'a{2}' {a,b} {a..z}", "grep 'a{2}' {a,b} {a..z}"),
        ("docker ps --format '{{.ID}}'", "docker ps --format '{{.ID}}'"),
    ],
)
def test_only_names_in_single_braces_are_filled_in(text: str, becomes: str) -> None:
    """JSON, empty braces, a shell's variables and quantifiers are text; double braces stand for single ones."""
    assert problem_with(text) is None
    assert filled(text, VALUES) == becomes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("serve {modle} {port}", "unknown placeholder `{modle}`: did you mean `{model}`?"),
        ("serve {PORT}", "unknown placeholder `{PORT}`: did you mean `{port}`?"),
        ("serve { port }", "unknown placeholder `{ port }`: did you mean `{port}`?"),
        ("serve {gpu} {port}", "unknown placeholder `{gpu}`: known are `{port}`, `{model}` and `{label.NAME}`."),
        ("serve {model.path}", "unknown placeholder `{model.path}`: did you mean `{model}`?"),
        ("serve {cuda-devices}", "unknown placeholder `{cuda-devices}`: known are"),
        ("serve '{\"size\":{size}}'", "unknown placeholder `{size}`"),
    ],
)
def test_other_names_are_a_problem(text: str, sentence: str) -> None:
    """The name as it is written, the nearest known one, and how to write the characters themselves."""
    found = str(problem_with(text))
    assert found.startswith(sentence)
    assert "for these characters themselves" in found


@given(BRACED)
def test_literal_is_the_inverse_of_filling_in(text: str) -> None:
    """Whatever is made literal has no placeholder, and becomes itself again."""
    assert filled(literal(text), VALUES) == text
    assert not list(names_in(literal(text)))


@given(st.lists(BRACED.filter(lambda word: word != "{port}")))
def test_words_of_ours_reach_the_server_as_they_are(words: list[str]) -> None:
    """Options of an engine may contain braces, such as a chat template; only a whole word {port} is filled in."""
    whole = shlex.split(command_of(["serve", "{port}", *words]))
    assert [filled(word, VALUES) for word in whole] == ["serve", "8000", *words]
