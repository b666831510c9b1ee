"""Finding models: built-in, files, folders, the hub."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import ModelError, ModelReference
from engines.models import source as models
from engines.models.checkpoint import Checkpoint
from engines.models.source import content_hash, resolve, weight_files
from engines.models.tokenizer import tokenizer
from engines.models.types import ModelSource
from engines.vllm.levels import stored_method

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))


def test_builtin_name_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder called like a built-in model does not hide it."""
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    found = resolve(ModelReference("tiny"))
    assert (found.kind, found.path) == ("builtin", models.BUILT_IN["tiny"])


def test_folder_and_gguf_file_are_found_by_path(tmp_path: Path) -> None:
    """A folder with config.json and a .gguf file are models under their own names."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    assert resolve(ModelReference(str(tmp_path))) == ModelSource(tmp_path.name, "folder", tmp_path)
    assert resolve(ModelReference(str(tmp_path / "some.gguf"))) == ModelSource("some", "gguf", tmp_path / "some.gguf")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./not/there", "no file or folder './not/there'; check the path"),
        ("model.gguf", "no file or folder 'model.gguf'"),
        ("nothing", "name a built-in model (tiny, gpt2-small, "),
        ("{tmp}", "has no config.json"),
        ("{tmp}/notes.txt", "is a file but no .gguf"),
    ],
)
def test_an_invalid_model_is_one_sentence(tmp_path: Path, name: str, words: str) -> None:
    """Every kind of invalid model has its own sentence."""
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelError) as caught:
        resolve(ModelReference(name.replace("{tmp}", str(tmp_path))))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def _failing(error: Exception) -> Any:
    def fetch(*_: object, **__: object) -> str:
        raise error

    return fetch


def _hub_error(name: str) -> Exception:
    from huggingface_hub import errors

    response = SimpleNamespace(headers={}, status_code=404, request=None)
    kind: type[Exception] = getattr(errors, name)
    if issubclass(kind, errors.HfHubHTTPError) and not issubclass(kind, FileNotFoundError):
        return kind("404 for some reason", response=response)  # type: ignore[arg-type]
    return kind("for some reason")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("RepositoryNotFoundError", "the hub has no model org/name; check the id"),
        ("RevisionNotFoundError", "model org/name has no revision 'v2'"),
        ("GatedRepoError", "requires its terms to be accepted"),
        ("LocalEntryNotFoundError", "org/name at revision v2 is not in the local hub cache"),
        ("HfHubHTTPError", "could not be fetched from the hub: 404 for some reason"),
    ],
)
def test_each_hub_failure_names_the_model_and_a_fix(monkeypatch: pytest.MonkeyPatch, error: str, words: str) -> None:
    """Errors of the hub client become one sentence with the id."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", _failing(_hub_error(error)))
    with pytest.raises(ModelError) as caught:
        resolve(ModelReference("org/name", "v2"))
    assert words in str(caught.value)


def test_a_transfer_that_breaks_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transports have errors of their own, which are neither the hub's nor the system's."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", _failing(RuntimeError("the peer closed it\nat 40 %")))
    with pytest.raises(ModelError, match=r"model org/name could not be fetched from the hub: the peer closed it$"):
        resolve(ModelReference("org/name"))


def test_fetched_hub_model_carries_its_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The revision of a hub model is the commit that was fetched, not the name it was asked by."""
    snapshot = tmp_path / "0123abc"
    snapshot.mkdir()
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert resolve(ModelReference("org/name", "main")) == ModelSource("org/name", "hub", snapshot, "0123abc")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("HF_HUB_OFFLINE", "1", "HF_HUB_OFFLINE is set"), ("HF_ENDPOINT", "http://127.0.0.1:9", "cannot be reached")],
)
def test_unreachable_hub_is_one_sentence(tmp_path: Path, variable: str, value: str, words: str) -> None:
    """The real client distinguishes offline mode and a hub that does not answer."""
    code = (
        "from engines.base import ModelError, ModelReference\n"
        "from engines.models.source import resolve\n"
        "try: resolve(ModelReference('some-org/no-model'))\n"
        "except ModelError as error: print(error)"
    )
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    environment = {**inherited, "HF_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY), variable: value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "some-org/no-model" in done.stdout
    assert words in done.stdout


def test_content_hash_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    """The hash of a single file equals sha256sum's output and changes with the content."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"weights")
    source = ModelSource("a", "gguf", path)
    assert content_hash(source) == hashlib.sha256(b"weights").hexdigest() == content_hash(source)
    path.write_bytes(b"other weights")
    assert content_hash(source) == hashlib.sha256(b"other weights").hexdigest()


def test_content_hash_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that did not change is read once."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"weights")
    first = content_hash(ModelSource("a", "gguf", path))
    monkeypatch.setattr("engines.models.cache._sha256", lambda _: pytest.fail("hashed again"))
    assert content_hash(ModelSource("a", "gguf", path)) == first


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("tokenizer.json", tokenizer),
        ("model.safetensors.index.json", weight_files),
        ("generation_config.json", lambda source: Checkpoint(source).generation),
        ("config.json", stored_method),
    ],
)
def test_a_pointer_of_git_lfs_is_one_sentence(tmp_path: Path, name: str, read: Callable[[ModelSource], object]) -> None:
    """A folder that was cloned without its large files has a pointer in the place of each."""
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match=rf"/{name} is not JSON \(.*\); fetch or write it again"):
        read(ModelSource("m", "folder", tmp_path))


def test_weight_files_follow_the_index_and_missing_ones_are_named(tmp_path: Path) -> None:
    """A sharded checkpoint is complete or named as incomplete."""
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}'
    )
    (tmp_path / "a.safetensors").write_bytes(b"")
    source = ModelSource("m", "folder", tmp_path)
    with pytest.raises(ModelError, match=r"lacks its weights \(b\.safetensors\)"):
        weight_files(source)
    (tmp_path / "b.safetensors").write_bytes(b"")
    assert [path.name for path in weight_files(source)] == ["a.safetensors", "b.safetensors"]


def test_parts_of_a_split_gguf_belong_together(tmp_path: Path) -> None:
    """A split GGUF is all its parts, and a missing part is named."""
    first = tmp_path / "m-00001-of-00002.gguf"
    first.write_bytes(b"1")
    with pytest.raises(ModelError, match=r"lacks m-00002-of-00002\.gguf"):
        weight_files(ModelSource("m", "gguf", first))
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(b"22")
    assert len(weight_files(ModelSource("m", "gguf", first))) == 2
