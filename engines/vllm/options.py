"""The options of the engines `vllm` and `vllm-server`; they have vLLM's own names where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_OURS = frozenset({"kv_cache_space_gib", "n_threads", "extra", "port", "ready_timeout_s"})
_AT_LEAST_ONE = ("max_model_len", "tensor_parallel_size", "max_num_seqs", "max_num_batched_tokens")


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Options of both engines; None: vLLM's own default.

    dtype: in which type it computes ("float32", "float16", "bfloat16"); the level says it where one is named.
    quantization: a method that has no level here, under vLLM's name.   kv_cache_dtype: "auto", "fp8", ...
    gpu_memory_utilization: share of the device's memory to take.   max_model_len: context of one request, in tokens.
    kv_cache_space_gib: size of the KV cache on a CPU. None: what the requests at a time need, at most 4.
    n_threads: threads that compute on a CPU. None: the physical cores, or the control group's quota, less one.
    scheduling_policy: "fcfs", or "priority" to obey the priorities of requests.
    extra: further engine arguments of vLLM, passed on as they are.
    port, ready_timeout_s: of the server; a free port; how long loading may take.
    """

    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    enable_prefix_caching: bool = True
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_space_gib: int | None = None
    n_threads: int | None = None
    scheduling_policy: str = "fcfs"
    seed: int = 0
    port: int | None = None
    ready_timeout_s: float = 600.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*_AT_LEAST_ONE, "kv_cache_space_gib", "n_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is 1 or more, not {value!r}")
        if self.dtype is not None and self.dtype not in ("auto", *DTYPES.values()):
            raise ValueError(f"dtype is one of auto, {', '.join(DTYPES.values())}, not {self.dtype!r}")
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"gpu_memory_utilization is above 0 and at most 1, not {share!r}")
        if self.scheduling_policy not in ("fcfs", "priority"):
            raise ValueError(f"scheduling_policy is fcfs or priority, not {self.scheduling_policy!r}")
        if self.port is not None and not 0 < self.port < 65536:
            raise ValueError(f"port is from 1 to 65535, not {self.port!r}")
        if self.ready_timeout_s <= 0:
            raise ValueError(f"ready_timeout_s is above 0, not {self.ready_timeout_s!r}")
        if twice := sorted(self.extra.keys() & asdict(self).keys()):
            raise ValueError(f"{twice[0]} is an option of its own: write it outside `extra`")

    def engine_arguments(self) -> dict[str, Any]:
        """Those that vLLM takes, under its names; what is left to it is absent."""
        given = {name: value for name, value in asdict(self).items() if name not in _OURS and value is not None}
        return {**given, **self.extra}
