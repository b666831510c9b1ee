"""GGUF file of a model at a quantization level: found, converted or quantized, and cached."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engines.base import LevelUnsupported
from engines.models import cache
from engines.models.checkpoint import Checkpoint
from engines.models.gguf import folder, write
from engines.models.gguf.header import read_header
from engines.models.gguf.quantize import LEVELS
from engines.models.source import content_hash, weight_files
from engines.models.types import ModelSource

# Increment when the same source and level give another file than before.
_CONVERTER_VERSION = 2
_FULL_PRECISION = ("f32", "f16", "bf16")


def gguf_file(source: ModelSource, level: str | None = None) -> Path:
    """Return the model as a GGUF file; `level` None keeps the precision of the source.

    Raises:
        LevelUnsupported: If the level is unknown or cannot be made from this source.
        ModelError: If the model cannot be read or converted, or the file cannot be written.
    """
    if source.kind == "gguf":
        own = gguf_level(source.path)
        if level is None or level == own:
            return source.path
    wanted = level if level is not None else Checkpoint(source).natural_level()
    if wanted not in LEVELS:
        raise LevelUnsupported(f"there is no level {wanted!r} for GGUF models; known are {', '.join(LEVELS)}")
    if source.kind == "gguf" and own not in _FULL_PRECISION:
        stated = own or "an unknown level"
        raise LevelUnsupported(f"{source.path.name} is {stated} already; {wanted} needs a file in f32, f16 or bf16")

    def build(path: Path) -> None:
        weights = write.read(source) if source.kind == "gguf" else folder.read(source)
        write.write(weights, wanted, path)

    return cache.build_once(f"{_file_stem(source)}-{wanted}-v{_CONVERTER_VERSION}.gguf", build)


def gguf_level(path: Path) -> str | None:
    """Return the level that a GGUF file states; None if it states none or an unknown one."""
    number = read_header(path).get("general.file_type")
    return write.level_of(number) if isinstance(number, int) else None


def weight_bytes(path: Path) -> int:
    """Return the size of a GGUF file, all its parts together."""
    return sum(part.stat().st_size for part in weight_files(ModelSource(path.stem, "gguf", path)))


def context_tokens(path: Path) -> int | None:
    """Return the context length the model was made for; None if the file does not state it."""
    header = read_header(path)
    found = header.get(f"{header.get('general.architecture')}.context_length")
    return found if isinstance(found, int) else None


def _file_stem(source: ModelSource) -> str:
    """Return a readable name and a digest of everything the file is made from."""
    digest = hashlib.sha256(content_hash(source).encode())
    if source.kind != "gguf":
        for name in ("config.json", "generation_config.json", "tokenizer.json"):
            path = source.path / name
            digest.update(path.read_bytes() if path.is_file() else b"")
    return f"{source.name.replace('/', '--')}-{digest.hexdigest()[:16]}"
