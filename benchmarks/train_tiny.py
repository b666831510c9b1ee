"""Trains the built-in model `tiny` and writes its Hugging Face folder. Needs torch and safetensors; nothing imports it.

    python -m benchmarks.train_tiny --text Rdata.rdb --out engines/models/tiny --steps 4000

`Rdata.rdb` is in Debian's r-cran-janeaustenr (usr/lib/R/site-library/janeaustenr/data). The same torch build, number of
threads and seed give the same weights. A usable file exists from the first checkpoint on.

The text behind `tiny`: Jane Austen's six novels (1811-1818, public domain), in Debian's r-cran-janeaustenr.

Only `train_tiny` needs it. The package keeps each novel as an R character vector of lines; no R is needed to read it.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import struct
import time
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from engines.models.builtin.vocabulary import byte_alphabet, tokenizer_config

HELD_OUT_BYTES_PER_NOVEL = 10_000
_R_HEADER_BYTES = 14
_R_STRING_VECTOR = 16
_CHAPTER = re.compile(r"^(chapter|volume|vol\.)\b.*$", re.IGNORECASE)


def novels(path: Path) -> list[str]:
    """The texts in R's lazy-load file `Rdata.rdb`, ASCII, one line per paragraph and an empty line between two."""
    return [_paragraphs(lines) for lines in _string_vectors(path.read_bytes())]


def split(novel: str) -> tuple[list[str], str]:
    """(pieces to train on, held-out text): the middle 10 kB of paragraphs is held out, the rest splits at chapters."""
    middle = novel.index("\n\n", len(novel) // 2) + 2
    end = novel.index("\n\n", middle + HELD_OUT_BYTES_PER_NOVEL - 1_000)
    held_out = novel[middle:end]
    return _chapters(novel[:middle]) + _chapters(novel[end + 2 :]), held_out


def _chapters(text: str) -> list[str]:
    pieces: list[list[str]] = [[]]
    for paragraph in text.split("\n\n"):
        if _CHAPTER.match(paragraph):
            pieces.append([])
        pieces[-1].append(paragraph)
    return ["\n\n".join(piece).strip() for piece in pieces if len(piece) > 2]


def _paragraphs(lines: list[str]) -> str:
    text = "\n".join(line.strip() for line in lines)
    text = text.translate(str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"", "_"))
    text = unicodedata.normalize("NFKD", text.replace("\u2014", "--")).encode("ascii", "ignore").decode()
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(part for part in found if part)


def _string_vectors(raw: bytes) -> Iterator[list[str]]:
    """Every object of an .rdb file: a 4-byte length, then a zlib stream of R's XDR serialization, version 3."""
    start = 0
    while start < len(raw):
        stream = zlib.decompressobj()
        yield _strings(stream.decompress(raw[start + 4 :]))
        start = len(raw) - len(stream.unused_data)


def _strings(data: bytes) -> list[str]:
    (name_length,) = struct.unpack_from(">i", data, _R_HEADER_BYTES)
    position = _R_HEADER_BYTES + 4 + name_length
    kind, count = struct.unpack_from(">ii", data, position)
    if kind & 0xFF != _R_STRING_VECTOR:
        raise ValueError(f"an R object of type {kind & 0xFF} where a character vector was expected")
    position += 8
    strings = []
    for _ in range(count):
        _, length = struct.unpack_from(">ii", data, position)
        strings.append(data[position + 8 : position + 8 + max(length, 0)].decode("utf-8", "replace"))
        position += 8 + max(length, 0)
    return strings


BOS, EOS = 256, 257
LOG = logging.getLogger("train_tiny")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the Llama; row sizes are multiples of 256 because the K-quants work on blocks of 256 weights."""

    vocab: int = 258
    hidden: int = 256
    intermediate: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context: int = 1024
    rope_theta: float = 10_000.0
    rms_eps: float = 1e-5


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast: cosine decay after a linear warm-up; the last steps use the whole context."""

    steps: int
    tokens_per_step: int = 4096
    peak_rate: float = 3e-3
    warmup_steps: int = 100
    short_context: int = 256
    long_share: float = 0.2

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        return self.peak_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))

    def context(self, step: int, longest: int) -> int:
        """The sequence length of a step."""
        return longest if step >= self.steps * (1 - self.long_share) else self.short_context


class Block(nn.Module):
    """One Llama layer; attribute names are those of the Hugging Face checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, head = shape, shape.hidden // shape.heads
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.rms_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.rms_eps)
        self.self_attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(shape.hidden, shape.heads * head, bias=False),
                "k_proj": nn.Linear(shape.hidden, shape.kv_heads * head, bias=False),
                "v_proj": nn.Linear(shape.hidden, shape.kv_heads * head, bias=False),
                "o_proj": nn.Linear(shape.heads * head, shape.hidden, bias=False),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(shape.hidden, shape.intermediate, bias=False),
                "up_proj": nn.Linear(shape.hidden, shape.intermediate, bias=False),
                "down_proj": nn.Linear(shape.intermediate, shape.hidden, bias=False),
            }
        )

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """x: (batch, tokens, hidden) -> the same shape."""
        x = x + self._attend(self.input_layernorm(x), angles)
        y = self.post_attention_layernorm(x)
        return x + self.mlp["down_proj"](functional.silu(self.mlp["gate_proj"](y)) * self.mlp["up_proj"](y))

    def _attend(self, x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        batch, tokens, _ = x.shape
        heads = {"q_proj": self.shape.heads, "k_proj": self.shape.kv_heads, "v_proj": self.shape.kv_heads}
        query, key, value = (
            self.self_attn[name](x).view(batch, tokens, count, -1).transpose(1, 2) for name, count in heads.items()
        )
        repeat = self.shape.heads // self.shape.kv_heads
        mixed = functional.scaled_dot_product_attention(
            _rotate(query, angles),
            _rotate(key, angles).repeat_interleave(repeat, 1),
            value.repeat_interleave(repeat, 1),
            is_causal=True,
        )
        return self.self_attn["o_proj"](mixed.transpose(1, 2).reshape(batch, tokens, -1))


class Llama(nn.Module):
    """A Llama with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.rms_eps)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                last = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.layers) if last else 0.04)

    def forward(self, ids: Tensor) -> Tensor:
        """ids: (batch, tokens) -> logits (batch, tokens, vocab)."""
        head = self.shape.hidden // self.shape.heads
        frequencies = self.shape.rope_theta ** (-torch.arange(0, head, 2) / head)
        phase = torch.outer(torch.arange(ids.shape[1]), frequencies).repeat(1, 2)
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, (phase.cos(), phase.sin()))
        return self.norm(x) @ self.embed_tokens.weight.T


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions in the Hugging Face layout: the two halves of a head are the pairs."""
    first, second = x.chunk(2, dim=-1)
    return x * angles[0] + torch.cat((-second, first), dim=-1) * angles[1]


def encode(pieces: list[str]) -> Tensor:
    """Bytes of all pieces, each between BOS and EOS."""
    return torch.tensor([token for piece in pieces for token in (BOS, *piece.encode(), EOS)], dtype=torch.long)


def batches(data: Tensor, schedule: Schedule, longest: int, seed: int) -> Iterator[Tensor]:
    """One (sequences, context + 1) batch per step; each epoch cuts the text anew, from another offset."""
    generator = torch.Generator().manual_seed(seed)
    pool: list[Tensor] = []
    for step in range(schedule.steps):
        context = schedule.context(step, longest)
        if not pool or len(pool[0]) != context + 1:
            pool = []
        while len(pool) < schedule.tokens_per_step // context:
            offset = int(torch.randint(context, (1,), generator=generator))
            rows = (len(data) - offset - 1) // context
            starts = offset + context * torch.randperm(rows, generator=generator)
            pool = [data[start : start + context + 1] for start in starts.tolist()] + pool
        taken = schedule.tokens_per_step // context
        pool, batch = pool[:-taken], pool[-taken:]
        yield torch.stack(batch)


@torch.no_grad()
def held_out_loss(model: nn.Module, data: Tensor, context: int) -> float:
    """Mean nats per token of the held-out text, in windows of `context` tokens."""
    total = count = 0.0
    for start in range(0, len(data) - 1, context * 4):
        for row in range(start, min(start + context * 4, len(data) - 1), context):
            ids = data[row : row + context + 1]
            total += float(functional.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="sum"))
            count += len(ids) - 1
    return total / count


def optimizer(model: Llama) -> torch.optim.AdamW:
    """AdamW; matrices decay, norms do not."""
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    vectors = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def train(arguments: argparse.Namespace) -> None:
    """Train from scratch, write a checkpoint every few hundred steps."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    splits = [split(novel) for novel in novels(arguments.text)]
    data = encode([piece for pieces, _ in splits for piece in pieces])
    held_out_text = "\n\n".join(held for _, held in splits) + "\n"
    held_out = torch.tensor(list(held_out_text.encode()))
    shape = Shape()
    schedule = Schedule(arguments.steps, peak_rate=arguments.peak_rate, long_share=arguments.long_share)
    model = Llama(shape)
    if arguments.start is not None:
        load(model, arguments.start)
    optimize = optimizer(model)
    forward: Any = torch.compile(model, dynamic=False) if arguments.compile else model
    weights = sum(weight.numel() for weight in model.parameters())
    LOG.info("%d training bytes, %d held out, %d weights", len(data), len(held_out), weights)
    began = time.monotonic()
    for step, batch in enumerate(batches(data, schedule, shape.context, arguments.seed)):
        for group in optimize.param_groups:
            group["lr"] = schedule.rate(step)
        logits = forward(batch[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimize.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimize.step()
        done = step + 1
        if done % 25 == 0:
            LOG.info("step %d loss %.3f, %.0f s", done, loss.item(), time.monotonic() - began)
        if done % arguments.checkpoint_steps == 0 or done == schedule.steps:
            measured = held_out_loss(model, held_out, schedule.context(step, shape.context))
            LOG.info("step %d held out %.4f nats/byte, %.0f s", done, measured, time.monotonic() - began)
            save(model, arguments.out, held_out_text)


def load(model: Llama, folder: Path) -> None:
    """Take the weights that an earlier run saved; its optimizer state is not kept, hence the warm-up."""
    stored = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in stored.items()})


def save(model: Llama, folder: Path, held_out_text: str) -> None:
    """Write weights (f16), configuration, tokenizer and held-out text in the Hugging Face layout."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{name}": weight.detach().half().contiguous() for name, weight in model.state_dict().items()}
    partial = folder / "model.safetensors.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    os.replace(partial, folder / "model.safetensors")
    files = {
        "config": _config(model.shape),
        "tokenizer": _tokenizer(),
        "tokenizer_config": tokenizer_config(model.shape.context),
        "generation_config": {"bos_token_id": BOS, "eos_token_id": EOS, "do_sample": False},
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n")
    (folder / "heldout.txt").write_text(held_out_text)


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rms_norm_eps": shape.rms_eps,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "dtype": "float16",
        "torch_dtype": "float16",
    }


def _tokenizer() -> dict[str, Any]:
    specials = {"<|bos|>": BOS, "<|endoftext|>": EOS}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token_id, "content": text, **flags} for text, token_id in specials.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: byte for byte, text in enumerate(byte_alphabet())} | specials,
            "merges": [],
        },
    }


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="Rdata.rdb of r-cran-janeaustenr")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--checkpoint-steps", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", type=Path, help="folder of an earlier run to continue from")
    parser.add_argument("--peak-rate", type=float, default=3e-3)
    parser.add_argument("--long-share", type=float, default=0.2, help="share of the steps with the whole context")
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument("--compile", action="store_true", help="use torch.compile (needs a C++ compiler)")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
