"""What the processor can do that a build of llama.cpp leaves unused: wheels are built for processors of some age."""

from __future__ import annotations

from pathlib import Path

PROCESSORS = Path("/proc/cpuinfo")
# llama.cpp's name, and the kernel's flag.
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
    """Sets of instructions, by llama.cpp's names, that the processor has and the build does not say that it uses.

    system_info: as `llama_print_system_info` writes it, "AVX2 = 1 | FMA = 1 | ...". Nothing where that is empty.
    """
    used = {
        part.split("=")[0].split(":")[-1].strip() for part in system_info.split("|") if part.strip().endswith("= 1")
    }
    here = _flags(processors)
    return tuple(name for name, flag in _NAMES.items() if used and flag in here and name not in used)


def _flags(processors: Path) -> set[str]:
    """Of the first processor; none where the system does not tell."""
    try:
        lines = processors.read_text().splitlines()
    except OSError:
        return set()
    said = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return set(said.partition(":")[2].split())
