"""llama.cpp through the bindings of llama-cpp-python: one model, one context, one sequence, one log.

The calls are llama.cpp's own, without the package's Python objects, which copy the logits of every token. Each object
may be used from one thread only.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import EngineError, StartFailed
from engines.llamacpp.options import ALL_LAYERS, LlamaCppOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOGITS_BYTES = 64 << 20
_NO_SLOT = 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. llama.cpp's own defaults do not apply.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 is all.
        seed: None is a new one each time.
        exact: Never draw the end of the reply.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    exact: bool = False


class NativeModel:
    """Loaded model and its context; `close` frees both.

    Attributes:
        bindings: Functions of llama.cpp.
        ends: Tokens that end a reply.
    """

    def __init__(self, gguf: Path, options: LlamaCppOptions, context_tokens: int, lora: Path | None = None) -> None:
        """Raise StartFailed if llama.cpp cannot load the model or the adapter, or make the context."""
        from llama_cpp import llama_cpp as bindings

        self.bindings: Any = bindings
        self._grammar = options.grammar
        self._model = self.context = self._adapter = None
        try:
            self._load(gguf, options, context_tokens, lora)
        except BaseException:
            self.close()
            raise
        self._vocabulary: Any = bindings.llama_model_get_vocab(self._model)
        self._memory: Any = bindings.llama_get_memory(self.context)
        self.vocabulary_tokens = int(bindings.llama_vocab_n_tokens(self._vocabulary))
        self.context_tokens = int(bindings.llama_n_ctx(self.context))
        self.parameters = int(bindings.llama_model_n_params(self._model))
        self._batch_tokens = int(bindings.llama_n_batch(self.context))
        self._evaluated: list[int] = []
        self._one: Any = (bindings.llama_token * 1)()
        self._one_batch: Any = bindings.llama_batch_get_one(self._one, 1)
        self._piece_buffer: Any = ctypes.create_string_buffer(256)
        self._pieces: dict[int, bytes] = {}
        self.ends: frozenset[int] = frozenset(
            token for token in range(self.vocabulary_tokens) if bindings.llama_vocab_is_eog(self._vocabulary, token)
        )

    def close(self) -> None:
        if self.context is not None:
            self.bindings.llama_free(self.context)
        if self._model is not None:
            self.bindings.llama_model_free(self._model)  # frees its adapters too
        self.context = self._model = self._adapter = None

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Return token ids. `special` adds those that the model expects in front.

        Names of special tokens in the text become these tokens.
        """
        data = text.encode()
        room = len(data) + 8
        while True:
            ids = (self.bindings.llama_token * room)()
            found = int(self.bindings.llama_tokenize(self._vocabulary, data, len(data), ids, room, special, True))
            if found >= 0:
                return list(ids[:found])
            room = -found

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, b"" of a special one."""
        if token not in self._pieces:
            self._pieces[token] = self._read_piece(token)
        return self._pieces[token]

    def reuse(self, prompt: Sequence[int]) -> int:
        """Keep the common beginning with a prompt, without the prompt's last token. Return its length."""
        common = min(_common(self._evaluated, prompt), len(prompt) - 1)
        if common == 0 or not self.bindings.llama_memory_seq_rm(self._memory, 0, common, -1):
            self.clear()
            return 0
        del self._evaluated[common:]
        return common

    def clear(self) -> None:
        self.bindings.llama_memory_clear(self._memory, True)
        self._evaluated.clear()

    def feed(self, tokens: Sequence[int], go_on: Callable[[], bool]) -> bool:
        """Evaluate tokens after the sequence, in batches. Return False if `go_on` ended it between two batches.

        Raises EngineError if llama.cpp fails.
        """
        for start in range(0, len(tokens), self._batch_tokens):
            if not go_on():
                return False
            part = tokens[start : start + self._batch_tokens]
            array = (self.bindings.llama_token * len(part))(*part)
            self._decode(self.bindings.llama_batch_get_one(array, len(part)))
            self._evaluated.extend(part)
        return True

    def feed_one(self, token: int) -> None:
        """Evaluate one token after the sequence."""
        self._one[0] = token
        self._decode(self._one_batch)
        self._evaluated.append(token)

    def sample(self, chain: Any) -> int:
        """Return the next token, drawn by a chain of `sampler` from the last logits."""
        return int(self.bindings.llama_sampler_sample(chain, self.context, -1))

    def sampler(self, sampling: Sampling) -> Any:
        """Return a chain of samplers, in the order of llama.cpp's server. `free_sampler` frees it.

        Raises EngineError if the grammar is invalid.
        """
        c = self.bindings
        chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        if self._grammar is not None:
            grammar = c.llama_sampler_init_grammar(self._vocabulary, self._grammar.encode(), b"root")
            if not grammar:
                c.llama_sampler_free(chain)
                raise EngineError("llama.cpp cannot read the grammar")
            c.llama_sampler_chain_add(chain, grammar)
        elif sampling.exact and self.ends:
            biases = (c.llama_logit_bias * len(self.ends))(*[(token, float("-inf")) for token in sorted(self.ends)])
            added = c.llama_sampler_init_logit_bias(self.vocabulary_tokens, len(self.ends), biases)
            c.llama_sampler_chain_add(chain, added)
        if sampling.temperature <= 0:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_greedy())
            return chain
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_k(sampling.top_k))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_p(sampling.top_p, 1))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_temp(sampling.temperature))
        seed = c.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_dist(seed))
        return chain

    def free_sampler(self, chain: Any) -> None:
        self.bindings.llama_sampler_free(chain)

    def logits(self, tokens: Sequence[int], first: int) -> NDArray[np.float32]:
        """Return the logits about tokens[first:], [rows, vocabulary]. The sequence is cleared."""
        import numpy as np

        self.clear()
        self.feed(tokens[: first - 1], lambda: True)
        rows = np.empty((len(tokens) - first, self.vocabulary_tokens), dtype=np.float32)
        step = max(1, min(self._batch_tokens, _LOGITS_BYTES // (4 * self.vocabulary_tokens)))
        for start in range(0, len(rows), step):
            part = tokens[first - 1 + start : first - 1 + min(start + step, len(rows))]
            rows[start : start + len(part)] = self._logits_of(part, first - 1 + start)
        self.clear()
        return rows

    def _load(self, gguf: Path, options: LlamaCppOptions, context_tokens: int, lora: Path | None) -> None:
        c = self.bindings
        c.llama_backend_init()
        if options.n_gpu_layers not in (None, 0) and not c.llama_supports_gpu_offload():
            raise StartFailed(
                "this build of llama-cpp-python does not support a GPU; compile it for one, or set n_gpu_layers to 0"
            )
        parameters = c.llama_model_default_params()
        parameters.load_mode = getattr(c, options.load_mode)
        if options.n_gpu_layers is not None:
            parameters.n_gpu_layers = ALL_LAYERS if options.n_gpu_layers == "all" else options.n_gpu_layers
        self._model = c.llama_model_load_from_file(str(gguf).encode(), parameters)
        if self._model is None:
            raise StartFailed(f"llama.cpp cannot load {gguf.name}")
        if lora is not None:  # before the context is made, as llama.cpp requires
            self._adapter = c.llama_adapter_lora_init(self._model, str(lora).encode())
            if not self._adapter:
                raise StartFailed(f"llama.cpp cannot apply the adapter {lora.name} to {gguf.name}")
        self.context = c.llama_init_from_model(self._model, self._context_parameters(options, context_tokens))
        if self.context is None:
            raise StartFailed(f"llama.cpp cannot make a context of {context_tokens} tokens")
        if lora is not None:
            adapters, scales = (c.llama_adapter_lora_p_ctypes * 1)(self._adapter), (ctypes.c_float * 1)(1.0)
            if c.llama_set_adapters_lora(self.context, adapters, 1, scales) != 0:
                raise StartFailed(f"llama.cpp cannot use the adapter {lora.name}")

    def _context_parameters(self, options: LlamaCppOptions, context_tokens: int) -> Any:
        c = self.bindings
        parameters = c.llama_context_default_params()
        parameters.n_ctx = context_tokens
        parameters.n_batch = options.n_batch
        parameters.n_ubatch = options.n_ubatch
        parameters.n_seq_max = 1
        parameters.n_threads = parameters.n_threads_batch = options.threads
        parameters.flash_attn_type = getattr(c, options.flash_attn_type)
        parameters.type_k = getattr(c, f"GGML_TYPE_{options.cache_type_k.upper()}")
        parameters.type_v = getattr(c, f"GGML_TYPE_{options.cache_type_v.upper()}")
        return parameters

    def _decode(self, batch: Any) -> None:
        code = self.bindings.llama_decode(self.context, batch)
        if code == 0:
            return
        self.clear()
        if code == _NO_SLOT:
            raise EngineError(f"the context of {self.context_tokens} tokens is full; raise n_ctx")
        raise EngineError(f"llama.cpp cannot evaluate the tokens (llama_decode gave {code})")

    def _logits_of(self, tokens: Sequence[int], position: int) -> NDArray[np.float32]:
        import numpy as np

        batch = self.bindings.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for index, token in enumerate(tokens):
                batch.token[index], batch.pos[index] = token, position + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = True
            self._decode(batch)
            pointer = self.bindings.llama_get_logits(self.context)
            found: NDArray[np.float32] = np.ctypeslib.as_array(pointer, (len(tokens), self.vocabulary_tokens)).copy()
            return found
        finally:
            self.bindings.llama_batch_free(batch)

    def _read_piece(self, token: int) -> bytes:
        size = len(self._piece_buffer)
        found = int(self.bindings.llama_token_to_piece(self._vocabulary, token, self._piece_buffer, size, 0, False))
        if found < 0:
            self._piece_buffer = ctypes.create_string_buffer(-found)
            return self._read_piece(token)
        return bytes(self._piece_buffer[:found])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common beginning of two sequences."""
    size = min(len(one), len(other))
    if list(one[:size]) == list(other[:size]):
        return size
    return next(index for index in range(size) if one[index] != other[index])


_INFORMATION, _ERROR, _CONTINUED = 2, 4, 5


class NativeLog:
    """Log of llama.cpp in a file, or in this process' stderr, without debug messages.

    There is one log for the whole process: the last one opened receives it.

    Attributes:
        text, first_error: Output and first error of loading, that is before `loaded`.
    """

    def __init__(self, path: Path | None) -> None:
        from llama_cpp import llama_cpp as bindings

        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._file = None if path is None else path.open("a", encoding="utf-8", errors="replace", buffering=1)
        self.text = ""
        self.first_error: str | None = None
        self._keeping = True
        self._level = 0
        self._bindings: Any = bindings
        self._callback: Any = bindings.llama_log_callback(self._write)
        bindings.llama_log_set(self._callback, ctypes.c_void_p(0))

    def loaded(self) -> None:
        """Keep no further output."""
        self._keeping = False

    def close(self) -> None:
        """Give the log back to llama-cpp-python, which writes errors to stderr. Idempotent."""
        if self._callback is None:
            return
        from llama_cpp import _logger

        self._bindings.llama_log_set(_logger.llama_log_callback, ctypes.c_void_p(0))
        self._callback = None
        if self._file is not None:
            self._file.close()

    def _write(self, level: int, data: bytes, _: object) -> None:
        self._level = level if level != _CONTINUED else self._level
        if self._level < _INFORMATION:
            return
        text = data.decode("utf-8", "replace")
        if self._keeping:
            self.text += text
            if level == _ERROR and self.first_error is None:
                self.first_error = text.strip()
        (self._file or sys.stderr).write(text)
