"""Models with random weights: their sizes, and how they come into being."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from models_made_small import config

from engines.base import ModelError, ModelReference
from engines.models import safetensors_io
from engines.models.builtin import random_weights, synthetic
from engines.models.shape import computed_parameters, shape_of
from engines.models.source import built_in, content_hash, resolve, weight_files

PARAMETERS = {
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "llama-160m": 162_417_408,
    "llama-1b": 1_235_814_400,
}


@pytest.fixture
def small_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of the test's own, in which `gpt2-small` is small indeed."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setitem(synthetic.MODELS, "gpt2-small", synthetic.Synthetic("GPT-2", config("gpt2-small")))
    return tmp_path


def test_sizes_are_those_of_the_real_models() -> None:
    """Formula and written tensors agree with the sizes that the authors of GPT-2 and Llama-3.2-1B state."""
    for name, parameters in PARAMETERS.items():
        content = synthetic.MODELS[name].config
        assert computed_parameters(content) == parameters
        shapes = random_weights.shapes(content).values()
        assert sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes) == parameters
        assert 0 < synthetic.weight_bytes(name) - 2 * parameters < 100_000
    assert list(PARAMETERS) == list(synthetic.MODELS)


def test_widths_suit_every_level() -> None:
    """Rows are multiples of 256, on which K-quants work."""
    for name in PARAMETERS:
        shapes = random_weights.shapes(synthetic.MODELS[name].config)
        assert {size % 256 for tensor, shape in shapes.items() if len(shape) == 2 for size in shape[1:]} == {0}, name


def test_listed_with_parameters_and_sizes() -> None:
    """`harness list models` shows what each takes before it is built."""
    assert list(built_in()) == ["tiny", *PARAMETERS]
    assert built_in()["gpt2-large"] == (
        "GPT-2, 774 M parameters, random weights, 1.5 GB in f16, context 1,024; built when first used"
    )
    assert all("\n" not in text for text in built_in().values())


def test_weights_are_built_at_first_use(small_here: Path) -> None:
    """Naming a model writes configuration and tokenizer; the weights follow, once."""
    source = resolve(ModelReference("gpt2-small"))
    files = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in source.path.glob("[!.]*")} == files
    before = shape_of(source.path)
    (path,) = weight_files(source)
    assert shape_of(source.path) == before
    assert path.stat().st_size == synthetic.weight_bytes("gpt2-small")
    written = path.stat().st_mtime_ns
    assert weight_files(resolve(ModelReference("gpt2-small"))) == [path]
    assert path.stat().st_mtime_ns == written


def test_values_follow_from_name_and_seed(small_here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another machine builds the very same file; no two tensors are alike; norms start neutral."""
    source = resolve(ModelReference("gpt2-small"))
    first = content_hash(source)
    stored = safetensors_io.read(weight_files(source)[0])
    up, other = (stored[f"transformer.h.{layer}.mlp.c_fc.weight"].load() for layer in (0, 1))
    assert np.std(up) == pytest.approx(0.02, rel=0.02)
    assert abs(np.corrcoef(up.ravel(), other.ravel())[0, 1]) < 0.01
    assert set(stored["transformer.ln_f.weight"].load()) == {1.0}
    assert set(stored["transformer.ln_f.bias"].load()) == {0.0}
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "other"))
    assert content_hash(resolve(ModelReference("gpt2-small"))) == first


def test_too_little_space_is_an_error_before_anything_is_written(
    small_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence states size and place; no file remains."""
    source = resolve(ModelReference("gpt2-small"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("engines.models.builtin.synthetic.shutil.disk_usage", lambda _: usage(10, 9, 1_000_000))
    with pytest.raises(ModelError, match=r"building gpt2-small takes 14 MB in .*, where 1 MB are free; free space"):
        weight_files(source)
    assert not list(source.path.glob("model*"))


@pytest.mark.slow
def test_building_takes_little_memory() -> None:
    """124 million weights are built in a process that stays below 200 MB, so that large ones can be built anywhere."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    code = (
        "import pathlib, sys, tempfile\n"
        "from engines.models import safetensors_io\n"
        "from engines.models.builtin import random_weights, synthetic\n"
        "shapes = random_weights.shapes(synthetic.MODELS['gpt2-small'].config)\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    safetensors_io.write_f16(pathlib.Path(folder) / 'w', shapes,\n"
        "        lambda name: random_weights.pieces(name, shapes[name], 1))\n"
        # The peak since the program began; getrusage would tell that of the process it was forked from.
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    root = str(Path(__file__).resolve().parents[4])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 200e6
