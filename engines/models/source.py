"""Lookup of a model: built-in name, GGUF file, folder, hub id, in this order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from engines.base import ModelError, ModelReference
from engines.models import cache
from engines.models.builtin import synthetic
from engines.models.hub import Wanted, snapshot
from engines.models.types import ModelSource

BUILT_IN = {"tiny": Path(__file__).parent / "tiny"}
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SPLIT_GGUF = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def built_in() -> dict[str, str]:
    """Return every built-in model with one line about it."""
    tiny = "Llama, 3.2 M parameters, really trained (English of 1813), 6 MB in f16, context 1,024"
    return {"tiny": tiny} | {name: synthetic.description(name) for name in synthetic.MODELS}


def resolve(reference: ModelReference) -> ModelSource:
    """Return the model that a scenario names. A hub id is fetched at first use.

    Raises ModelError if there is no such model or it cannot be fetched.
    """
    name, path = reference.name, Path(reference.name).expanduser()
    if name in BUILT_IN:
        return ModelSource(name, "builtin", BUILT_IN[name])
    if name in synthetic.MODELS:
        return ModelSource(name, "builtin", synthetic.folder(name))
    if path.is_file() and path.suffix == ".gguf":
        return ModelSource(path.stem, "gguf", path.resolve())
    if path.is_file():
        raise ModelError(f"model {name!r} is a file but no .gguf; name a .gguf file or a folder with config.json")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {name!r} has no config.json; name a model folder in the Hugging Face layout")
        return ModelSource(path.resolve().name, "folder", path.resolve())
    looks_like_path = name.startswith((".", "/", "~")) or name.endswith((".gguf", ".safetensors"))
    if looks_like_path or "\\" in name or name.count("/") > 1:
        raise ModelError(f"there is no file or folder {name!r}; check the path, it counts from {Path.cwd()}")
    if not _HUB_ID.fullmatch(name):
        known = ", ".join([*BUILT_IN, *synthetic.MODELS])
        raise ModelError(
            f"there is no model {name!r}; name a built-in model ({known}), a .gguf file, a folder or a hub id: org/name"
        )
    return _fetch(reference)


def json_file(path: Path) -> Any:
    """Return the content of a JSON file. Raises ModelError if it is damaged, such as a pointer of Git LFS."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); fetch or write it again") from error


def weight_files(source: ModelSource) -> list[Path]:
    """Return the files that hold the weights, in name order. Random ones are built at first use, within about a minute.

    Raises ModelError if there are none or they cannot be built.
    """
    if source.kind == "builtin" and source.name in synthetic.MODELS:
        return [synthetic.weights(source.name)]
    if source.kind == "gguf":
        return _gguf_parts(source.path)
    found = sorted(source.path.glob("model*.safetensors")) or sorted(source.path.glob("*.safetensors"))
    index = source.path / "model.safetensors.index.json"
    if index.is_file():
        named = set(json_file(index)["weight_map"].values())
        found = [source.path / file_name for file_name in sorted(named)]
    missing = [path.name for path in found if not path.is_file()]
    if not found or missing:
        what = ", ".join(missing) or "*.safetensors"
        raise ModelError(
            f"the folder of {source.name} lacks its weights ({what}); fetch or convert them to safetensors"
        )
    return found


def content_hash(source: ModelSource) -> str:
    """Return the SHA-256 (hex) of the contents of the weight files, in name order.

    For a single file it equals the output of `sha256sum`. Digests are remembered by path, size and modification time.
    """
    return cache.digest(weight_files(source))


def _gguf_parts(path: Path) -> list[Path]:
    match = _SPLIT_GGUF.fullmatch(path.name)
    if match is None:
        return [path]
    parts = [path.with_name(f"{match[1]}-{part:05d}-of-{match[3]}.gguf") for part in range(1, int(match[3]) + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise ModelError(f"the split model {path.name} lacks {', '.join(missing)}; put all parts into one folder")
    return parts


def _fetch(reference: ModelReference) -> ModelSource:
    name = reference.name
    wanted = Wanted(
        name, "model", "model", reference.revision, _HUB_FILES, "a folder or .gguf", without=["original/*", "onnx/*"]
    )
    folder = snapshot(wanted)
    if not (folder / "config.json").is_file():
        raise ModelError(f"the hub's {wanted.at} has no config.json; download a .gguf file of it and name that file")
    return ModelSource(name, "hub", folder, revision=folder.name)
