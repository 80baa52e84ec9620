"""What the machine computes on, and how it is made fast."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from typing import Literal

import rooftrace.models._torch  # noqa: F401

# isort: split
import torch

from rooftrace.core.errors import ConfigError

__all__ = [
    "choose_accelerator",
    "choose_precision",
    "is_out_of_memory",
    "release_memory",
    "tune_allocator",
]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

_SAYINGS = (
    "out of memory",  # CUDA, and cuDNN's own
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator",
    "can't allocate memory",
)
"""How PyTorch says so where it does not by the kind of error: on a CPU, and in libraries."""


def tune_allocator() -> None:
    """Let glibc keep freed memory.

    Eager PyTorch on a CPU takes and frees the same large buffers in each step; by default glibc
    maps them anew each time, and most of the time goes into page faults. It lasts for the process.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def release_memory() -> None:
    """Give back what nothing refers to any more: Python's cycles, and what allocators keep."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        return ctypes.CDLL("libc.so.6")
    return None


def choose_accelerator(device: str, devices: int = 1) -> Literal["cpu", "cuda"]:
    """Raises ConfigError where a GPU is asked for and there is none, or not so many."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            'device = "cuda", but PyTorch sees no CUDA device.',
            remedy='Use device = "auto", or install a CUDA build of PyTorch.',
        )
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if devices > torch.cuda.device_count():
        raise ConfigError(
            f"devices = {devices}, but PyTorch sees {torch.cuda.device_count()} CUDA devices.",
            remedy='Give as many as there are, or use device = "cpu".',
        )
    return "cuda"


def choose_precision(
    precision: str, accelerator: str
) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """The precision in Lightning's words; `auto` takes what the device computes fast.

    Raises:
        ConfigError: fp16 on a CPU, where nothing computes in it.
    """
    if precision == "fp16" and accelerator == "cpu":
        raise ConfigError(
            'precision = "fp16" needs a GPU.', remedy='Use "auto", "bf16" or "fp32" on a CPU.'
        )
    if precision == "auto":
        if accelerator == "cuda":
            precision = (
                "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
            )
        else:
            precision = "bf16" if _cpu_has_bf16() else "fp32"
    if precision == "bf16":
        return "bf16-mixed"
    return "16-mixed" if precision == "fp16" else "32-true"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch could not have the memory that it asked for."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYINGS)


def _cpu_has_bf16() -> bool:
    # Without the instructions bf16 is emulated, and slower than fp32.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
