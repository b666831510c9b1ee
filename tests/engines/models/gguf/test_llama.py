"""The conversion to GGUF gives the same model: llama.cpp against a forward pass in numpy."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.base import EngineSpec, ModelReference
from engines.llamacpp.server import LlamaServer
from engines.models import safetensors_io
from engines.models.gguf.folder import interleave
from engines.models.source import resolve

TINY = resolve(ModelReference("tiny"))
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 20, 40, 16
Array = NDArray[np.float32]


class NumpyLlama:
    """The Hugging Face definition of a Llama, as short as it gets: no cache, one sequence, float32."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        stored = safetensors_io.read(folder / "model.safetensors")
        self.weights = {name.removeprefix("model."): tensor.load() for name, tensor in stored.items()}

    def logits(self, ids: list[int]) -> Array:
        """Next-token logits after every position: (tokens, vocabulary)."""
        x = self.weights["embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            weights = {
                name.removeprefix(f"layers.{layer}."): weight
                for name, weight in self.weights.items()
                if name.startswith(f"layers.{layer}.")
            }
            x = x + self._attend(weights, self._norm(x, weights["input_layernorm.weight"]))
            y = self._norm(x, weights["post_attention_layernorm.weight"])
            gate = y @ weights["mlp.gate_proj.weight"].T
            x = (
                x
                + (gate / (1 + np.exp(-gate)) * (y @ weights["mlp.up_proj.weight"].T))
                @ weights["mlp.down_proj.weight"].T
            )
        result: Array = self._norm(x, self.weights["norm.weight"]) @ self.weights["embed_tokens.weight"].T
        return result

    def _norm(self, x: Array, scale: Array) -> Array:
        result: Array = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + self.config["rms_norm_eps"]) * scale
        return result

    def _attend(self, weights: dict[str, Array], x: Array) -> Array:
        count, head = len(x), self.config["head_dim"]
        query, key, value = (
            (x @ weights[f"self_attn.{name}_proj.weight"].T).reshape(count, -1, head).swapaxes(0, 1) for name in "qkv"
        )
        repeat = self.config["num_attention_heads"] // self.config["num_key_value_heads"]
        key, value = self._rotate(key).repeat(repeat, axis=0), value.repeat(repeat, axis=0)
        scores = self._rotate(query) @ key.swapaxes(1, 2) / np.sqrt(head)
        scores = np.where(np.tri(count, dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = shares / shares.sum(axis=-1, keepdims=True) @ value
        result: Array = mixed.swapaxes(0, 1).reshape(count, -1) @ weights["self_attn.o_proj.weight"].T
        return result

    def _rotate(self, x: Array) -> Array:
        half = x.shape[-1] // 2
        angles = np.outer(np.arange(x.shape[1]), self.config["rope_theta"] ** (-np.arange(half) / half)).astype(
            np.float32
        )
        first, second = x[..., :half], x[..., half:]
        return np.concatenate(
            [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)],
            axis=-1,
        )


def _complete(url: str, ids: list[int]) -> list[int]:
    """The greedy continuation of token ids, as the server gives it."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    body = {"prompt": ids, "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    text = json.loads(connection.getresponse().read())["choices"][0]["text"]
    connection.close()
    return list(text.encode())


async def _completions(prompts: list[list[int]], options: dict[str, Any], log: Path) -> list[list[int]]:
    engine = LlamaServer(EngineSpec("llama-server", ModelReference("tiny"), "f32", options, log_path=log))
    await engine.start()
    try:
        return [await asyncio.to_thread(_complete, engine.endpoint().url, prompt) for prompt in prompts]
    finally:
        await engine.stop()


@pytest.mark.slow
def test_converted_model_continues_like_the_original(tmp_path: Path) -> None:
    """At least 95 % of llama.cpp's greedy tokens in f32 equal the checkpoint's."""
    text = (TINY.path / "heldout.txt").read_bytes()
    starts = np.linspace(0, len(text) - PROMPT_TOKENS, PROMPTS).astype(int)
    prompts = [list(text[start : start + PROMPT_TOKENS]) for start in starts]
    options = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": False}
    replies = asyncio.run(_completions(prompts, options, tmp_path / "log"))
    model = NumpyLlama(TINY.path)
    agreeing = total = 0
    for prompt, reply in zip(prompts, replies, strict=True):
        expected = model.logits(prompt + reply).argmax(axis=-1)[PROMPT_TOKENS - 1 : -1]
        agreeing += int(np.sum(expected == reply))
        total += NEW_TOKENS
    assert total == PROMPTS * NEW_TOKENS
    assert agreeing / total >= 0.95


@pytest.mark.slow
def test_tiny_predicts_its_held_out_text() -> None:
    """The committed weights are a trained model: well under the 1.6 nats per byte that they were made for."""
    ids = list((TINY.path / "heldout.txt").read_bytes()[:1537])
    model = NumpyLlama(TINY.path)
    losses = []
    for start in range(0, len(ids) - 1, 512):
        piece = ids[start : start + 513]
        logits = model.logits(piece[:-1]).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = logits[np.arange(len(piece) - 1), piece[1:]]
        losses.append(np.log(np.exp(logits).sum(axis=-1)) - chosen)
    assert np.concatenate(losses).mean() < 1.4


def test_interleaving_turns_half_heads_into_neighbours() -> None:
    """Row i of a head's first half and row i of its second half become neighbours; heads stay apart."""
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
