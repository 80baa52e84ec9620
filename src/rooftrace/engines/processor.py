"""What this processor computes fast, and how much of it an engine may use."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

__all__ = ["cpu_flags", "has_fast_bf16", "has_fast_int8", "limit_threads", "most_threads"]

_LIMIT: list[int] = []
"""How many threads an engine may use; empty where it takes as many as it finds cores."""


def limit_threads(count: int) -> None:
    """Let the engines of this process use so many threads, of those that are loaded from now on.

    What they answer does not depend on it: a worker that has a part of a machine is told its part.
    """
    _LIMIT[:] = [count]


def most_threads() -> int | None:
    """How many an engine may use; None where it may take all."""
    return _LIMIT[0] if _LIMIT else None


@cache
def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets by Linux's names; empty where they cannot be told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def has_fast_int8() -> bool:
    """Whether the processor multiplies bytes faster than floats: VNNI on x86, else not known."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and bool({"avx512_vnni", "avx_vnni"} & cpu_flags())


def has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 by instructions of its own."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())
