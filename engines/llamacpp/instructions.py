"""Instruction sets of the processor that a build of llama.cpp leaves unused. Wheels are built for older processors."""

from __future__ import annotations

from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")
# llama.cpp's name -> the kernel's flag.
_NAMES = {
    "AVX2": "avx2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}


def unused_instructions(system_info: str, processors: Path = PROCESSORS) -> tuple[str, ...]:
    """Return the instruction sets, by llama.cpp's names, that the processor has and the build does not report.

    Args:
        system_info: Text of `llama_print_system_info`, "AVX2 = 1 | FMA = 1 | ...". An empty one gives ().
    """
    used = {
        part.split("=")[0].split(":")[-1].strip() for part in system_info.split("|") if part.strip().endswith("= 1")
    }
    here = _flags(processors)
    return tuple(name for name, flag in _NAMES.items() if used and flag in here and name not in used)


def _flags(processors: Path) -> set[str]:
    """Return the flags of the first processor; none if the system does not list them."""
    try:
        lines = processors.read_text().splitlines()
    except OSError:
        return set()
    line_of_flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return set(line_of_flags.partition(":")[2].split())
