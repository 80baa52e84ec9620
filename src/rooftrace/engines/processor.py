"""Name and instruction set of the processor of this machine.

OpenVINO and PyTorch compute with oneDNN, which chooses its kernels by the highest instruction set
of the processor. Other kernels round otherwise, so that the bytes of results depend on this set.

https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["INSTRUCTION_SETS", "Processor", "this_processor"]

_AVX2 = frozenset({"sse4_1", "avx", "avx2", "fma"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}
_VNNI = _AVX512 | {"avx512_vnni"}
_BF16 = _VNNI | {"avx512_bf16"}
_FP16 = _BF16 | {"avx512_fp16"}
_AMX = _FP16 | {"amx_tile", "amx_int8", "amx_bf16"}

INSTRUCTION_SETS: dict[str, frozenset[str]] = {
    "SSE41": frozenset({"sse4_1"}),
    "AVX": frozenset({"sse4_1", "avx"}),
    "AVX2": _AVX2,
    "AVX2_VNNI": _AVX2 | {"avx_vnni"},
    "AVX2_VNNI_2": _AVX2 | {"avx_vnni", "avx_vnni_int8", "avx_ne_convert"},
    "AVX512_CORE": _AVX512,
    "AVX512_CORE_VNNI": _VNNI,
    "AVX512_CORE_BF16": _BF16,
    "AVX512_CORE_FP16": _FP16,
    "AVX512_CORE_AMX": _AMX,
    "AVX512_CORE_AMX_FP16": _AMX | {"amx_fp16"},
}
"""Instruction sets as oneDNN names them, and the flags by which Linux lists them. The lowest comes
first; a set that comes later is not always a superset."""


@dataclass(frozen=True)
class Processor:
    """A processor.

    Args:
        name: Name of the model, such as "AMD EPYC 9654".
        machine: Architecture in lower case, such as "x86_64".
        flags: Instruction sets as Linux names them; empty if they are not known.
    """

    name: str
    machine: str
    flags: frozenset[str]

    @property
    def is_x86(self) -> bool:
        """True for x86-64."""
        return self.machine in ("x86_64", "amd64")

    @property
    def instruction_set(self) -> str:
        """Instruction set that oneDNN uses.

        Where the system does not list the flags, the name of the processor stands for it.
        """
        sets = [name for name, needed in INSTRUCTION_SETS.items() if needed <= self.flags]
        return sets[-1] if sets else f"{self.machine}: {self.name}"

    @property
    def has_fast_int8(self) -> bool:
        """True if the processor multiplies bytes faster than floats: x86 with VNNI."""
        return self.is_x86 and bool({"avx512_vnni", "avx_vnni"} & self.flags)

    @property
    def has_avx512(self) -> bool:
        """True if the processor has AVX-512."""
        return "avx512f" in self.flags

    @property
    def has_bf16(self) -> bool:
        """True if the processor has instructions for bf16."""
        return bool({"avx512_bf16", "amx_bf16", "avx_ne_convert"} & self.flags)

    def describe(self) -> str:
        """Return the name and the instruction set for messages."""
        return f"{self.name} ({self.instruction_set})"


@cache
def this_processor() -> Processor:
    """Return the processor of this machine, with its flags as Linux lists them."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = frozenset(fields.get("flags", "").split())
    return Processor(name, platform.machine().lower(), flags)
