"""Name and instruction sets of the processor, and the set that the engines use.

OpenVINO and PyTorch compute with oneDNN. It chooses its kernels by the highest instruction set that
the processor has and the variable `ONEDNN_MAX_CPU_ISA` allows. Other kernels round otherwise, so
that the bytes of results depend on this set.

https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rooftrace.core.errors import ConfigError

__all__ = [
    "CAP",
    "INSTRUCTION_SETS",
    "PORTABLE_SET",
    "Processor",
    "can_be_capped",
    "cap_instruction_set",
    "cap_setting",
    "highest_shared",
    "this_processor",
]

CAP = "ONEDNN_MAX_CPU_ISA"
"""Variable with the highest instruction set that oneDNN uses; it is read once, at first use."""

PORTABLE_SET = "AVX2"
"""Instruction set that practically every x86-64 processor since 2013 has."""

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

_LIBRARIES = ("openvino", "torch")
"""Packages that hold a oneDNN, which takes no other cap once it is in use."""


@dataclass(frozen=True)
class Processor:
    """A processor, and what a cap leaves of its instruction sets.

    Args:
        name: Name of the model, such as "AMD EPYC 9654".
        machine: Architecture in lower case, such as "x86_64".
        flags: Instruction sets as Linux names them; empty if they are not known.
        cap: Highest set that `ONEDNN_MAX_CPU_ISA` allows; "" if it allows all.
    """

    name: str
    machine: str
    flags: frozenset[str]
    cap: str = ""

    @property
    def is_x86(self) -> bool:
        """True for x86-64."""
        return self.machine in ("x86_64", "amd64")

    @property
    def sets(self) -> tuple[str, ...]:
        """Instruction sets that the processor has and the cap allows, the lowest first."""
        allowed = self._used_flags
        return tuple(name for name, needed in INSTRUCTION_SETS.items() if needed <= allowed)

    @property
    def instruction_set(self) -> str:
        """Instruction set that oneDNN uses.

        Where the system does not list the flags, the name of the processor stands for it: two
        processors then count as equal only if their names are.
        """
        return self.sets[-1] if self.sets else f"{self.machine}: {self.name}"

    @property
    def without_cap(self) -> Processor:
        """The processor as engines use it that know no cap: ONNX Runtime, for example."""
        return Processor(self.name, self.machine, self.flags)

    @property
    def has_fast_int8(self) -> bool:
        """True if the processor multiplies bytes faster than floats: x86 with VNNI."""
        return self.is_x86 and bool({"avx512_vnni", "avx_vnni"} & self._used_flags)

    @property
    def has_avx512(self) -> bool:
        """True if the engines use AVX-512."""
        return "avx512f" in self._used_flags

    @property
    def has_bf16(self) -> bool:
        """True if the processor has instructions for bf16."""
        return bool({"avx512_bf16", "amx_bf16", "avx_ne_convert"} & self._used_flags)

    def require(self, name: str) -> None:
        """Raise ConfigError if the processor lacks an instruction set, or the cap forbids it."""
        if name not in self.sets:
            raise ConfigError(
                f"The processor {self.describe()} cannot use the instruction set {name}; it has "
                f"{', '.join(self.sets) or 'none that is known'}.",
                remedy=f"Unset {CAP}." if self.cap else "Use a machine that has it.",
            )

    def describe(self) -> str:
        """Return the name and the instruction set for messages."""
        limited = f", limited by {CAP}" if self.cap else ""
        return f"{self.name} ({self.instruction_set}{limited})"

    def to_json(self) -> dict[str, str]:
        """Return the record of the processor for run.json and other records."""
        limited = {"limited_by": cap_setting(self.cap)} if self.cap else {}
        return {"name": self.name, "instruction_set": self.instruction_set, **limited}

    @property
    def _used_flags(self) -> frozenset[str]:
        if not self.cap:
            return self.flags
        known = frozenset[str]().union(*INSTRUCTION_SETS.values())
        return self.flags & (INSTRUCTION_SETS[self.cap] | (self.flags - known))


def this_processor() -> Processor:
    """Return the processor of this machine, with the cap of this process."""
    name, flags = _read()
    cap = (os.environ.get(CAP) or os.environ.get(f"DNNL{CAP[6:]}") or "").upper()
    # oneDNN ignores a name that it does not know.
    allowed = cap if flags and cap in INSTRUCTION_SETS else ""
    processor = Processor(name, platform.machine().lower(), flags, allowed)
    return processor if processor.sets != processor.without_cap.sets else processor.without_cap


def cap_setting(name: str) -> str:
    """Return the setting of the environment that limits engines to an instruction set."""
    return f"{CAP}={name}"


def can_be_capped() -> bool:
    """Return True if this process has not loaded a library that reads the cap."""
    return not any(name in sys.modules for name in _LIBRARIES)


def cap_instruction_set(name: str) -> None:
    """Let the engines of this process use no instruction set higher than one.

    Child processes inherit the cap. It does nothing if the processor uses this set already.

    Raises:
        ConfigError: The processor does not have the set, the cap of this process does not allow it,
            or an engine is loaded already.
    """
    processor = this_processor()
    if name == processor.instruction_set:
        return
    processor.require(name)
    if not can_be_capped():
        raise ConfigError(
            f"This process has loaded an engine that uses {processor.instruction_set}, and cannot "
            f"change to {name}.",
            remedy=f"Set {cap_setting(name)} before the process starts.",
        )
    os.environ[CAP] = name


def highest_shared(sets: Iterable[Sequence[str]]) -> str | None:
    """Return the highest instruction set that all processors have; None if there is none."""
    shared = set(INSTRUCTION_SETS).intersection(*map(set, sets))
    return next((name for name in reversed(INSTRUCTION_SETS) if name in shared), None)


@cache
def _read() -> tuple[str, frozenset[str]]:
    """Return the name of the processor, and its flags as Linux lists them."""
    named: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            named.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = named.get("model name") or platform.processor() or platform.machine()
    return name, frozenset(named.get("flags", "").split())
