"""Options of the engines `vllm` and `vllm-server`, under vLLM's own names if it has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from engines.options import Port

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_OURS = frozenset({"kv_cache_space_gib", "n_threads", "extra", "port", "ready_timeout_s"})
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Options of both engines. None is vLLM's own default."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] | None = None  # compute type; a level decides it too
    quantization: str | None = None  # method that has no level here, under vLLM's name
    kv_cache_dtype: str | None = None  # "auto", "fp8", ...
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None  # share of the device's memory to take
    max_model_len: Count | None = None  # context of one request in tokens
    tensor_parallel_size: Count = 1
    enforce_eager: bool = False
    enable_prefix_caching: bool = True
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    kv_cache_space_gib: Count | None = None  # KV cache on a CPU; None fits the concurrent requests, at most 4
    n_threads: Count | None = None  # on a CPU; None is the physical cores, or the control group's quota, minus one
    # "priority" obeys the priorities of requests.
    scheduling_policy: Annotated[Literal["fcfs", "priority"], Field(description="fcfs or priority")] = "fcfs"
    seed: int = 0
    port: Port | None = None  # of the server; None is a free one
    ready_timeout_s: Annotated[float, Field(gt=0)] = 600.0  # of the server's loading
    extra: Mapping[str, Any] = field(default_factory=dict)  # further engine arguments of vLLM, passed on unchanged

    def __post_init__(self) -> None:
        if twice := sorted(self.extra.keys() & asdict(self).keys()):
            raise ValueError(f"{twice[0]} is an option of its own: write it outside `extra`")

    def engine_arguments(self) -> dict[str, Any]:
        """Return the engine arguments under vLLM's names, without those left to it."""
        given = {name: value for name, value in asdict(self).items() if name not in _OURS and value is not None}
        return {**given, **self.extra}
