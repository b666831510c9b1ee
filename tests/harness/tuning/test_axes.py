"""What `--over` takes, and what it refuses in a sentence."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from harness.errors import UsageError
from harness.tuning.axes import Kind, label, parse_axes, settings, with_flag


def test_options_variables_and_flags_are_axes() -> None:
    """Values stay as they are written; commas within brackets or quotes separate nothing."""
    axes = parse_axes(
        ["options.n_parallel=1, 2", "env.OMP_NUM_THREADS=4,8", "--parallel=1,2", "engines.0.options.a.b=[1,2],'x,y'"]
    )
    assert [(axis.kind, axis.name, axis.values) for axis in axes] == [
        (Kind.OPTION, "n_parallel", ("1", "2")),
        (Kind.VARIABLE, "OMP_NUM_THREADS", ("4", "8")),
        (Kind.FLAG, "--parallel", ("1", "2")),
        (Kind.OPTION, "a.b", ("[1,2]", "'x,y'")),
    ]


def test_every_combination_is_a_candidate_with_a_name() -> None:
    """The last key changes fastest."""
    found = [*settings(parse_axes(["options.a=1,2", "--b=3,4"]))]
    assert [label(one) for one in found] == ["a=1, --b 3", "a=1, --b 4", "a=2, --b 3", "a=2, --b 4"]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([], "name what to tune and its values"),
        (["options.a"], "--over options.a: write KEY=VALUE,VALUE"),
        (["=1,2"], "--over =1,2: write KEY=VALUE,VALUE"),
        (["options.a=4"], "--over options.a: 4 is one value; write two or more"),
        (["options.a="], "--over options.a: a value is empty"),
        (["options.a=1,,2"], "--over options.a: a value is empty"),
        (["options.a=1,2,1"], "--over options.a: 1 is given twice"),
        (["options.a=1,2", "options.a=3,4"], "--over options.a: given twice"),
        ([f"options.{name}=1,2,3" for name in "abcd"], "4 keys make 81 combinations, and at most 64 are tried"),
        ([f"options.a={','.join(map(str, range(65)))}"], "65 values, and at most 64 are tried"),
        (["load.0.rate=1,2"], "--over load.0.rate: this changes the requests, not the server"),
        (["seed=1,2"], "--over seed: this changes the requests"),
        (["workload.output_tokens=1,2"], "this changes the requests"),
        (["engines.0.request.x=1,2"], "this changes the requests"),
        (["model=a,b"], "--over model: this changes the answers"),
        (["engines.0.quantization=q4_0,q8_0"], "this changes the answers"),
        (["n_parallel=1,2"], "only options, env and flags of the command are tuned; write options.n_parallel"),
        (["option.n_parallel=1,2"], "did you mean `options`?"),
        (["options=1,2"], "--over options: name an option below it"),
        (["python=a,b"], "only options, env and flags of the command are tuned"),
        (["env.HF_TOKEN=a,b"], "--over env.HF_TOKEN: secrets are not tuned"),
    ],
)
def test_a_slip_is_one_sentence(texts: list[str], sentence: str) -> None:
    """It names the key, and what to write."""
    with pytest.raises(UsageError) as caught:
        parse_axes(texts)
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "flag", "changed"),
    [
        ("serve --port {port}", "--parallel", "serve --port {port} --parallel 9"),
        ("serve --parallel 4 --port {port}", "--parallel", "serve --parallel 9 --port {port}"),
        ("serve --parallel=4 --port {port}", "--parallel", "serve --parallel=9 --port {port}"),
        ("serve --n-gpu-layers -1", "--n-gpu-layers", "serve --n-gpu-layers 9"),
        ("serve -np 2", "-np", "serve -np 9"),
        ("serve --parallel-mode x", "--parallel", "serve --parallel-mode x --parallel 9"),
        ("serve --name 'a b' --port {port}", "--name", "serve --name 9 --port {port}"),
        ("serve --warm --port {port}", "--warm", "serve --warm --port {port} --warm 9"),
    ],
)
def test_a_flag_takes_the_place_of_the_one_that_a_command_has(command: str, flag: str, changed: str) -> None:
    """Else it stands at the end."""
    assert with_flag(command, flag, "9") == changed


@given(some.lists(some.sampled_from(["-a", "--bc", "1", "x", "-2"]), max_size=6), some.integers(0, 99))
def test_a_flag_is_in_any_command_afterwards(words: list[str], value: int) -> None:
    """With its value, and a second time with the same value changes nothing."""
    changed = with_flag(" ".join(["serve", *words]), "--bc", str(value))
    found = shlex.split(changed)
    assert str(value) in [after for before, after in pairwise(found) if before == "--bc"]
    assert with_flag(changed, "--bc", str(value)) == changed
