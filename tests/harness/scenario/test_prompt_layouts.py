"""Layouts of prompt files: those of chat data sets and of other tools are read, others are named in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import Message
from engines.models.tokenizer import ByteTokenizer
from harness.errors import ScenarioError
from harness.scenario.files.layouts import OUTPUTS
from harness.scenario.files.prompts import FilePrompts, summary
from tests.forked import harness

SYSTEM = {"role": "system", "content": "be brief"}
SHAREGPT = [
    {"from": "human", "value": "what is rain"},
    {"from": "gpt", "value": "water"},
    {"from": "human", "value": "why"},
    {"from": "gpt", "value": "clouds"},
]


def written(folder: Path, *lines: Any, name: str = "prompts.jsonl") -> Path:
    """A file with these objects, one a line."""
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read(folder: Path, *lines: Any) -> list[tuple[list[tuple[str, str]], Any]]:
    """Messages before the prompt, and the prompt, of each line in the order of the file."""
    prompts = FilePrompts(written(folder, *lines))
    order = [(i - prompts.offset) % len(prompts) for i in range(len(prompts))]
    return [([(m.role, m.text) for m in prompts.before(i)], prompts.prompt(i, 0)) for i in order]


def refused(path: Path) -> list[str]:
    """The problems of a file, without its path."""
    with pytest.raises(ScenarioError) as caught:
        FilePrompts(path)
    return [f"{problem.line}: {problem.message}" for problem in caught.value.problems]


def test_the_last_user_message_is_the_prompt(tmp_path: Path) -> None:
    """What precedes it in `messages` is sent before it, in the same roles; a reply behind it is not used."""
    user, reply = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
    assert read(
        tmp_path,
        {"messages": [SYSTEM, user]},
        {"messages": [reply, user, reply, {"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, reply]},
        {"prompt": [{"role": "developer", "content": "be brief"}, user]},
    ) == [
        ([("system", "be brief")], "hi"),
        ([("assistant", "hello"), ("user", "hi"), ("assistant", "hello")], "ab"),
        ([("system", "be brief")], "hi"),
    ]


def test_a_single_request_is_the_first_turn_of_a_conversation(tmp_path: Path) -> None:
    """In the layouts of ShareGPT, also where the assistant begins."""
    greeting = {"from": "gpt", "value": "welcome"}
    roles = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    assert read(
        tmp_path,
        {"id": 1, "conversations": SHAREGPT},
        {"conversations": [{"from": "system", "value": "be brief"}, greeting, *SHAREGPT]},
        {"conversation": roles, "system": "be brief"},
    ) == [
        ([], "what is rain"),
        ([("system", "be brief"), ("assistant", "welcome")], "what is rain"),
        ([("system", "be brief")], "u"),
    ]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("begin", ["", "\ufeff", "\ufeff\r\n \t"])
def test_an_array_is_read_like_lines(tmp_path: Path, indent: int | None, begin: str) -> None:
    """However it is indented, and much larger than what is read at once."""
    talks = [{"conversations": [{"from": "human", "value": f"{i} é " + "x" * 300}]} for i in range(1000)]
    path = tmp_path / "talks.json"
    path.write_text(begin + json.dumps(talks, indent=indent), encoding="utf-8", newline="\r\n")
    prompts = FilePrompts(path)
    assert len(prompts) == 1000
    assert {prompts.prompt(i, 0) for i in range(1000)} == {talk["conversations"][0]["value"] for talk in talks}


@pytest.mark.parametrize("name", ["prompts.csv", "prompts.tsv"])
def test_a_table_is_read(tmp_path: Path, name: str) -> None:
    """With quotes, line ends in texts, and a byte order mark."""
    mark = "," if name.endswith("csv") else "\t"
    path = tmp_path / name
    path.write_bytes(f'\ufeffprompt{mark}max_tokens\r\n"a{mark} ""b""\nc"{mark}7\r\n\r\nd{mark}\r\n'.encode())
    prompts = FilePrompts(path)
    assert {prompts.prompt(i, 0) for i in range(2)} == {f'a{mark} "b"\nc', "d"}
    assert prompts.output_tokens.tolist() == [7, 0]


@pytest.mark.parametrize(
    "key",
    OUTPUTS,
)
@pytest.mark.parametrize("tokens", [7, 7.0, "7"])
def test_lengths_are_read_under_the_names_of_other_tools(tmp_path: Path, key: str, tokens: Any) -> None:
    """As a number, or as a text of a table."""
    assert FilePrompts(written(tmp_path, {"text": "a", key: tokens})).output_tokens.tolist() == [7]


@pytest.mark.parametrize("tokens", [0, -1, 1.5, True, [3], "many", 2**31])
def test_a_length_that_is_none_is_a_mistake(tmp_path: Path, tokens: Any) -> None:
    """Under any name."""
    (why,) = refused(written(tmp_path, {"prompt": "a", "max_tokens": tokens}))
    assert why.startswith("1: 'max_tokens' must be a whole number of at least 1, found ")


def test_what_is_not_read_is_told_once_with_its_number(tmp_path: Path) -> None:
    """Keys by their number of lines, and skipped conversations by their reasons."""
    tool = {"role": "tool", "content": "3"}
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
    lines = [{"prompt": "a", "id": i, "prompt_len": 4} for i in range(300)]
    odd = [{"messages": [SYSTEM]}, {"messages": []}, {"messages": [tool]}, {"conversations": [image]}]
    assert FilePrompts(written(tmp_path, *lines, {"prompt": "b", "foo": 1}, *odd)).notes == [
        "prompts.jsonl: 4 of 305 lines are skipped: 2 with no message of a user, 1 with a message of the role `tool`, "
        "1 with a message without text",
        "prompts.jsonl: not read: `id` in 300 lines, `prompt_len` in 300 lines, `foo` in 1 line",
    ]
    assert FilePrompts(written(tmp_path, {"prompt": "a"})).notes == []
    (why,) = refused(written(tmp_path, *odd))
    assert why.startswith("None: no line has a prompt: 2 with no message of a user, ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"question": "a", "answer": "b"}\n' * 9, "1: has the keys `question`, `answer` and no prompt; write the"),
        ('[{"id": 1}, {"id": 2}]', "1: has the keys `id` and no prompt"),
        ('[\n{"prompt": "a"},\n\n7]', "4: is not a JSON object; write an array of objects"),
        ('[\n{"prompt": "a"},\n{"prompt": }]', "3: is not JSON (Expecting value); write one array of objects"),
        ('[{"prompt": "a"}', "1: is not JSON (Expecting value)"),
        ('[{"prompt": "a"}]\n{"prompt": "b"}', "2: has text after the end of its array"),
        ('{\n "prompt": "a"\n}', "1: is not JSON (Expecting property name enclosed in double quotes at column 2)"),
        ('{"conversations": ["a", "b"]}\n' * 9, "1: 'conversations' must be a list of messages such as {\"role\": "),
        ('{"messages": {"role": "user"}}\n' * 9, "1: 'messages' must be a list of messages"),
        ('{"messages": [{"role": "king", "content": "a"}]}', "1: the role 'king' of a message is not known"),
        ('{"messages": [{"role": "user", "content": "\\ud83d"}]}', "1: 'messages' contains half a character (\\ud83d)"),
        ('{"prompt": [1], "system": "a"}', "1: a system message cannot precede token ids"),
        ("\ufeffprompt\n", "1: is not JSON (Expecting value at column 1); write one object a line"),
    ],
)  # fmt: skip
def test_a_layout_that_cannot_be_read_is_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    """With the line, what was found and what to write; never a complaint a line."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(content, encoding="utf-8")
    (why,) = refused(path)
    assert why.startswith(sentence)


def test_one_bad_line_of_many_is_named(tmp_path: Path) -> None:
    """At its place, in lines and in an array; mixed layouts in one file are read."""
    good = [{"prompt": "a"}, {"conversations": SHAREGPT}, {"messages": [{"role": "user", "content": "u"}]}]
    assert len(FilePrompts(written(tmp_path, *good))) == 3
    bad = [*good, {"prompt": ""}, *good]
    assert [line[:2] for line in refused(written(tmp_path, *bad))] == ["4:"]
    (tmp_path / "array.json").write_text(json.dumps(bad, indent=0))
    (why,) = refused(tmp_path / "array.json")
    assert "'prompt' must be a text" in why


def test_lengths_are_unknown_where_a_template_adds_to_each_message(tmp_path: Path) -> None:
    """A system message is counted with its prompt; more messages make the number unknown."""
    user, reply = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
    path = written(tmp_path, {"messages": [SYSTEM, user]}, {"messages": [user, reply, user]})
    assert FilePrompts(path, ByteTokenizer()).prompt_tokens.tolist() == [len("be brief") + len("hi"), 0]


def test_a_summary_is_that_of_the_present_content(tmp_path: Path) -> None:
    """Another content of the same size is read again."""
    assert summary(written(tmp_path, {"prompt": "ab"})).all_text
    assert not summary(written(tmp_path, {"prompt": [10]})).all_text
    with pytest.raises(ScenarioError, match="prompts cannot be read: No such file"):
        summary(tmp_path / "nowhere.jsonl")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
MESSAGES = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), min_size=1, max_size=6)


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.sampled_from(["lines", "array", "indented"]))
def test_conversations_are_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, talks: list[list[tuple[str, str]]], form: str
) -> None:
    """Each conversation with a user keeps its messages up to the last of the user, in any form of the file."""
    rows = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    path = tmp_path_factory.mktemp("talks") / "talks.json"
    lines = "\r\n\r\n".join(map(json.dumps, rows))
    path.write_text(lines if form == "lines" else json.dumps(rows, indent=2 if form == "indented" else None))
    wanted = []
    for talk in talks:
        users = [at for at, (role, _) in enumerate(talk) if role == "user"]
        if users:
            wanted.append([Message(role, text) for role, text in talk[: users[-1] + 1]])
    if not wanted:
        assert len(refused(path)) == 1
        return
    prompts = FilePrompts(path)
    order = [(i - prompts.offset) % len(prompts) for i in range(len(prompts))]
    assert [[*prompts.before(i), Message("user", str(prompts.prompt(i, 0)))] for i in order] == wanted


def test_the_command_tells_what_is_not_read(tmp_path: Path) -> None:
    """At `validate`, beside the sentence that the scenario is fine; and in the manifest of a run."""
    written(tmp_path, {"messages": [SYSTEM, {"role": "user", "content": "hi"}], "id": 3}, {"messages": []})
    (tmp_path / "s.yaml").write_text(
        "engines: [{engine: simulated}]\nworkload: {prompts: prompts.jsonl, output_tokens: 2}\n"
        "load: [{kind: single_user, requests: 3}]\n"
    )
    ended = harness("validate", "s.yaml", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "s.yaml: fine\n")
    notes = ["1 of 2 lines are skipped: 1 with no message of a user", "not read: `id` in 1 line"]
    assert all(f"s.yaml: prompts.jsonl: {note}" in ended.err for note in notes)
    ended = harness("run", "s.yaml", "--out", "run", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["notes"] == [
        f"prompts.jsonl: {note}" for note in notes
    ]
    assert "not read: `id` in 1 line" in (tmp_path / "run" / "report.md").read_text().replace("\\", "")
